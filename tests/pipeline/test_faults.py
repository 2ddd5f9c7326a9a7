"""A full disk, a store that is away, signals and kills: nothing is lost, nothing is left half done."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading

import psutil
import pytest
from mlflow import MlflowClient

import projects
from avrecog.features.store import Store
from avrecog.models.checkpoint import load_checkpoint
from avrecog.training import train as training
from clips import make_labelled_folder
from waiting import HANGS_S, wait_until


@contextlib.contextmanager
def largest_file(n_bytes):
    """As on a disk that fills up: no file may grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def stage_runs(folder, name):
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("avrecog-stages").experiment_id
    return [run for run in client.search_runs([experiment]) if run.info.run_name == name]


def fails(folder, capsys, *stage):
    with pytest.raises(SystemExit) as stop:
        projects.run(folder, *stage)
    told = capsys.readouterr().err
    assert stop.value.code == 1
    assert "Traceback" not in told
    return told


def test_extract_on_a_full_disk_says_so_and_goes_on_when_there_is_room(project, capsys, caplog):
    projects.write_params(project, projects.SMALL, {"video": {"height": 128, "width": 128}})
    with largest_file(8 * 2**20):
        told = fails(project, capsys, "extract")
    assert (
        "video/values.bin: can't be written (File too large); raise the limit (`ulimit -f`) and run the same command"
        in told
    )
    projects.run(project, "extract")
    store = Store(project / "data/features/video")
    assert len(store.clip_ids) == 48
    store.verify()


def test_train_on_a_full_disk_keeps_the_last_whole_checkpoint(project, capsys):
    model = {"width": 32}
    projects.write_params(project, projects.SMALL, {"models": {"audio": model}, "train": {"epochs": 2}})
    projects.run(project, "train", "audio")
    size = (project / "models/audio/best.ckpt").stat().st_size
    before = {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()}
    shutil.rmtree(project / "models/audio")
    with largest_file(size + 1000):  # a state is larger than the weights alone
        told = fails(project, capsys, "train", "audio")
    assert "models/audio/last.ckpt: can't be written (File too large)" in told
    projects.run(project, "train", "audio")
    assert {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()} == before


