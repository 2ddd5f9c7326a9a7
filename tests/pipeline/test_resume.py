"""A training that was stopped goes on, and only then."""

import os
import signal
import time
from unittest import mock

import pytest

import projects
from avrecog.models.checkpoint import load_checkpoint
from avrecog.training import loop, resume, signals
from waiting import HANGS_S


@pytest.fixture(autouse=True)
def _steps_may_take_long_after_a_signal(monkeypatch):
    monkeypatch.setattr(signals, "GRACE_S", HANGS_S)


def stop_after(project, epoch):
    """Train, and fall over after an epoch's checkpoint is written; the exit code."""
    save = resume.save_checkpoint

    def fall_over(path, checkpoint):
        save(path, checkpoint)
        if path.name == "last.ckpt" and checkpoint["epoch"] == epoch:
            raise KeyboardInterrupt

    with mock.patch.object(resume, "save_checkpoint", fall_over), pytest.raises(SystemExit) as stop:
        projects.run(project, "train", "audio")
    return stop.value.code


def test_a_stopped_training_goes_on_and_ends_on_the_same_bytes(project, caplog):
    unbroken = {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()}
    assert stop_after(project, 2) == 130
    assert load_checkpoint(project / "models/audio/last.ckpt")["epoch"] == 2
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "going on after epoch 2, step 0" in caplog.text
    assert {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()} == unbroken


def signal_in_step(monkeypatch, number, step):
    """Send this process a signal while it works on a step (the epochs' steps counted on)."""
    loss = loop.Trainer._loss
    steps = iter(range(1, 1000))

    def signalled(*arguments):
        if next(steps) == step:
            os.kill(os.getpid(), number)
        return loss(*arguments)

    monkeypatch.setattr(loop.Trainer, "_loss", signalled)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_an_epoch_saves_the_state_after_that_step(project, monkeypatch, caplog, number, code):
    unbroken = {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()}
    with monkeypatch.context() as patch:
        signal_in_step(patch, number, 6)  # of 4 steps an epoch
        with caplog.at_level("INFO"), pytest.raises(SystemExit) as stop:
            projects.run(project, "train", "audio")
    assert stop.value.code == code
    assert "stopped after epoch 1, step 2; saved" in caplog.text
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "going on after epoch 1, step 2" in caplog.text
    assert {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()} == unbroken


def test_a_step_that_does_not_end_is_cut_off_and_the_last_state_stays(project, monkeypatch):
    loss = loop.Trainer._loss

    def endless(trainer, *arguments):
        if trainer.epochs_done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(HANGS_S)
        return loss(trainer, *arguments)

    monkeypatch.setattr(loop.Trainer, "_loss", endless)
    monkeypatch.setattr(signals, "GRACE_S", 0.2)
    with pytest.raises(SystemExit) as stop:
        projects.run(project, "train", "audio")
    assert stop.value.code == 143
    assert load_checkpoint(project / "models/audio/last.ckpt")["epoch"] == 1


def test_in_a_long_epoch_the_state_is_saved_between_steps_too(project, monkeypatch, caplog):
    unbroken = {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()}
    loss, steps = loop.Trainer._loss, iter(range(1, 1000))

    def killed_in_the_seventh(*arguments):
        if next(steps) == 7:
            raise SystemExit(9)
        return loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "SAVE_EVERY_S", 0)
        patch.setattr(loop.Trainer, "_loss", killed_in_the_seventh)
        with pytest.raises(SystemExit):
            projects.run(project, "train", "audio")
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "going on after epoch 1, step 2" in caplog.text
    assert {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()} == unbroken


def hours_after_steps(monkeypatch, n_steps):
    """A clock that jumps by an hour once so many steps are done."""
    steps = iter(range(1, 1000))
    jump = [0.0]
    loss = loop.Trainer._loss

    def counted(*arguments):
        if next(steps) == n_steps:
            jump[0] = 3600.0
        return loss(*arguments)

    clock = time.perf_counter
    monkeypatch.setattr(loop.Trainer, "_loss", counted)
    monkeypatch.setattr(resume.time, "perf_counter", lambda: clock() + jump[0])


