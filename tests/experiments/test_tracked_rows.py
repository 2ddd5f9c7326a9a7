"""Gathering and comparing on a real tracking store."""

import os
import shutil
import subprocess
from unittest import mock

import pytest
from mlflow import MlflowClient

import projects
from avrecog.commands import gather
from avrecog.commands.compare import compare
from avrecog.errors import ScoreError, TrackingError
from avrecog.experiments.tracked_rows import PARENT_TAG, finished_rows
from avrecog.scores.predictions import predictions_text, read_predictions
from avrecog.tracking import provenance
from avrecog.tracking.rows import ComparableRow, comparable_rows
from rows import experiment
from test_cli import avrecog


@pytest.fixture
def root(tmp_path, tracking_template):
    shutil.copytree(tracking_template, tmp_path / "mlruns")
    return tmp_path


def log_experiment(root, fold, seed, **more):
    """Write what `rows.experiment` makes up as stage report would; returns run ids by model."""
    rows, predictions = experiment(fold, seed, **more)
    ids = {}
    with projects.inside(root), comparable_rows() as log_row:
        for row in rows:
            path = root / "predictions.csv"
            path.write_text(predictions_text(predictions[row.run_id]))
            ids[row.model] = log_row(ComparableRow(row.model, row.params, row.tags, row.metrics, files=[path]))
    return ids


def client(root):
    return MlflowClient(f"sqlite:///{root}/mlruns/mlflow.db")


def parents(root):
    with projects.inside(root):
        return {row.model: row for row in finished_rows() if row.is_parent}


def test_rows_are_gathered_below_parents_and_more_folds_replace_them(root, capsys):
    children = [log_experiment(root, fold, 0) for fold in (1, 2)]
    avrecog(root, "gather")
    out = capsys.readouterr().out
    assert out.startswith("### clips.csv\n\n| model | folds | seeds | clips |")
    assert "| fusion | 1, 2 | 0 | 40 |" in out
    before = parents(root)
    assert before.keys() == {"audio", "rgb", "fusion"}
    assert before["audio"].metrics["n_clips"] == 40
    assert before["fusion"].metrics.keys() >= {"gain.top1", "gain.top1_low", "gain.p_value", "test.top1_sd_folds"}
    assert before["audio"].params["train.lr"] == "0.1"
    assert before["audio"].tags["git.commit"] == "a" * 40
    for ids in children:
        for model, run_id in ids.items():
            assert client(root).get_run(run_id).data.tags[PARENT_TAG] == before[model].run_id

    avrecog(root, "gather")
    assert parents(root) == before  # nothing new: nothing written

    children.append(log_experiment(root, 3, 0))
    newer = log_experiment(root, 1, 0, started=9)
    avrecog(root, "gather")
    after = parents(root)
    assert after["audio"].metrics["n_clips"] == 60
    assert client(root).get_run(before["audio"].run_id).info.lifecycle_stage == "deleted"
    for ids in (*children[1:], newer):
        assert client(root).get_run(ids["audio"]).data.tags[PARENT_TAG] == after["audio"].run_id
    assert PARENT_TAG not in client(root).get_run(children[0]["audio"]).data.tags  # superseded
    folder = client(root).get_run(after["rgb"].run_id).info.artifact_uri.removeprefix("file://")
    assert sorted(os.listdir(folder)) == ["predictions_seed0.csv"]
    assert len(read_predictions(root.joinpath(folder, "predictions_seed0.csv")).clip_ids) == 60


def test_a_gather_that_is_killed_before_it_ends_is_mended_by_the_next(root, capsys):
    ids = log_experiment(root, 1, 0)
    log_experiment(root, 2, 0)

    def killed(*_):
        raise KeyboardInterrupt

    with projects.inside(root), mock.patch.object(MlflowClient, "set_tag", killed), pytest.raises(KeyboardInterrupt):
        gather.gather()
    avrecog(root, "gather")
    assert len(parents(root)) == 3
    assert client(root).get_run(ids["rgb"]).data.tags[PARENT_TAG] == parents(root)["rgb"].run_id
    with projects.inside(root):
        assert len([row for row in finished_rows() if row.is_parent]) == 3


