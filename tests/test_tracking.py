import logging
import multiprocessing
import os
import shutil
import signal
import sys
from unittest import mock

import pytest
from mlflow import MlflowClient

import projects
from avrecog.config import Params
from avrecog.entry import entry_point
from avrecog.errors import ConfigError
from avrecog.outcome import Outcome
from avrecog.tracking import ensure_store, tracked


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


def log_one(root, number):
    logging.disable()
    track(root, lambda run: run.log(Outcome("done", {"number": number})))


def test_processes_that_log_at_once_lose_no_value(root):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=log_one, args=(root, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    client = MlflowClient(f"sqlite:///{root}/mlruns/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("avrecog-stages").experiment_id])
    assert sorted(run.data.metrics["number"] for run in runs) == [0, 1, 2]


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