def test_pictures_that_cannot_be_drawn_cost_a_stage_nothing_else(project, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise ValueError("no font")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    shutil.rmtree(project / "results")
    for stage, model in (
        ("test", "audio"),
        ("test", "rgb"),
        ("benchmark", "audio"),
        ("benchmark", "rgb"),
        ("fuse", ""),
    ):
        projects.run(project, stage, model)
    projects.run(project, "report")
    assert "results/plots/test/audio/confusion.png: can't be drawn and is left out (ValueError: no font)" in caplog.text
    assert "entries could not be written to the tracking store" not in caplog.text
    assert not list(project.rglob("results/**/*.png"))
    assert (project / "results/ZOO.md").exists()


def test_a_tracking_store_that_cannot_be_opened_is_said_before_the_work_begins(project, capsys):
    (project / "mlruns/mlflow.db").write_bytes(b"no database, but long enough to be taken for one" * 99)
    told = fails(project, capsys, "train", "audio")
    assert "mlruns/mlflow.db: the tracking store can't be used" in told
    assert load_checkpoint(project / "models/audio/last.ckpt").get("state") is None  # the finished one is untouched


def test_a_tracking_store_that_goes_away_does_not_end_a_training(project, monkeypatch, caplog):
    log_batch, calls = MlflowClient.log_batch, iter(range(1000))

    def away_for_a_while(client, *arguments, **options):
        by_the_training = threading.current_thread() is threading.main_thread()  # not by what watches the machine
        if options.get("metrics") and by_the_training and next(calls) in (1, 2, 3):
            raise ConnectionError("the server is away")
        return log_batch(client, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", away_for_a_while)
    monkeypatch.setattr("avrecog.tracking.run.TRY_AGAIN_AFTER_S", 0)
    projects.run(project, "train", "audio")
    assert caplog.text.count("the tracking store can't be written now (the server is away); kept") == 3
    run = max(stage_runs(project, "train audio"), key=lambda run: run.info.start_time)
    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val_top1")] == [1, 2, 3, 4]
    assert run.info.status == "FINISHED"


def test_a_tracking_store_that_stays_away_is_told_and_the_model_is_kept(project, monkeypatch, caplog):
    def away(client, *arguments, **options):
        raise ConnectionError("the server is away")

    original = training.train_model
    shutil.rmtree(project / "models/audio")

    def then_away(*arguments):
        monkeypatch.setattr(MlflowClient, "log_batch", away)
        return original(*arguments)

    monkeypatch.setattr(training, "train_model", then_away)
    projects.run(project, "train", "audio")
    assert "could not be written to the tracking store" in caplog.text
    assert load_checkpoint(project / "models/audio/best.ckpt")["epoch"] >= 1


HELD = """
import runpy, sys, time
from pathlib import Path
from avrecog.extraction import pool
from avrecog.training import signals

results = pool._results

def held(group, future):
    yield from results(group, future)
    Path("held").touch()
    while True:
        time.sleep(0.05)

pool._results = held
signals.GRACE_S = 3600
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(folder, stage, model=""):
    """A stage in a process of its own; extract stores what its first job gave, then waits for ever.

    A training waits for the end of a step, however slow it is.
    """
    arguments = [argument.format(model=model) for argument in projects.ARGUMENTS[stage]]
    environment = {**os.environ, "PYTHONPATH": str(projects.ROOT / "src"), "DVC_ROOT": str(folder)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        [sys.executable, "-c", HELD, str(projects.ROOT / "stages" / f"{stage}.py"), *arguments],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def test_a_killed_training_is_marked_in_the_store_by_the_next_stage_and_leaves_no_lock(project):
    projects.write_params(project, projects.SMALL, {"train": {"epochs": 5000}})
    shutil.rmtree(project / "models/audio")
    process = start(project, "train", "audio")
    wait_until(lambda: (project / "models/audio/history.csv").exists(), lambda: process.poll() is None)
    process.kill()
    process.communicate()
    (killed,) = [run for run in stage_runs(project, "train audio") if run.info.status == "RUNNING"]
    projects.run(project, "fuse")
    (marked,) = [run for run in stage_runs(project, "train audio") if run.info.run_id == killed.info.run_id]
    assert marked.info.status == "KILLED"
    assert "its process has ended without a word" in marked.data.tags["error"]
    projects.write_params(project, projects.SMALL, {"train": {"epochs": 1, "warmup_epochs": 0}})
    projects.run(project, "train", "audio")


@pytest.fixture
def large_project(project):
    """A project whose clips are enough for two workers."""
    make_labelled_folder(project / "more", ["high", "low"], 40)
    projects.write_params(project, projects.SMALL, {"data": {"annotation": "more"}})
    projects.run(project, "prepare")
    return project


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_extract_with_its_workers(large_project, number, code):
    process = start(large_project, "extract")
    wait_until(lambda: (large_project / "held").exists(), lambda: process.poll() is None)
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, told = process.communicate(timeout=HANGS_S)
    assert process.returncode == code
    assert "the same command goes on from here" in told
    assert "Traceback" not in told
    assert not psutil.wait_procs(below, timeout=HANGS_S)[1]
    (stopped,) = [run for run in stage_runs(large_project, "extract") if run.info.status == "KILLED"]
    assert stopped.info.end_time


def test_workers_end_when_their_owner_is_killed(large_project):
    process = start(large_project, "extract")
    wait_until(lambda: (large_project / "held").exists(), lambda: process.poll() is None)
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(below, timeout=HANGS_S)[1]
    projects.run(large_project, "extract")
    assert len(Store(large_project / "data/features/video").clip_ids) == 80


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_training_with_its_state(project, number):
    projects.write_params(project, projects.SMALL, {"train": {"epochs": 5000}})
    shutil.rmtree(project / "models/audio")
    process = start(project, "train", "audio")
    wait_until(lambda: (project / "models/audio/history.csv").exists(), lambda: process.poll() is None)
    process.send_signal(number)
    _, told = process.communicate(timeout=HANGS_S)
    assert "saved" in told
    assert load_checkpoint(project / "models/audio/last.ckpt")["state"]["history"]