def test_rows_and_parents_are_compared_by_id_name_and_file(root, capsys):
    for seed in (0, 1):
        for fold in (1, 2):
            log_experiment(root, fold, seed, **{"dvc.exp_name": f"s{seed}f{fold}"})
            log_experiment(root, fold, seed, lr="0.5", started=1, **{"dvc.exp_name": f"fast{seed}{fold}"})
    avrecog(root, "compare", "s0f1", "fast01")
    out = capsys.readouterr().out
    assert "A  fusion of s0f1 (run " in out
    assert "20 clips are common, 0 are only in A, 0 only in B" in out
    assert "models.audio.train.lr: 0.1 -> 0.5" in out
    avrecog(root, "gather")
    capsys.readouterr()
    with projects.inside(root):
        found = [row for row in finished_rows() if row.is_parent and row.model == "rgb"]
        slow, fast = sorted(found, key=lambda row: row.params["train.lr"])
        text = compare(slow.run_id[:10], fast.run_id)
        assert "A  gathered rgb (run" in text
        assert "40 clips, mean of seeds 0, 1" in text
        assert "train.lr: 0.1 -> 0.5" in text
        path = root / "predictions.csv"  # of the last row that was written
        text = compare(str(path), slow.run_id, "audio")
        assert "B  gathered audio" in text
        assert text.endswith("unknown; a file doesn't say how it was made")
        with pytest.raises(ScoreError, match="no clip is in both"):
            compare("s0f1", "s0f2")


def test_a_row_without_predictions_cannot_be_compared(root):
    rows, _ = experiment(1, 0, **{"dvc.exp_name": "old"})
    with projects.inside(root):
        with comparable_rows() as log_row:
            log_row(ComparableRow("audio", rows[0].params, rows[0].tags, rows[0].metrics))
        with pytest.raises(ScoreError, match="old: run .* keeps no predictions"):
            compare("old", "old")


def test_damaged_predictions_name_their_run(root):
    ids = log_experiment(root, 1, 0)
    log_experiment(root, 2, 0)
    folder = client(root).get_run(ids["rgb"]).info.artifact_uri.removeprefix("file://")
    root.joinpath(folder, "predictions.csv").write_text("nonsense")
    with (
        projects.inside(root),
        pytest.raises(ScoreError, match=rf"run {ids['rgb']} \(rgb\): predictions.csv: expected"),
    ):
        gather.gather()


def test_nothing_to_gather_says_what_to_run(root):
    log_experiment(root, 1, 0)
    with projects.inside(root), pytest.raises(ScoreError, match=r"nothing to gather.*\(1 stand alone\).*test_fold"):
        gather.gather()


def test_where_there_is_no_store_none_is_made(tmp_path):
    with projects.inside(tmp_path), pytest.raises(TrackingError, match="there is no tracking store yet"):
        gather.gather()
    assert not list(tmp_path.iterdir())


def test_what_changed_between_commits_is_asked_of_git_for_commits_only(monkeypatch):
    monkeypatch.chdir(projects.ROOT)
    head = provenance._git("rev-parse", "HEAD")
    assert provenance.changed_files(head, head) == ""
    assert provenance.changed_files(head, "f" * 40) is None
    with mock.patch.object(provenance, "_git") as git:
        assert provenance.changed_files("--output=/tmp/x", head) is None
        assert not git.called


def test_a_tree_is_dirty_by_its_code_not_by_parameters_and_dvc_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "dvc.lock", "code.py"):
        (tmp_path / name).write_text("1\n")
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "all"], check=True)
    for name, dirty in (("params.yaml", "false"), ("dvc.lock", "false"), ("code.py", "true")):
        (tmp_path / name).write_text("2\n")
        assert provenance.origin_tags()["git.dirty"] == dirty, name
