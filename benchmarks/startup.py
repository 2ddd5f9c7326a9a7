"""What does a command cost before and after its work: help, an idle pipeline, a stage, the tracking of a run?

A clone of this repository runs the demo with few clips and short trainings, so that next to nothing but overhead is left. A
stage's overhead is its process, from its start to its end, less the work between the opening of its MLflow run and its end.
"""

import argparse
import functools
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from comparing import Row, Times, at_most, show
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
FEW_CLIPS = {"demo": {"clips": {"train": 36, "val": 24, "test": 24}}}
SMALL = {
    "train": {"epochs": 2, "warmup_epochs": 0},
    "benchmark": {"repeats": 2, "warmup": 1, "seconds": 0.05, "batch_sizes": [1], "variants": ["eager"], "report": "eager"},
    "fuse": {"n_resamples": 200, "n_trials": 20, "n_folds": 2},
}
STAGES: dict[str, list[str]] = {
    "extract": ["--manifest", "data/manifest.csv", "--out", "data/features"],
    "train": ["--model", "audio", "--data", "data", "--out", "models/audio"],
    "test": "--model audio --checkpoints models/audio --data data --scores results/scores/audio "
    "--metrics results/metrics/test/audio.json --plots results/plots/test/audio".split(),
    "benchmark": "--model audio --checkpoints models/audio --out results/metrics/benchmark/audio.json".split(),
    "fuse": "--scores results/scores --metrics results/metrics/fuse.json --fusion results/fuse "
    "--plots results/plots/fuse".split(),
}
LOGGED = ("log", "log_epoch", "log_metrics", "tag", "end")
TEN_MINUTES_S, EPOCHS = 600, 100


def environment(project: Path) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if key not in ("MLFLOW_TRACKING_URI", "DVC_ROOT")},
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(project / "src"),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def timed(command: list[str | Path], project: Path) -> tuple[float, str]:
    """Seconds of a command by the clock, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return time.perf_counter() - began, done.stdout


def rounds(command: list[str | Path], project: Path, n: int) -> Times:
    timed(command, project)
    return Times([timed(command, project)[0] for _ in range(n)])


def small_project(folder: Path) -> Path:
    """A clone through which the pipeline has run."""
    project = folder / "project"
    subprocess.run(["git", "clone", "--quiet", "--local", ROOT, project], check=True)
    yaml = YAML()
    for name, changes in (("recipes/demo_clips.yaml", FEW_CLIPS), ("params.yaml", SMALL)):
        document = yaml.load((project / name).read_text(encoding="utf-8"))
        for section, values in changes.items():
            document[section].update(values)
        with (project / name).open("w", encoding="utf-8") as file:
            yaml.dump(document, file)
    timed([BIN / "dvc", "repro"], project)
    return project


class Stopwatch:
    """When functions were called and when they returned; what they call of each other is not counted again."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[float, float]]] = {}
        self._inside = False

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside = True
            began = time.time()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.calls.setdefault(name, []).append((began, time.time()))

        return measured


def run_stage(name: str, report: Path) -> None:
    """The stage in this process, with a watch on what tracks it; the calls go into `report`."""
    from avrecog.tracking import run as tracking

    watch = Stopwatch()
    with ExitStack() as patches:
        for owner, function in ((tracking, "tracking_client"), (tracking, "begin_run"), *((tracking.Run, each) for each in LOGGED)):
            patches.enter_context(mock.patch.object(owner, function, watch.around(function, getattr(owner, function))))
        sys.argv = [name, *STAGES[name]]
        runpy.run_path(f"stages/{name}.py", run_name="__main__")
    report.write_text(json.dumps(watch.calls), encoding="utf-8")


def of_stage(name: str, project: Path, folder: Path) -> tuple[Row, dict[str, list[float]]]:
    """Its overhead, and the seconds of each call that tracked it, from the median of three runs."""
    runs = []
    for _ in range(3):
        began = time.time()
        whole, _ = timed([sys.executable, __file__, "--stage", name, "--report", folder / "calls.json"], project)
        calls = json.loads((folder / "calls.json").read_text(encoding="utf-8"))
        work_s = calls["log"][0][0] - calls["_begin"][0][1]
        begin_s, end_s = calls["_begin"][0][1] - began, began + whole - calls["log"][0][0]
        runs.append((whole - work_s, begin_s, end_s, {key: [b - a for a, b in each] for key, each in calls.items()}))
    overhead, begin_s, end_s, seconds = sorted(runs, key=lambda run: run[0])[1]
    said = f"{overhead:.2f} s: {begin_s:.2f} before its work, {end_s:.2f} after"
    return at_most(f"stage {name}: its process less its work", "", said, overhead, 6, " s"), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", help="run this stage here (this script calls itself)")
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    if args.stage:
        run_stage(args.stage, args.report)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        help_s = rounds([BIN / "avrecog", "--help"], ROOT, 9)
        bare_s = rounds([BIN / "python", "-c", "pass"], ROOT, 9)
        project = small_project(folder)
        idle_s = rounds([BIN / "dvc", "repro"], project, 5)
        version_s = rounds([BIN / "dvc", "--version"], project, 5)
        stages = {name: of_stage(name, project, folder) for name in STAGES}
    calls = stages["train"][1]
    epoch_s = statistics.median(calls["log_epoch"])
    once_s = sum(sum(each) for name, each in calls.items() if name != "log_epoch")
    tracked_s = once_s + EPOCHS * epoch_s
    rows = [
        at_most("`avrecog --help`; an empty Python", bare_s.said(), help_s.said(), help_s.median, 0.4, " s"),
        at_most("`dvc repro` with nothing to do; `dvc --version`", version_s.said(), idle_s.said(), idle_s.median, 2, " s"),
        *(row for row, _ in stages.values()),
        at_most(
            f"MLflow's share of a training of ten minutes and {EPOCHS} epochs, %",
            "",
            f"{once_s:.2f} s once and {1000 * epoch_s:.1f} ms an epoch",
            100 * tracked_s / TEN_MINUTES_S,
            1,
            " %",
        ),
    ]
    show("Start-up", rows, ["dvc", "mlflow", "torch"], ["The demo with 84 clips and trainings of 2 epochs; a stage's row is the median of three runs."])


if __name__ == "__main__":
    main()
