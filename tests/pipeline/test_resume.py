"""A training that was stopped goes on, and only then."""

import pytest

import projects
from avrecog.checkpoints import load_checkpoint
from avrecog.training import train as training


def stop_after(monkeypatch, epoch):
    """Have the training fall over after an epoch's checkpoint is written."""
    save = training.save_checkpoint

    def fall_over(path, checkpoint):
        save(path, checkpoint)
        if path.name == "last.ckpt" and checkpoint["epoch"] == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", fall_over)


def test_a_stopped_training_goes_on_and_ends_on_the_same_bytes(project, monkeypatch, caplog):
    unbroken = {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()}
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(SystemExit) as stop:
            projects.run(project, "train", "audio")
    assert stop.value.code == 130
    assert load_checkpoint(project / "models/audio/last.ckpt")["epoch"] == 2
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "going on after epoch 2" in caplog.text
    assert {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()} == unbroken


def test_a_finished_training_is_begun_anew(project, caplog):
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "is not gone on with: it was finished" in caplog.text


def test_a_stopped_training_of_other_parameters_is_begun_anew(project, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(SystemExit):
            projects.run(project, "train", "audio")
    projects.write_params(project, projects.SMALL, {"train": {"lr": 0.01, "epochs": 2}})
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "its parameters or data were others" in caplog.text
    assert len((project / "models/audio/history.csv").read_text().splitlines()) == 1 + 2


def test_changed_code_is_a_warning_and_no_new_beginning(project, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(SystemExit):
            projects.run(project, "train", "audio")
    monkeypatch.setattr(training, "_code_digest", lambda: "other code")
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "the code has changed" in caplog.text
    assert "going on after epoch 3" in caplog.text


def test_a_damaged_checkpoint_is_said_and_begun_anew(project, caplog):
    (project / "models/audio/last.ckpt").write_bytes(b"cut off")
    with caplog.at_level("INFO"):
        projects.run(project, "train", "audio")
    assert "last.ckpt: is damaged or no checkpoint" in caplog.text
