import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from mlflow import MlflowClient

import projects
from avrecog import provenance, tracking
from avrecog.config import Params
from avrecog.entry import entry_point
from avrecog.errors import ConfigError
from avrecog.outcome import Outcome
from avrecog.tracking import ensure_store, tracked
from waiting import HANGS_S


@pytest.fixture
def root(tmp_path, tracking_template):
    shutil.copytree(tracking_template, tmp_path / "mlruns")
    return tmp_path


def only_run(root):
    client = MlflowClient(f"sqlite:///{root}/mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("avrecog-stages").experiment_id])
    return run


def track(root, action):
    with projects.inside(root), tracked("fuse", Params({"fuse": "fuse"}, {"fuse": {"n_trials": 3}})) as run:
        action(run)


def test_none_is_left_out_and_facts_become_tags(root):
    outcome = Outcome("done", {"a": 1.0, "gpu": None}, curves=[(1, {"b": 2.0}), (2, {"b": 3.0})], facts={"seed": "7"})
    track(root, lambda run: run.log(outcome))
    run = only_run(root)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["a"] == 1.0
    assert "gpu" not in run.data.metrics
    assert run.data.metrics["b"] == 3.0
    assert run.data.tags["seed"] == "7"
    assert run.data.params == {"fuse.n_trials": "3"}


@pytest.mark.parametrize(("error", "status"), [(ConfigError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_run_that_did_not_finish_is_marked_so(root, error, status):
    def fail(run):
        raise error

    with pytest.raises(type(error)):
        track(root, fail)
    assert only_run(root).info.status == status


def test_the_experiment_name_of_dvc_becomes_a_tag(root):
    with mock.patch.dict(os.environ, {"DVC_EXP_NAME": "tried-hard"}):
        track(root, lambda run: run.log(Outcome("done", {})))
    assert only_run(root).data.tags["dvc.exp_name"] == "tried-hard"


def test_a_given_tracking_address_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert ensure_store(tmp_path) == "http://elsewhere"
    assert not (tmp_path / "mlruns").exists()


def test_the_store_is_in_write_ahead_mode(tracking_template):
    assert (tracking_template / "mlflow.db").read_bytes()[18:20] == b"\x02\x02"


def log_many(root, number):
    def log(run):
        for step in range(50):
            run.log_epoch(step, {"loss": step / 2})
        run.log(Outcome("done", {"number": number}))

    logging.disable()
    track(root, log)


def test_eight_processes_that_begin_at_once_without_a_store_lose_no_value(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=log_many, args=(tmp_path, number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(HANGS_S)
    assert [worker.exitcode for worker in workers] == [0] * 8
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("avrecog-stages").experiment_id])
    assert sorted(run.data.metrics["number"] for run in runs) == list(range(8))
    for run in runs:
        points = client.get_metric_history(run.info.run_id, "loss")
        assert [(point.step, point.value) for point in points] == [(step, step / 2) for step in range(50)]
    assert (tmp_path / "mlruns/mlflow.db").read_bytes()[18:20] == b"\x02\x02"
    assert not list((tmp_path / "mlruns").glob(".making-*"))


def test_a_store_whose_making_was_killed_is_made_anew(tmp_path):
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns/.making-1.db").write_bytes(b"half")
    ensure_store(tmp_path)
    assert [path.name for path in (tmp_path / "mlruns").glob("*.db")] == ["mlflow.db"]
    assert not list((tmp_path / "mlruns").glob(".making-*"))


def test_a_store_that_mlflow_ui_made_is_put_in_write_ahead_mode(tmp_path):
    (tmp_path / "mlruns").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlruns/mlflow.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    ensure_store(tmp_path)
    assert (tmp_path / "mlruns/mlflow.db").read_bytes()[18:20] == b"\x02\x02"


def test_a_run_keeps_its_log_and_the_reason_it_failed_for(root):
    def fail(run):
        logging.getLogger("avrecog.anything").warning("half-way")
        raise ConfigError("no such thing")

    with pytest.raises(ConfigError):
        track(root, fail)
    run = only_run(root)
    text = Path(run.info.artifact_uri.removeprefix("file://"), "log.txt").read_text()
    assert "WARNING half-way" in text
    assert text.endswith("error: no such thing\n")


def test_a_bug_leaves_its_traceback_in_the_log_of_the_run(root):
    with pytest.raises(ZeroDivisionError):
        track(root, lambda run: 1 / 0)
    text = Path(only_run(root).info.artifact_uri.removeprefix("file://"), "log.txt").read_text()
    assert "ZeroDivisionError" in text
    assert "Traceback" in text


def test_half_a_row_of_a_killed_report_is_deleted_by_the_next_stage(root):
    with projects.inside(root):
        track(root, lambda run: run.log(Outcome("done", {})))
        client = tracking.open_store()
        process = f"{provenance._machine()} {provenance._boot()} 999999999 1"
        run_id = tracking._begin(client, "avrecog", "audio", {"lr": 1}, {provenance.PROCESS_TAG: process})
    track(root, lambda run: run.log(Outcome("done", {})))
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"


def test_runs_of_another_machine_or_of_a_living_process_are_left_alone(root):
    with projects.inside(root):
        client = tracking.open_store()
        for process in ("elsewhere/1 - 999999999 1", provenance.this_process(), "nonsense"):
            tracking._begin(client, "avrecog-stages", process, {}, {provenance.PROCESS_TAG: process})
        tracking.open_store()
    runs = client.search_runs([client.get_experiment_by_name("avrecog-stages").experiment_id])
    assert [run.info.status for run in runs] == ["RUNNING"] * 3


def test_a_run_from_before_the_machine_was_started_anew_is_marked(root):
    with projects.inside(root):
        client = tracking.open_store()
        process = f"{provenance._machine()} another-boot {os.getpid()} 1"
        run_id = tracking._begin(client, "avrecog-stages", "train", {}, {provenance.PROCESS_TAG: process})
        tracking.open_store()
    assert client.get_run(run_id).info.status == "KILLED"


def test_files_that_cannot_be_stored_hold_up_nothing_else(root, monkeypatch, caplog):
    def away(*_):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(MlflowClient, "log_artifact", away)
    (root / "a.png").write_bytes(b"")
    track(root, lambda run: run.log(Outcome("done", {"a": 1.0}, files=[root / "a.png"])))
    run = only_run(root)
    assert run.info.status == "FINISHED"
    assert {"a", "wall_s"} <= run.data.metrics.keys()
    assert "2 entries could not be written" in caplog.text  # the picture, and the log that tells of it


def test_a_row_that_cannot_be_written_whole_is_not_there(root):
    def write_two():
        with tracking.comparable_rows() as log_row:
            log_row("rgb", {"lr": 1}, {"model": "rgb"}, {"test.top1": 1.0}, (), [])
            log_row("audio", {"lr": 1}, {"model": "audio"}, {"test.top1": 1.0}, (), [root / "gone.png"])

    with projects.inside(root), pytest.raises(FileNotFoundError):
        write_two()
    client = MlflowClient(f"sqlite:///{root}/mlruns/mlflow.db")
    assert not client.search_runs([client.get_experiment_by_name("avrecog").experiment_id])


def test_an_error_of_ours_is_a_message_and_exit_code_1(capsys):
    @entry_point
    def main():
        raise ConfigError("params.yaml: 1 problem")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert capsys.readouterr().err.endswith("error: params.yaml: 1 problem\n")


def test_a_bug_keeps_its_traceback():
    @entry_point
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_stage_with_a_line_and_its_code(capsys, number, code):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C

    @entry_point
    def main():
        os.kill(os.getpid(), number)
        sys.exit("not reached")

    try:
        with pytest.raises(SystemExit) as stop:
            main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == code
    assert "the same command goes on from here" in capsys.readouterr().err


COUNT = "SELECT count(*) FROM runs"


def test_opening_the_store_again_leaves_open_connections_their_locks(root):
    """Else the next process to close the database removes the log that they read: "disk image is malformed"."""
    with projects.inside(root):
        client = tracking.open_store()
        client.search_experiments()
        tracking.open_store()
        other = (
            f"import sqlite3; c = sqlite3.connect({str(root / 'mlruns/mlflow.db')!r}); c.execute('{COUNT}'); c.close()"
        )
        subprocess.run([sys.executable, "-c", other], check=True)
        assert (root / "mlruns/mlflow.db-wal").exists()


def test_the_first_run_of_a_store_keeps_its_files_in_the_project(root):
    with projects.inside(root):
        client = tracking.open_store()
        tracking._begin(client, "avrecog-stages", "first", {}, {})
    assert "MLFLOW_TRACKING_URI" not in os.environ
    location = client.get_experiment_by_name("avrecog-stages").artifact_location
    assert location == (root / "mlruns/avrecog-stages").as_uri()
