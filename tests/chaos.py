"""`make chaos`: kill -9 at random moments of `dvc repro`, the same command again, and the results bit for bit.

A small project (48 synthetic clips, two models) is run once without disturbance. Then, time after time, a fresh copy is
run and its whole process group killed: seeded, at a random part of one stage after the other. The same command must
finish the work with the unbroken run's score arrays and accuracies. Then dvc alone is killed: its child lives on, so a
second training must be refused with its pid, and work once it has ended.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil

import projects
from clips import make_labelled_folder
from waiting import HANGS_S

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}
CHANGE: dict[str, Any] = {
    "train": {"epochs": 12},
    "benchmark": {"variants": ["folded"]},
    "fuse": {"n_trials": 60},
}


def make_project(folder: Path) -> None:
    """A repository with the project's code and the small project's clips and parameters."""
    folder.mkdir()
    shutil.copytree(projects.ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("stages", "recipes", "selfsupervised", ".dvc"):
        ignored = shutil.ignore_patterns("cache", "tmp", "__pycache__")
        shutil.copytree(projects.ROOT / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", "dvc.lock", ".gitignore", ".dvcignore"):
        shutil.copy(projects.ROOT / name, folder / name)
    (folder / "mlruns").mkdir()
    make_labelled_folder(folder / "clips", ["high", "low", "middle"], 16)
    projects.write_params(folder, projects.SMALL, CHANGE)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "begin"]):
        subprocess.run(["git", "-c", "user.name=c", "-c", "user.email=c", *command], cwd=folder, check=True)


def dvc(folder: Path, *arguments: str) -> str:
    """Run a dvc command that must succeed; what it printed."""
    done = subprocess.run(
        ["dvc", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    assert done.returncode == 0, f"dvc {' '.join(arguments)}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


class Repro:
    """A `dvc repro` in its own process group, followed line by line."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "repro.log"
        self.process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def stages(self) -> list[str]:
        """The stages that were begun."""
        return re.findall(r"Running stage '([^']+)'", self.log.read_text(errors="replace"))

    def wait_for(self, stage: str) -> bool:
        """Wait until a stage begins; False if dvc ends before."""
        while stage not in self.stages():
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def kill_group(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def durations(folder: Path) -> dict[str, float]:
    """Run undisturbed; seconds of each stage."""
    repro, began = Repro(folder), {}
    while repro.process.poll() is None:
        for stage in repro.stages():
            began.setdefault(stage, time.monotonic())
        time.sleep(0.02)
    if repro.process.returncode != 0:
        sys.exit(f"the undisturbed run failed:\n{repro.log.read_text(errors='replace')[-3000:]}")
    ends = [*list(began.values())[1:], time.monotonic()]
    return {stage: end - start for (stage, start), end in zip(began.items(), ends, strict=True)}


def results(folder: Path) -> dict[str, Any]:
    """Everything that must be equal: score arrays and accuracies."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("results/scores/*/*.npz")):
        with np.load(path) as entries:
            found |= {f"{path.parent.name}/{path.stem}/{key}": entries[key].tobytes() for key in entries}
    for model in ("audio", "rgb"):
        metrics = json.loads((folder / f"results/metrics/test/{model}.json").read_text())
        found |= {f"{model}/{key}": metrics[key] for key in ("top1", "top5", "mean_class_accuracy")}
    fusion = json.loads((folder / "results/metrics/fuse.json").read_text())
    found["fusion"] = {key: fusion[key] for key in ("coefficients", "val", "test", "gain")}
    return found


def finish(folder: Path) -> tuple[int, str]:
    """The same command until it ends well; how often, and what was mended before."""
    mended = ""
    for attempt in range(1, 4):
        lock = folder / "dvc.lock"
        parsed = subprocess.run(["dvc", "status", "-q"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
        if "validation failed" in parsed.stderr or not lock.read_text().strip():
            subprocess.run(["git", "checkout", "-q", "dvc.lock"], cwd=folder, check=True)
            mended = "git checkout dvc.lock"
        time.sleep(1.5)  # the dead processes' entries in dvc's lock
        repro = Repro(folder)
        if repro.process.wait() == 0:
            return attempt, mended
    sys.exit(f"{folder}: does not finish:\n{repro.log.read_text(errors='replace')[-3000:]}")


def kill_group_trials(work: Path, n_trials: int, seed: int) -> int:
    """The table of kills; how many ended on other numbers."""
    make_project(work / "whole")
    spans = durations(work / "whole")
    expected = results(work / "whole")
    print(f"undisturbed: {sum(spans.values()):.0f} s; " + ", ".join(f"{k} {v:.1f}" for k, v in spans.items()))
    print("| kill | stage | after (s of s) | finished with | mended | equal |\n| --- | --- | --- | --- | --- | --- |")
    generator, n_wrong = random.Random(seed), 0
    for number in range(n_trials):
        stage = list(spans)[number % len(spans)]
        after_s = generator.uniform(0, 1) * spans[stage]
        folder = work / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        make_project(folder)
        repro = Repro(folder)
        begun = repro.wait_for(stage)
        time.sleep(after_s)
        repro.kill_group()
        n_attempts, mended = finish(folder)
        equal = begun and results(folder) == expected
        n_wrong += not equal
        cells = [number + 1, stage, f"{after_s:.1f} of {spans[stage]:.1f}", f"{n_attempts} more", mended or "-"]
        print("| " + " | ".join(map(str, [*cells, "yes" if equal else "NO"])) + " |", flush=True)
    print(f"{n_trials - n_wrong} of {n_trials} end on the undisturbed run's scores and accuracies, bit for bit")
    return n_wrong


def kill_dvc_alone(work: Path) -> int:
    """Kill dvc while a training runs; whether the second training is refused, and works later."""
    folder = work / "orphan"
    make_project(folder)
    change = {"train": {"epochs": 400}, "pipeline": {"models": ["audio"]}}
    projects.write_params(folder, projects.SMALL, CHANGE, change)
    first = Repro(folder)
    first.wait_for("train@audio")
    while not (folder / "models/audio/history.csv").exists():
        time.sleep(0.05)
    child = next(
        p for p in psutil.Process(first.process.pid).children(recursive=True) if "stages/train.py" in p.cmdline()
    )
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    child.suspend()  # so that it is still there when the second one has ended
    time.sleep(1.5)
    second = Repro(folder)
    second.process.wait()
    child.resume()
    said = re.search(r"error: .*", second.log.read_text(errors="replace"))
    refused = second.process.returncode != 0 and said is not None and f"process {child.pid} is writing" in said.group(0)
    print(f"dvc alone killed: the second training is refused: {refused}\n  {said.group(0) if said else ''}")
    still_there = child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    print(f"  the first one goes on meanwhile: {still_there}")
    psutil.wait_procs([child], timeout=HANGS_S)
    third = Repro(folder)
    third.process.wait()
    print(f"  after it has ended, `dvc repro` finishes: {third.process.returncode == 0}")
    return int(not (refused and still_there and third.process.returncode == 0))


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="chaos-"))
    n_wrong = kill_group_trials(work, args.kills, args.seed) + kill_dvc_alone(work)
    shutil.rmtree(work)
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
