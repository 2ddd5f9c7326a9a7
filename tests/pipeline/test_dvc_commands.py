"""dvc's commands after a complete run: with a remote for the data and one for the experiments, without a complaint."""

import re
import subprocess
from pathlib import Path

import pytest

import chaos
import projects
from waiting import HANGS_S

TINY = {
    "train": {"epochs": 1, "warmup_epochs": 0},
    "test": {"n_clips": 1},
    "benchmark": {"variants": ["eager"], "report": "eager", "repeats": 1, "batch_sizes": [1], "seconds": 0.01},
    "fuse": {"n_resamples": 20, "n_trials": 4, "methods": ["equal"]},
}
GIVEN_ANYWHERE = "WARNING: This will remove all cache except items used in the workspace of the current repo."
COMPLAINT = re.compile(r"warning|error|fail|missing|not found|unable|does not exist|isn't|can't", re.IGNORECASE)


def quiet(folder: Path, command: str) -> str:
    """What a command printed, which must have ended with 0 and have nothing to complain of."""
    environment = {**chaos.ENVIRONMENT, "COLUMNS": "200"}
    done = subprocess.run(
        command.split(), cwd=folder, env=environment, capture_output=True, text=True, timeout=HANGS_S, check=False
    )
    said = f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, said
    complaint = COMPLAINT.search(done.stderr.replace(GIVEN_ANYWHERE, ""))  # where dvc warns; stages' words are on both
    assert not complaint, said
    return done.stdout


def commit(folder: Path, subject: str) -> None:
    for command in (["add", "-A"], ["commit", "-qm", subject]):
        subprocess.run(["git", *command], cwd=folder, check=True)


@pytest.fixture
def complete(tmp_path, request):
    """A project after its first `dvc repro`, all committed and pushed, and its remotes."""
    folder = tmp_path / "project"
    chaos.make_project(folder)
    projects.write_params(folder, projects.SMALL, TINY, request.param)
    for key, value in (("user.name", "c"), ("user.email", "c@localhost")):
        subprocess.run(["git", "config", key, value], cwd=folder, check=True)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "code.git"], check=True)
    subprocess.run(["git", "remote", "add", "origin", tmp_path / "code.git"], cwd=folder, check=True)
    quiet(folder, f"dvc remote add --default store {tmp_path / 'data'}")
    quiet(folder, "dvc repro")
    commit(folder, "first")
    subprocess.run(["git", "push", "-q", "origin", "HEAD"], cwd=folder, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("complete", [{}, {"pipeline": {"models": ["audio"]}, "video": None}], indirect=True)
def test_every_command_of_dvc_ends_well_after_a_complete_run(complete, tmp_path):
    for command in ("status", "checkout", "diff", "metrics show", "metrics diff", "params diff", "plots show", "push"):
        quiet(complete, f"dvc {command}")
    assert "up to date" in quiet(complete, "dvc repro")

    quiet(complete, "dvc exp run --name first -S test.n_clips=2")
    assert "test.n_clips" in quiet(complete, "dvc params diff")
    for command in ("metrics diff", "plots diff", "diff", "exp show", "exp diff HEAD first"):
        quiet(complete, f"dvc {command}")
    subprocess.run(["git", "checkout", "-q", "."], cwd=complete, check=True)
    quiet(complete, "dvc checkout")
    quiet(complete, "dvc exp run --name second --temp -S test.n_clips=2 -S fuse.n_resamples=30")
    quiet(complete, "dvc exp run --name third --queue -S fuse.n_resamples=40")
    quiet(complete, "dvc exp run --run-all")
    assert {*quiet(complete, "dvc exp list --name-only").split()} == {"first", "second", "third"}

    quiet(complete, "dvc exp apply first")
    assert "n_clips: 2" in (complete / "params.yaml").read_text()
    quiet(complete, "dvc status")
    subprocess.run(["git", "checkout", "-q", "."], cwd=complete, check=True)
    quiet(complete, "dvc checkout")
    for command in ("push origin first", "rename first renamed", "remove renamed", "pull origin first"):
        quiet(complete, f"dvc exp {command}")
    quiet(complete, "dvc exp branch first kept")
    subprocess.run(["git", "checkout", "-q", "kept"], cwd=complete, check=True)
    quiet(complete, "dvc checkout")
    quiet(complete, "dvc plots diff main kept")
    quiet(complete, "dvc metrics diff main kept")
    quiet(complete, "dvc gc --workspace --force")
    quiet(complete, "dvc push")

    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", tmp_path / "code.git", other], check=True)
    quiet(other, "dvc pull")
    quiet(other, "dvc status")
    quiet(other, "dvc exp pull origin first")
    quiet(other, "dvc exp apply first")


@pytest.mark.slow
def test_stages_without_labels_run_where_they_are_asked_for_and_are_not_missed_afterwards(tmp_path):
    folder = tmp_path / "project"
    chaos.make_project(folder)
    sizes = {"depth": 14, "width": 8, "frames": 4, "alpha": 2, "mel_frames": 32, "crop_height": 32, "crop_width": 32}
    sync = {"architecture": "avsync", "hard_share": 0.5, **sizes}
    small = [projects.SMALL, TINY, {"pipeline": {"models": ["audio"]}, "models": {"sync": sync}}]
    projects.write_params(folder, *small, {"selfsupervised": {"models": ["sync"]}})
    quiet(folder, "dvc repro selfsupervised/dvc.yaml")
    made = folder / "selfsupervised"
    assert (made / "models/sync/best.ckpt").exists()
    assert (made / "metrics/test/sync.json").exists()
    assert (made / "metrics/probe/sync.json").exists()
    assert not (folder / "models").exists()
    assert "up to date" in quiet(folder, "dvc status selfsupervised/dvc.yaml")
    projects.write_params(folder, *small)
    quiet(folder, "dvc repro")
    for command in ("status", "checkout", "metrics show", "plots show"):
        quiet(folder, f"dvc {command}")
    assert "up to date" in quiet(folder, "dvc repro selfsupervised/dvc.yaml")
    projects.write_params(folder, *small, {"selfsupervised": {"models": ["sync"]}})
    quiet(folder, "dvc checkout")
    assert (made / "models/sync/best.ckpt").exists()
