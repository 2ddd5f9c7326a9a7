"""Time and peak memory of all that grows with the number of clips, on lists as long as Kinetics-400's.

PYTHONPATH=src python benchmarks/kinetics_scale.py [--clips 260000] [--folder FOLDER]

The lists and the label map are made up, the files below the roots are sparse (no two of one size, none is a film), and
probing is told what it would find; everything else is the code of the stages. The clips' log-mel has two rows of four
bands. Each part runs in a process of its own, so that its peak memory is its own (the imports are in every one). On a
machine that does other work too, the processor's seconds tell more than those of the clock.
"""

import argparse
import functools
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from avrecog.annotations.kinetics_source import read_kinetics
from avrecog.annotations.prepare import prepare
from avrecog.annotations.settings import DataConfig, KineticsConfig
from avrecog.annotations.splits import make_splits
from avrecog.config import plain
from avrecog.datasets.open import open_features, open_split
from avrecog.extraction.store_writer import StoreWriter
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.store import Store
from avrecog.manifest import LabelledClips, clips_digest, read_manifest, read_splits, write_manifest, write_splits
from avrecog.media import read_files
from avrecog.media.container import Probe
from avrecog.models.audio import AudioModelConfig
from avrecog.models.registry import build_model
from avrecog.training.warm_start import set_input_norm

N_CLASSES = 400
AUDIO = AudioConfig(LogMelConfig(n_mels=4))
MODEL = AudioModelConfig(architecture="audio", depth=10, width=8, mel_frames=2)
BATCH = 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=260_000, help="rows of the lists; one in 13 is of the test list")
    parser.add_argument("--folder", type=Path, help="for the made-up files; left there (default: a temporary one)")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="kinetics_scale_"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not (folder / "made").exists():
            make_files(folder, args.clips)
        print(f"{args.clips:,} clips\n{'part':<44} {'clock s':>8} {'CPU s':>7} {'peak MiB':>9}", flush=True)
        for part in PARTS:
            with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
                clock_s, cpu_s, mib = pool.submit(measured, part, folder).result()
            print(f"{PARTS[part]:<44} {clock_s:8.1f} {cpu_s:7.1f} {mib:9.0f}", flush=True)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


def measured(part: str, folder: Path) -> tuple[float, float, float]:
    """Seconds of the work that a part returns, by the clock and of the CPU; the process's peak memory in MiB."""
    os.chdir(folder)
    work: Callable[[], object] = globals()[part]()
    began, cpu_began = time.perf_counter(), time.process_time()
    work()
    clock_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    return clock_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_files(folder: Path, n_clips: int) -> None:
    """Three clips in four have a file with times in its name; the test's lie in one folder, without class folders."""
    names = [f"class number {index}" for index in range(N_CLASSES)]
    for path in [folder / "lists", folder / "videos_val", *(folder / "videos_train" / name for name in names)]:
        path.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for index in range(n_clips):
        label, video_id = index % N_CLASSES, f"{index * 7919 % n_clips:011d}"
        times = "_000012_000022" if index % 4 else ""
        if index % 13 == 0:
            path = folder / f"videos_val/{video_id}{times}.mp4"
            lines["val"].append(f"{video_id} 300 {label}")
        else:
            path = folder / f"videos_train/{names[label]}/{video_id}{times}.mp4"
            lines["train"].append(f"{names[label]}/{video_id}.mp4 {label}")
        with path.open("wb") as file:
            file.truncate(100_000 + index)
    for name, rows in (*lines.items(), ("labels", names)):
        (folder / "lists" / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    (folder / "made").touch()


def data() -> DataConfig:
    lists = KineticsConfig(
        train="train.txt", test="val.txt", label_map="labels.txt", train_root="videos_train", test_root="videos_val"
    )
    return DataConfig(source="kinetics", annotation="lists", kinetics=lists, val_fraction=0.02)


def annotated():
    return read_kinetics(Path("lists"), data().kinetics)


def found(path: Path) -> Probe:
    return Probe(duration_s=10.0, sample_rate=44_100, fps=25.0)


def nothing():
    return lambda: None


def lists():
    return annotated


def digests():
    paths = [Path(row.path) for row in annotated()]
    return lambda: [read_files._digest(path) for path in paths if path.exists()]


def splits():
    rows = annotated()
    return lambda: make_splits([row.path for row in rows], rows, data())


def whole_prepare():
    def work():
        with mock.patch.object(read_files, "probe", found):
            prepare(data(), Path("data"))

    return work


def manifest_written():
    clips, table = read_manifest(Path("data/manifest.csv")), read_splits(Path("data/splits.csv"))

    def work():
        write_manifest(Path("again.csv"), clips)
        write_splits(Path("again_splits.csv"), table)

    return work


def manifest_read():
    return lambda: LabelledClips.read(Path("data"))


def store_written():
    clips = read_manifest(Path("data/manifest.csv"))
    rows = np.random.default_rng(0).random((len(clips), 2, AUDIO.logmel.n_mels)).astype(np.float16)

    shutil.rmtree(Path("data/features"), ignore_errors=True)  # of the run before, which would be gone on with

    def work():
        settings = {"front_end": plain(AUDIO.logmel), "clips": clips_digest(clips)}
        writer = StoreWriter(Path("data/features/audio"), settings, rows.shape[2:], "float16")
        for clip, values in zip(clips, rows, strict=True):
            writer.append(clip.clip_id, values)
        writer.finish()

    return work


def store_taken_up():
    return lambda: StoreWriter(Path("data/features/audio"), *taken_up_with()).finish()


def taken_up_with():
    settings = Store(Path("data/features/audio")).settings
    return settings, (AUDIO.logmel.n_mels,), "float16"


def store_opened():
    return lambda: Store(Path("data/features/audio"))


def first_batch():
    return functools.partial(training_batches, 1)


def first_epoch_of_batches():
    return functools.partial(training_batches, None)


def training_batches(n: int | None) -> None:
    """What stage train does before its first step, then n batches (None: an epoch)."""
    tables = LabelledClips.read(Path("data"))
    front_end = FrontEnd(AUDIO, None)
    features = open_features(MODEL.input(), front_end, Path("data/features"), tables)
    clips = open_split(MODEL.input(), features, "train").clips
    open_split(MODEL.input(), features, "val")
    set_input_norm(build_model(MODEL, N_CLASSES), clips)
    draw = clips.draw(0, 0)
    order = np.random.default_rng(0).permutation(len(clips))
    for batch in np.array_split(order, -(-len(clips) // BATCH))[:n]:
        clips.training_batch(batch, draw, torch.device("cpu"))


PARTS = {
    "nothing": "(imports only)",
    "lists": "lists read, media found",
    "digests": "digests of all files",
    "splits": "splits cut, groups checked",
    "whole_prepare": "stage prepare, but for probing",
    "manifest_written": "manifest and splits written",
    "manifest_read": "manifest, splits and labels read",
    "store_written": "store written",
    "store_taken_up": "store taken up after a stop",
    "store_opened": "store opened",
    "first_batch": "training: to the first batch",
    "first_epoch_of_batches": "training: an epoch of batches, no model",
}


if __name__ == "__main__":
    main()