def test_max_hours_ends_in_good_order_and_goes_on_once_it_is_raised(project, monkeypatch, caplog):
    unbroken = {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()}
    projects.write_params(project, projects.SMALL, {"train": {"max_hours": 1.0}})
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        hours_after_steps(patch, 10)
        projects.run(project, "train", "audio")  # exits well
    assert len((project / "models/audio/history.csv").read_text().splitlines()) == 1 + 2
    assert load_checkpoint(project / "models/audio/best.ckpt")["epoch"] <= 2
    projects.run(project, "test", "audio")
    projects.write_params(project, projects.SMALL, {"train": {"max_hours": 2.0}})
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "going on after epoch 2, step 2" in caplog.text
    names = ["best.ckpt", "last.ckpt", "history.csv"]
    assert {name: (project / "models/audio" / name).read_bytes() for name in names} == {
        name: unbroken[name] for name in names
    }


def test_a_training_that_ended_at_max_hours_is_begun_anew_with_the_same_limit(project, monkeypatch, caplog):
    projects.write_params(project, projects.SMALL, {"train": {"max_hours": 1.0}})
    with monkeypatch.context() as patch:
        hours_after_steps(patch, 10)
        projects.run(project, "train", "audio")
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "it had ended at train.max_hours" in caplog.text


def test_max_hours_before_the_first_validation_is_an_error_and_loses_nothing(project, monkeypatch, capsys, caplog):
    projects.write_params(project, projects.SMALL, {"train": {"max_hours": 1.0}})
    with monkeypatch.context() as patch:
        hours_after_steps(patch, 2)
        with pytest.raises(SystemExit) as stop:
            projects.run(project, "train", "audio")
    assert stop.value.code == 1
    assert "train.max_hours (1) ended before the first validation; raise it" in capsys.readouterr().err
    projects.write_params(project, projects.SMALL, {"train": {"max_hours": 2.0}})
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "going on after epoch 0, step 2" in caplog.text


def test_a_training_that_diverges_keeps_its_state_and_names_the_clips(project, capsys):
    projects.write_params(
        project, projects.SMALL, {"train": {"lr": 1e9, "warmup_epochs": 0, "clip_grad_norm": None, "ema_decay": None}}
    )
    with pytest.raises(SystemExit) as stop:
        projects.run(project, "train", "audio")
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "the training loss is" in message
    assert "look at the clips of that batch: " in message
    assert "Traceback" not in message
    assert load_checkpoint(project / "models/audio.diverged.ckpt")["state"]["steps_done"] >= 1


def test_a_finished_training_is_begun_anew(project, caplog):
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "is not gone on with: it was finished" in caplog.text


def test_a_stopped_training_of_other_parameters_is_begun_anew(project, caplog):
    stop_after(project, 1)
    projects.write_params(project, projects.SMALL, {"train": {"lr": 0.01, "epochs": 2}})
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "its parameters or data were others" in caplog.text
    assert len((project / "models/audio/history.csv").read_text().splitlines()) == 1 + 2


def test_changed_code_is_a_warning_and_no_new_beginning(project, monkeypatch, caplog):
    stop_after(project, 3)
    monkeypatch.setattr(resume, "_code_digest", lambda: "other code")
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "the code has changed" in caplog.text
    assert "going on after epoch 3" in caplog.text


def test_a_damaged_checkpoint_is_said_and_begun_anew(project, caplog):
    (project / "models/audio/last.ckpt").write_bytes(b"cut off")
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "last.ckpt: is damaged or no checkpoint" in caplog.text


def test_a_stopped_training_is_begun_anew_when_the_media_have_changed(project, caplog):
    """Other media with the same ids and lengths: what was learned from is not the same."""
    stop_after(project, 1)
    for path in (project / "clips/low").iterdir():
        other = project / "clips/high" / path.name
        content = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    for stage in ("prepare", "extract"):
        projects.run(project, stage)
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "its parameters or data were others" in caplog.text


def test_a_state_of_another_version_is_begun_anew(project, caplog):
    stop_after(project, 1)
    checkpoint = load_checkpoint(project / "models/audio/last.ckpt")
    del checkpoint["state"]["seconds"], checkpoint["format"]
    resume.save_checkpoint(project / "models/audio/last.ckpt", checkpoint)
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "another version of avrecog wrote it" in caplog.text
