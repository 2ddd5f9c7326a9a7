"""One training in two processes, started by torchrun: gloo on the CPU."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import psutil
import pytest
import torch
from mlflow import MlflowClient

import projects
from avrecog.models.checkpoint import load_checkpoint
from waiting import HANGS_S, wait_until

# Sums over two halves round otherwise than over the whole; four epochs let the difference grow to this.
WEIGHT_TOLERANCE = 1e-5
LOSS_TOLERANCE = 1e-5

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="runs on the CPU; one GPU takes one process")

RECORDING = """
import os, runpy, sys
from avrecog.datasets.log_mel import AudioClips
from avrecog.training import train

make = AudioClips.training_batch
train._rehearse = lambda *_: None  # its batch is no part of the training

def recorded(clips, indices, draw, device):
    with open(f"seen.{os.environ['RANK']}", "a") as file:
        file.writelines(f"{clips.clip_ids[index]}\\n" for index in indices)
    return make(clips, indices, draw, device)

AudioClips.training_batch = recorded
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def torchrun(folder, *script, **options):
    """Start stage train of a project in two processes."""
    arguments = [argument.format(model="audio") for argument in projects.ARGUMENTS["train"]]
    environment = {**os.environ, "PYTHONPATH": str(projects.ROOT / "src"), "DVC_ROOT": str(folder)}
    environment |= {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    stage = str(projects.ROOT / "stages/train.py")
    return subprocess.Popen(
        [*command, *script, stage, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def train_runs(folder):
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("avrecog-stages").experiment_id
    return [run for run in client.search_runs([experiment]) if run.info.run_name == "train audio"]


def history(folder):
    with (folder / "models/audio/history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_two_processes_give_what_one_gives_see_each_clip_once_and_track_one_run(project, tmp_path):
    alone, weights = history(project), load_checkpoint(project / "models/audio/last.ckpt")["weights"]
    n_runs = len(train_runs(project))
    (tmp_path / "recording.py").write_text(RECORDING)
    process = torchrun(project, str(tmp_path / "recording.py"))
    output, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode == 0, output[-3000:]
    shared = load_checkpoint(project / "models/audio/last.ckpt")["weights"]
    for name, value in weights.items():
        np.testing.assert_allclose(shared[name], value, atol=WEIGHT_TOLERANCE, err_msg=name)
    for one, two in zip(alone, history(project), strict=True):
        for key in one:
            assert two[key] == pytest.approx(one[key], abs=LOSS_TOLERANCE), key
    seen = [(project / f"seen.{rank}").read_text().splitlines() for rank in (0, 1)]
    assert all(len(each) > 4 * 10 for each in seen)
    assert set(Counter([*seen[0], *seen[1]]).values()) == {4}  # once in each of 4 epochs
    assert len(train_runs(project)) == n_runs + 1
    (line,) = [line for line in output.splitlines() if line.startswith("{")]
    assert json.loads(line)["n_train"] == len(set(seen[0]) | set(seen[1]))


def long_training(project):
    """A training that is well under way, and its two processes in the order of their ranks."""
    projects.write_params(project, projects.SMALL, {"train": {"epochs": 5000}})
    shutil.rmtree(project / "models/audio")
    process = torchrun(project)
    wait_until(lambda: (project / "models/audio/history.csv").exists(), lambda: process.poll() is None)
    below = psutil.Process(process.pid).children(recursive=True)
    workers = [each for each in below if "stages/train.py" in " ".join(each.cmdline()) and "RANK" in each.environ()]
    return process, sorted(workers, key=lambda worker: int(worker.environ()["RANK"]))


def test_a_killed_process_ends_the_others_and_the_run_is_marked(project):
    process, workers = long_training(project)
    workers[1].kill()
    process.communicate(timeout=HANGS_S)
    assert process.returncode != 0
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    projects.run(project, "fuse")
    assert "RUNNING" not in {run.info.status for run in train_runs(project)}


def test_a_signal_to_one_process_stops_both_at_one_step_with_the_state_saved(project, caplog):
    process, workers = long_training(project)
    workers[1].send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=HANGS_S)
    assert process.returncode != 0
    assert "; saved" in output
    state = load_checkpoint(project / "models/audio/last.ckpt")["state"]
    assert state["ended"] is False
    assert len(state["history"]) < 5000
    (run,) = [run for run in train_runs(project) if run.info.status == "KILLED"]
    assert "stopped_by" not in run.data.tags
