"""Eight experiments through dvc's queue, two at a time, and one that fails."""

import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

import chaos
import projects
from chaos import dvc
from waiting import HANGS_S

RATES = (0.005, 0.01, 0.02, 0.04)
EPOCHS = (2, 3)


@pytest.mark.slow
def test_parallel_experiments_land_whole_in_one_store(tmp_path):
    folder = tmp_path / "project"
    chaos.make_project(folder)
    projects.write_params(folder, projects.SMALL, chaos.CHANGE, {"pipeline": {"models": ["audio"]}})
    dvc(folder, "repro")
    for command in (["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run(["git", "-c", "user.name=c", "-c", "user.email=c", *command], cwd=folder, check=True)
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    rows_of = client.get_experiment_by_name("avrecog").experiment_id
    stages_of = client.get_experiment_by_name("avrecog-stages").experiment_id
    n_before = len(client.search_runs([rows_of]))
    rates, epochs = ",".join(map(str, RATES)), ",".join(map(str, EPOCHS))
    dvc(folder, "exp", "run", "--queue", "-S", f"train.lr={rates}", "-S", f"train.epochs={epochs}")
    dvc(folder, "exp", "run", "--queue", "-S", "train.lr=1e9", "-S", "train.clip_grad_norm=null")
    status = run_queue(folder)
    assert status.count("Success") == 8, status
    assert status.count("Failed") == 1, status
    rows = client.search_runs([rows_of])[: len(client.search_runs([rows_of])) - n_before]
    assert len(rows) == 8
    tried = {(float(row.data.params["train.lr"]), int(row.data.params["train.epochs"])) for row in rows}
    assert tried == {(rate, n) for rate in RATES for n in EPOCHS}
    assert len({row.data.tags["dvc.exp_name"] for row in rows}) == 8
    for row in rows:
        n_epochs = int(row.data.params["train.epochs"])
        for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
            points = client.get_metric_history(row.info.run_id, name)
            assert [point.step for point in points] == list(range(1, n_epochs + 1)), name
        assert {"test.top1", "benchmark.videos_per_s"} <= row.data.metrics.keys()
    runs = client.search_runs([stages_of], max_results=1000)
    (failed,) = [run for run in runs if run.info.status == "FAILED"]
    assert failed.data.params["train.lr"] == "1000000000.0"
    assert "the training loss is" in failed.data.tags["error"]
    assert "the training loss is" in Path(failed.info.artifact_uri.removeprefix("file://"), "log.txt").read_text()
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}
    workers = folder / ".dvc/tmp/exps/celery"
    logs = [path.read_text(errors="replace") for path in workers.rglob("*") if path.is_file() and path.stat().st_size]
    assert not any("database is locked" in text for text in logs)


def run_queue(folder):
    """Work off the queue with two workers; its last status."""
    idle = 99
    for _ in range(HANGS_S // 2):
        status = dvc(folder, "queue", "status")
        if "Running" not in status and "Queued" not in status:
            return status
        idle = 0 if "Running" in status else idle + 1
        if idle > 10:  # workers stop early now and then: dvc's issues 10398, 10428, 10562
            dvc(folder, "queue", "start", "-j", "2")
            idle = 0
        time.sleep(2)
    raise AssertionError(status)
