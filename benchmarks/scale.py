"""Do costs stay as they are when clips become many and long?

Extraction on one core of 100 and of 10,000 clips (200 files of 5 s, each named many times), and of files of one hour
and two; score files and fusion of 260,000 clips and 400 classes. Each part runs in a process of its own, whose peak
memory less that of its imports (and of the list of clips) is told. How the lists themselves grow is kinetics_scale.py's question.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile
from comparing import Row, at_most, show

N_FILES, FEW, BUFFERED, MANY = 200, 100, 3000, 10_000  # after 3,000 the buffers have been full
MINUTES = (60, 120)
RATE = 44_100
N_CLIPS, N_CLASSES, KINETICS_VAL = 260_000, 400, 19_796
TRIAL_MS, BOOTSTRAP_S = 12, 3  # what Kinetics-400's validation set may take
IMPORTS = "import fusion, made, optuna, torch, scale, sys; from avrecog.extraction import extract"


def own(part: str, *arguments: object) -> list[float]:
    """The numbers that a function of this file returns in a process of its own, then the memory it took in MiB."""
    code = f"{IMPORTS}\ntorch.set_num_threads(1)\nextract.LogMel\n"
    code += f"before = scale.peak_mib()\nfound = scale.{part}(*sys.argv[1:])\nprint(*found, scale.peak_mib() - before)"
    command = ["taskset", "-c", "0", sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [float(number) for number in done.stdout.split("\n")[-2].split()]


def extract(folder: str, pattern: str, n: str) -> list[float]:
    """CPU seconds of an extraction of n clips, and the memory that it has not given back at its end, in MiB."""
    from made import clip_of

    from avrecog.extraction.extract import extract_all
    from avrecog.features.settings import AudioConfig, LogMelConfig

    paths = sorted(Path(folder).glob(pattern))
    clips = [clip_of(paths[number % len(paths)], number) for number in range(int(n))]
    with tempfile.TemporaryDirectory() as out:
        began, before = time.process_time(), psutil.Process().memory_info().rss
        extract_all(clips, Path(out) / "features", AudioConfig(LogMelConfig()), None, 0.0)
        return [time.process_time() - began, (psutil.Process().memory_info().rss - before) / 2**20]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_long(path: Path, minutes: int) -> None:
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="VORBIS", format="OGG") as file:
        for _ in range(minutes * 6):
            file.write((0.1 * rng.standard_normal(10 * RATE)).astype(np.float32))


def score_files(folder: str) -> list[float]:
    """Seconds to write and to read a score file, MiB of it, of memory while it is read."""
    from avrecog.scores.npz import read_scores, write_scores
    from avrecog.scores.table import ScoreTable
    from fusion import scores

    values, labels = scores(1, N_CLIPS, N_CLASSES)
    names = tuple(f"class {number}" for number in range(N_CLASSES))
    ids = np.array([f"{clip:06d}" for clip in range(N_CLIPS)])
    path = Path(folder) / "val.npz"
    began = time.perf_counter()
    write_scores(path, ScoreTable(ids, labels, values[0], names, "probabilities", "a", "val", np.array([], dtype=str)))
    wrote = time.perf_counter()
    read_scores(path)
    return [wrote - began, time.perf_counter() - wrote, path.stat().st_size / 2**20]


def searched() -> list[float]:
    """ms a trial of two models and seconds of the bootstrap; MiB of the scores."""
    from avrecog.fusion.objective import FusionObjective
    from avrecog.metrics import bootstrap_gain, correct_clips
    from fusion import scores

    values, labels = scores(2, N_CLIPS, N_CLASSES)
    objective = FusionObjective(values, labels)
    weights = np.random.default_rng(0).dirichlet(np.ones(2), 20)
    began = time.perf_counter()
    for each in weights:
        objective(each)
    trial = (time.perf_counter() - began) / len(weights)
    right = [correct_clips(value, labels) for value in values]
    began = time.perf_counter()
    bootstrap_gain(*right)
    return [1000 * trial, time.perf_counter() - began, values.nbytes / 2**20]


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from made import make_ogg

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_ogg(folder, N_FILES)
        # a hundred clips take half a second of the processor, so the middle one of five
        costs = {FEW: sorted(own("extract", folder, "[0-9]*.ogg", FEW) for _ in range(5))[2]}
        costs |= {n: own("extract", folder, "[0-9]*.ogg", n) for n in (BUFFERED, MANY)}
        few, buffered, many = ((1000 * seconds / n, mib, peak) for n, (seconds, mib, peak) in costs.items())
        rows += [
            at_most(f"extract, ms of one core a clip: {FEW} clips / {MANY:,} clips", f"{few[0]:.2f} ms", f"{many[0]:.2f} ms", many[0] / few[0], 1.05),
            at_most(f"the same, memory kept at its end: {BUFFERED:,} clips / {MANY:,} clips", f"{buffered[1]:.0f} MiB (peak {buffered[2]:.0f})", f"{many[1]:.0f} MiB (peak {many[2]:.0f})", many[1] / buffered[1], 1.2),
        ]  # fmt: skip
        for minutes in MINUTES:
            write_long(folder / f"long{minutes}.ogg", minutes)
        short, long = (own("extract", folder, f"long{minutes}.ogg", 1) for minutes in MINUTES)
        rows += [
            at_most(f"extract of one file, s of one core an hour of sound: {MINUTES[0]} minutes / {MINUTES[1]} minutes", f"{short[0] * 60 / MINUTES[0]:.1f} s", f"{long[0] * 60 / MINUTES[1]:.1f} s", long[0] / short[0] * MINUTES[0] / MINUTES[1], 1.05),
            at_most("the same, memory", f"{short[1]:.0f} MiB", f"{long[1]:.0f} MiB", long[1] / short[1], 1.2),
        ]  # fmt: skip
        write_s, read_s, file_mib, peak = own("score_files", folder)
        rows.append(Row(f"a score file of {N_CLIPS:,} clips x {N_CLASSES} classes ({file_mib:.0f} MiB): written / read", f"{write_s:.1f} s", f"{read_s:.1f} s"))  # fmt: skip
        trial_ms, bootstrap_s, values_mib, searched_mib = own("searched")
        aim = TRIAL_MS * N_CLIPS / KINETICS_VAL
        rows += [
            at_most(f"a fusion trial, 2 models x {N_CLIPS:,} clips", f"{aim:.0f} ms: {TRIAL_MS} ms at {KINETICS_VAL:,}", f"{trial_ms:.2f} ms", trial_ms, round(aim), " ms"),
            at_most("bootstrap of 2,000 resamples there", "", f"{bootstrap_s:.2f} s", bootstrap_s, BOOTSTRAP_S, " s"),
            at_most("memory of search and bootstrap, the scores among it / the scores", f"{values_mib:.0f} MiB", f"{searched_mib:.0f} MiB", searched_mib / values_mib, 2),
        ]  # fmt: skip
    show("Scale", rows, ["numpy", "av", "soundfile", "torch"], [f"This process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB."])  # fmt: skip


if __name__ == "__main__":
    main()
