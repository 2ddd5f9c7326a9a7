import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from unittest import mock

import optuna
import pytest
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import projects
from avrecog import cli
from avrecog.errors import ConfigError, TrainingError
from avrecog.experiments.sweep import loop
from avrecog.experiments.sweep.settings import ParameterRange, Sweep, SweepConfig
from avrecog.experiments.sweep.study import Standing, SweepStudy

COMMIT = ["-c", "user.name=c", "-c", "user.email=c", "commit", "-q", "--allow-empty", "-m", "x"]


def sweep(fixed=None, **changes):
    given = {"train.lr": ParameterRange(low=0.01, high=1, log=True), "train.epochs": ParameterRange(low=2, high=9)}
    values = {"study": "lr", "objective": "audio.val_top1", "n_trials": 5, "parameters": given, "prune": False}
    return Sweep(SweepConfig(**{**values, **changes}), fixed or {"train.momentum": 0.9}, [])


class FakeTrial:
    """Validates at once; its value is given."""

    def __init__(self, value=0.5, curve=()):
        self._value, self._curve, self.stopped, self._looks = value, list(curve), 0, len(curve)

    def ended(self):
        self._looks -= 1
        return self._looks < 0

    def curve(self):
        return self._curve[: len(self._curve) - self._looks]

    def value(self):
        if isinstance(self._value, Exception):
            raise self._value
        return self._value

    def stop(self):
        self.stopped += 1


def states(study):
    return [record.state for record in study.records()]


def work(study, make):
    loop.work(study, make, poll_s=0)


def test_as_many_trials_end_as_asked_for_each_with_values_of_its_ranges(tmp_path):
    study = SweepStudy(sweep(), tmp_path)
    work(study, lambda claim: FakeTrial(claim.values["train.lr"]))
    assert states(study) == ["COMPLETE"] * 5
    for record in study.records():
        assert 0.01 <= record.values["train.lr"] <= 1
        assert record.values["train.epochs"] in range(2, 10)
    assert study.best().value == max(record.value for record in study.records())
    assert study.claim() is Standing.DONE


def test_the_lowest_loss_is_the_best(tmp_path):
    study = SweepStudy(sweep(objective="audio.val_loss"), tmp_path)
    work(study, lambda claim: FakeTrial(claim.number + 1.0))
    assert study.best().number == 0


def test_a_sweep_that_asks_for_more_goes_on(tmp_path):
    work(SweepStudy(sweep(n_trials=2), tmp_path), lambda claim: FakeTrial())
    study = SweepStudy(sweep(n_trials=4), tmp_path)
    work(study, lambda claim: FakeTrial())
    assert states(study) == ["COMPLETE"] * 4
    assert len({record.values["train.lr"] for record in study.records()}) == 4


def test_a_failed_trial_is_replaced_and_says_why(tmp_path):
    study = SweepStudy(sweep(n_trials=3), tmp_path)
    work(study, lambda claim: FakeTrial(TrainingError("the loss is nan") if claim.number == 1 else 0.5))
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.records()[1].error == "the loss is nan"


def test_three_failures_in_a_row_end_the_sweep(tmp_path):
    study = SweepStudy(sweep(), tmp_path)
    with pytest.raises(TrainingError, match="3 trials failed one after the other, the last one: no clips"):
        work(study, lambda claim: FakeTrial(TrainingError("no clips")))
    assert states(study) == ["FAIL"] * 3
    work(study, lambda claim: FakeTrial())
    assert states(study)[3:] == ["COMPLETE"] * 5


@pytest.mark.parametrize("prune", [True, False])
def test_a_trial_below_the_median_is_stopped_and_counts(tmp_path, prune):
    study = SweepStudy(sweep(n_trials=7, prune=prune), tmp_path)
    trials = []

    def start(claim):
        good = claim.number < 6
        trials.append(FakeTrial(0.9 if good else 0.1, [(epoch, 0.9 if good else 0.1) for epoch in (1, 2, 3)]))
        return trials[-1]

    work(study, start)
    assert states(study) == ["COMPLETE"] * 6 + ["PRUNED" if prune else "COMPLETE"]
    assert study.best().number == 0
    assert all(trial.stopped for trial in trials)
    told = optuna.load_study(study_name="lr", storage=JournalStorage(JournalFileBackend(str(study.path)))).trials[6]
    assert told.intermediate_values == ({1: 0.1} if prune else {1: 0.1, 2: 0.1, 3: 0.1})


