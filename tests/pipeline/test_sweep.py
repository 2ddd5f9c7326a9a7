"""A sweep of twelve real trainings by two workers, one of which is killed in the middle."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import optuna
import psutil
import pytest
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import chaos
import projects
from avrecog.tracking.client import ensure_store
from waiting import HANGS_S

SWEEP = """
study: small
objective: audio.val_loss
n_trials: 12
prune: false
parameters:
  train.lr: {low: 0.003, high: 0.1, log: true}
  train.optimizer: {choices: [sgd, adamw]}
  train.epochs: {low: 3, high: 6}
"""
ENVIRONMENT = {**chaos.ENVIRONMENT, "PYTHONPATH": str(projects.ROOT / "src"), "MLFLOW_TRACKING_URI": ""}


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "avrecog.cli", "sweep", "sweep.yaml", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )


def load(folder):
    path = folder / "sweeps/journals/small.log"
    return optuna.load_study(study_name="small", storage=JournalStorage(JournalFileBackend(str(path))))


def below(pid, *words):
    """The processes below one whose command has these words."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if set(words) <= set(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.slow
def test_twelve_trials_are_complete_though_a_worker_is_killed(tmp_path):
    folder = tmp_path / "project"
    chaos.make_project(folder)
    change = {"pipeline": {"models": ["audio"]}, "data": {"annotation": str(folder / "clips")}}
    projects.write_params(folder, projects.SMALL, change)
    (folder / "sweep.yaml").write_text(SWEEP)
    ensure_store(folder)
    for command in (["dvc", "repro", "-q", "train@audio"], ["git", "commit", "-qam", "first"]):
        names = {f"GIT_{who}_{what}": "c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        subprocess.run(command, cwd=folder, env={**chaos.ENVIRONMENT, **names}, check=True)
    edited = (folder / "params.yaml").read_text() + "# not committed\n"
    (folder / "params.yaml").write_text(edited)
    first = start(folder, "--workers", "2")
    try:
        orphans = []
        while not orphans or len(load(folder).trials) < 4:
            time.sleep(0.5)
            assert first.poll() is None
            helpers = below(first.pid, "avrecog.cli")
            orphans = below(helpers[0].pid, "exp", "--temp") if helpers else []
        (helper,), (orphan,) = helpers, orphans
        os.kill(helper.pid, signal.SIGKILL)
        gone, _ = psutil.wait_procs([orphan], timeout=HANGS_S)
        assert gone, "the killed worker's dvc goes on"
        out, _ = first.communicate(timeout=HANGS_S)
    finally:
        first.terminate()
    assert first.returncode == 0
    assert "12 trials complete, 0 pruned, 1 failed or tried again" in out
    trials = load(folder).trials
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    (lost,) = [trial for trial in trials if trial.state.name != "COMPLETE"]
    assert len(complete) == 12
    assert any(trial.params == lost.params for trial in complete)
    assert len({trial.user_attrs["process"] for trial in trials}) == 2
    kept = subprocess.run(["git", "for-each-ref", "refs/exps"], cwd=folder, capture_output=True, text=True, check=True)
    assert all(f"/{trial.user_attrs['experiment']}\n" in kept.stdout for trial in complete)
    assert (folder / "params.yaml").read_text() == edited
    assert not [path for path in (folder / ".dvc/tmp/exps/standalone").iterdir() if path.name.startswith("tmp")]
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    stages = client.get_experiment_by_name("avrecog-stages").experiment_id
    names = {run.data.tags["stage"] for run in client.search_runs([stages], max_results=1000)}
    assert names == {"prepare", "extract", "train", "sweep"}  # never test, fuse or report
    (study,) = client.search_runs([stages], "tags.sweep = 'small'")
    points = client.get_metric_history(study.info.run_id, "trial_value")
    assert {point.step: point.value for point in points} == {trial.number: trial.value for trial in complete}
    before = (folder / "params.yaml").read_text()
    applied = start(folder, "--apply").communicate()[0]
    assert "+  lr: " in applied
    assert (folder / "params.yaml").read_text() != before
    assert "12 trials complete" in start(folder).communicate()[0]  # nothing is run again
    assert len(client.search_runs([stages], "tags.sweep = 'small'")) == 1
