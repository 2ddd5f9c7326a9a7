import logging
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from unittest import mock

import pytest
from mlflow import MlflowClient

import projects
from avrecog.config import Params
from avrecog.errors import ConfigError
from avrecog.runtime.entry_point import entry_point
from avrecog.tracking.outcome import Outcome
from avrecog.tracking.rows import ComparableRow, comparable_rows
from avrecog.tracking.run import tracked
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
        with comparable_rows() as log_row:
            log_row(ComparableRow("rgb", {"lr": 1}, {"model": "rgb"}, {"test.top1": 1.0}))
            gone = [root / "gone.png"]
            log_row(ComparableRow("audio", {"lr": 1}, {"model": "audio"}, {"test.top1": 1.0}, files=gone))

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