def test_a_stopped_worker_gives_its_values_back(tmp_path):
    study = SweepStudy(sweep(n_trials=2), tmp_path)
    trial = FakeTrial(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), mock.patch.object(trial, "value", side_effect=KeyboardInterrupt):
        work(study, lambda claim: trial)
    assert trial.stopped
    (stopped,) = [record for record in study.records() if record.state == "FAIL"]
    again = SweepStudy(sweep(n_trials=2), tmp_path)
    work(again, lambda claim: FakeTrial())
    complete = [record for record in again.records() if record.state == "COMPLETE"]
    assert len(complete) == 2
    assert complete[0].values == stopped.values


DIE = """
import os, signal, sys
from pathlib import Path
from avrecog.experiments.sweep.study import SweepStudy
sys.path.insert(0, {tests!r})
import importlib.util
spec = importlib.util.spec_from_file_location("fakes", {here!r})
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)
SweepStudy(fakes.sweep(n_trials=3), Path({folder!r})).claim()
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_worker(folder):
    program = DIE.format(tests=str(projects.ROOT / "tests"), here=__file__, folder=str(folder))
    environment = {**os.environ, "PYTHONPATH": str(projects.ROOT / "src")}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_the_values_of_a_killed_worker_are_tried_again(tmp_path):
    killed_worker(tmp_path)
    study = SweepStudy(sweep(n_trials=3), tmp_path)
    with study.path.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')  # the kill came in the middle of a line
    (lost,) = study.records()
    assert lost.state == "RUNNING"
    work(study, lambda claim: FakeTrial())
    records = study.records()
    assert [record.state for record in records] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert records[1].values == lost.values
    assert records[0].error == "its worker was killed; tried again"


def test_a_worker_waits_while_others_run_the_last_trials_and_takes_over_what_they_leave(tmp_path):
    other, own = SweepStudy(sweep(n_trials=2), tmp_path), SweepStudy(sweep(n_trials=2), tmp_path)
    claims = [other.claim(), other.claim()]
    assert own.claim() is Standing.WAIT
    other.complete(claims[0], 0.5)
    assert own.claim() is Standing.WAIT
    other.failed(claims[1], "no clips")
    work(own, lambda claim: FakeTrial())
    assert states(own) == ["COMPLETE", "FAIL", "COMPLETE"]


def test_workers_at_once_start_no_trial_too_many(tmp_path):
    started = []

    def run():
        study = SweepStudy(sweep(n_trials=8), tmp_path)
        loop.work(study, lambda claim: (started.append(claim.experiment), FakeTrial(curve=[(1, 0.5)]))[1], 0.01)

    workers = [threading.Thread(target=run) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(started) == len(set(started)) == 8


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (sweep(parameters={"train.lr": ParameterRange(low=0.01, high=2)}), "parameters.train.lr"),
        (sweep(objective="audio.val_loss"), 'objective "audio.val_top1", now "audio.val_loss"'),
        (sweep(fixed={"train.momentum": 0.8}), "train.momentum 0.9, now 0.8"),
    ],
)
def test_a_study_that_was_begun_with_something_else_is_refused(tmp_path, changed, said):
    SweepStudy(sweep(), tmp_path)
    with pytest.raises(ConfigError, match="or rename the study") as refused:
        SweepStudy(changed, tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize("content", [b"nonsense\n{}\n", b'{"op_code": 0}\n{}\n', b"[]\n[]\n"])
def test_a_journal_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "lr.log").write_bytes(content)
    with pytest.raises(ConfigError, match="lr.log: not a journal of Optuna"):
        SweepStudy(sweep(), tmp_path)


def avrecog(folder, *arguments):
    with projects.inside(folder), mock.patch.object(sys, "argv", ["avrecog", "sweep", *map(str, arguments)]):
        cli.main()


@pytest.fixture
def workshop(tmp_path, tracking_template, monkeypatch):
    """A repository with the demo's params.yaml, a sweep, and trials that end at once, the best at the highest rate."""
    shutil.copytree(tracking_template, tmp_path / "mlruns")
    shutil.copy(projects.ROOT / "params.yaml", tmp_path)
    shutil.copy(projects.ROOT / "sweeps/lr.yaml", tmp_path / "lr.yaml")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", *COMMIT], cwd=tmp_path, check=True)
    monkeypatch.setattr(loop, "DvcTrial", lambda name, values, *_: FakeTrial(values["train.lr"]))
    return tmp_path


