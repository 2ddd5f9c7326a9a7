import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import projects
from avrecog.errors import ConfigError, TrainingError
from avrecog.experiments.sweep import trial
from avrecog.experiments.sweep.trial import best_value, check_repository, hydra_value

COMMIT = ["-c", "user.name=c", "-c", "user.email=c", "commit", "-q", "--allow-empty", "-m", "x"]


@pytest.mark.parametrize(
    "value",
    [
        1,
        0.5,
        1e-05,
        1e22,
        -3,
        True,
        False,
        None,
        "adamw",
        "1e-05",
        "null",
        "a,b",
        "[1]",
        "it's",
        "\\",
        "a\\'b",
        "",
        "{}",
    ],
)
def test_a_value_comes_through_hydras_grammar_as_it_is(value):
    (override,) = OverridesParser.create().parse_overrides([f"train.lr={hydra_value(value)}"])
    assert not override.is_sweep_override()
    assert override.value() == value
    assert type(override.value()) is type(value)


def test_the_value_is_that_of_the_epoch_that_is_kept():
    history = [
        {"epoch": 1, "val_top1": 0.5, "val_loss": 0.7},
        {"epoch": 2, "val_top1": 0.75, "val_loss": 0.9},
        {"epoch": 3, "val_top1": 0.75, "val_loss": 0.8},
        {"epoch": 4},
    ]
    assert best_value(history, "val_top1") == 0.75
    assert best_value(history, "val_loss") == 0.8
    with pytest.raises(TrainingError, match="no epoch was validated"):
        best_value(history[3:], "val_loss")


def test_the_reason_of_a_failure_is_the_stages_own_line():
    said = "train:  10%\rtrain: 20%\nerror: the training loss is nan\nERROR: failed to reproduce 'train@audio'\n"
    assert trial._reason(said) == "the training loss is nan"
    assert trial._reason("a\nERROR: no such stage\n") == "no such stage"


def test_without_a_commit_there_is_no_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with projects.inside(tmp_path):
        with pytest.raises(ConfigError, match="expected a git repository with a commit"):
            check_repository()
        subprocess.run(["git", "init", "-q"], check=True)
        with pytest.raises(ConfigError, match="expected a git repository with a commit"):
            check_repository()
        subprocess.run(["git", *COMMIT], check=True)
        check_repository()


FAKE_DVC = """#!/usr/bin/env python3
import os, pathlib, signal, subprocess, sys, time
own = sys.argv[sys.argv.index("--name") + 1]
here = pathlib.Path(os.environ["FAKE"])
attempt = len(list(here.glob("attempt*")))
(here / f"attempt{attempt}").write_text(" ".join(sys.argv[1:]))
match os.environ["PLAN"].split()[attempt]:
    case "lock":
        sys.exit("ERROR: Unable to acquire lock")
    case "nothing":
        sys.exit(0)
    case "other":
        print("Reproducing experiment 'of-another'", flush=True)
        time.sleep(3600)
    case "fails":
        print(f"Reproducing experiment '{own}'\\nerror: no clips", flush=True)
        sys.exit(1)
    case "works":
        print(f"Reproducing experiment '{own}'", flush=True)
        subprocess.run(["git", "update-ref", f"refs/exps/00/1/{own}", "HEAD"], check=True)
    case "takes":
        print(f"Reproducing experiment '{own}'", flush=True)
        subprocess.run(["git", "update-ref", f"refs/exps/00/1/{own}", "HEAD"], check=True)
        print("Reproducing experiment 'of-another'", flush=True)
        time.sleep(3600)
    case "sleeps":
        print(f"Reproducing experiment '{own}'", flush=True)
        time.sleep(3600)
"""


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """What begins a trial with a dvc that does one thing after the other, at each attempt."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dvc").write_text(FAKE_DVC)
    (tmp_path / "bin/dvc").chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setattr(trial, "POLL_S", 0.05)
    monkeypatch.setattr(trial.time, "sleep", lambda _, sleep=trial.time.sleep: sleep(0.05))
    monkeypatch.setenv("FAKE", str(tmp_path))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *COMMIT], check=True)
    begun = []
    with projects.inside(tmp_path):

        def begin_with(plan):
            monkeypatch.setenv("PLAN", plan)
            begun.append(trial.DvcTrial("s-1", {"train.lr": 0.1}, "audio.val_top1", tmp_path / "logs", lambda: None))
            return begun[0]

        yield begin_with
        for each in begun:
            each.stop()


def wait(running):
    while not running.ended():
        trial.time.sleep(0.05)


@pytest.mark.parametrize("plan", ["works", "lock works", "nothing other works", "takes"])
def test_a_trial_is_begun_again_until_its_own_experiment_has_run(begin, tmp_path, plan):
    running = begin(plan)
    wait(running)
    assert running._made_it()
    assert len(list(tmp_path.glob("attempt*"))) == len(plan.split())
    assert (
        tmp_path / "attempt0"
    ).read_text() == "--wait-for-lock exp run --temp --name s-1 -S train.lr=0.1 train@audio"


def test_a_pipeline_that_fails_is_not_tried_again(begin, tmp_path):
    running = begin("fails works")
    wait(running)
    with pytest.raises(TrainingError, match="s-1: no clips"):
        running.value()
    assert not (tmp_path / "attempt1").exists()


def test_a_trial_that_is_stopped_has_ended_with_its_watcher(begin):
    running = begin("sleeps")
    assert not running.ended()
    running.stop()
    assert running._process.returncode is not None
    assert running._watcher.returncode is not None