def test_a_sweep_has_one_run_in_mlflow_and_its_best_values_can_be_applied(workshop, capsys):
    avrecog(workshop, "lr.yaml")
    out = capsys.readouterr().out
    assert "study lr: 12 trials complete, 0 pruned, 0 failed" in out
    assert out.endswith("avrecog sweep lr.yaml --apply\n")
    avrecog(workshop, "lr.yaml")  # gone on with: nothing to do
    client = MlflowClient(f"sqlite:///{workshop}/mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("avrecog-stages").experiment_id])
    points = client.get_metric_history(run.info.run_id, "trial_value")
    assert [point.step for point in points] == list(range(12))
    best = max(point.value for point in points)
    assert float(run.data.params["best.train.lr"]) == best == run.data.metrics["best_value"]
    assert run.data.tags["sweep"] == "lr"
    (table,) = [item.path for item in client.list_artifacts(run.info.run_id)]
    rows = json.loads((workshop / "sweeps/journals" / table).read_text())
    assert [row["value"] for row in rows] == [point.value for point in points]
    before = (workshop / "params.yaml").read_text().splitlines()
    capsys.readouterr()
    avrecog(workshop, "lr.yaml", "--apply")
    out = capsys.readouterr().out
    assert f"+  lr: {best}" in out
    after = (workshop / "params.yaml").read_text().splitlines()
    values = projects.YAML(typ="safe").load((workshop / "params.yaml").read_text())
    assert values["train"]["lr"] == best
    changed = [line.partition(":")[0].strip() for line in after if line not in before]
    assert set(changed) <= {"lr", "weight_decay", "depth", "epochs"}
    assert next(line for line in after if line.startswith("  lr: ")).endswith(
        "# at base_batch_size; scaled linearly to batch_size"
    )
    avrecog(workshop, "lr.yaml", "--apply")
    assert "has the values of trial" in capsys.readouterr().out


def test_an_objective_of_the_test_split_ends_with_exit_code_2(workshop, capsys):
    text = (workshop / "lr.yaml").read_text().replace("audio.val_top1", "fusion.test.top1")
    (workshop / "lr.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        avrecog(workshop, "lr.yaml")
    assert stop.value.code == 2
    assert "fusion.test.top1 is a number of the test split" in capsys.readouterr().err
    assert not list((workshop / "sweeps/journals").glob("*.log"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr.yaml", "--apply"], "there is no such study; run it first: avrecog sweep lr.yaml"),
        (["lr.yaml", "--workers", 0], "--workers: expected 1 at least, got 0"),
        (["gone.yaml"], "gone.yaml: can't be read"),
    ],
)
def test_what_cannot_be_done_is_said(workshop, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        avrecog(workshop, *arguments)
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_a_params_yaml_that_changes_meanwhile_ends_the_sweep(workshop, monkeypatch, capsys):
    def start(name, values, objective, folder, check):
        text = (workshop / "params.yaml").read_text()
        (workshop / "params.yaml").write_text(text.replace("momentum: 0.9", "momentum: 0.8"))
        check()
        return FakeTrial()

    monkeypatch.setattr(loop, "DvcTrial", start)
    with pytest.raises(SystemExit):
        avrecog(workshop, "lr.yaml")
    assert "params.yaml has changed since the sweep began" in capsys.readouterr().err
