"""The tracking store: made once, opened by many, and found again where its project goes."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

import projects
from avrecog.config import Params
from avrecog.errors import TrackingError
from avrecog.experiments.sweep import tracking as sweep_tracking
from avrecog.experiments.tracked_rows import finished_rows
from avrecog.tracking import client, provenance
from avrecog.tracking.address import sqlite_address
from avrecog.tracking.client import ensure_store, experiment_id, tracking_client
from avrecog.tracking.outcome import Outcome
from avrecog.tracking.rows import ComparableRow, comparable_rows
from avrecog.tracking.run import begin_run, tracked

COUNT = "SELECT count(*) FROM runs"


@pytest.fixture
def root(tmp_path, tracking_template):
    shutil.copytree(tracking_template, tmp_path / "mlruns")
    return tmp_path


def track(root, action=lambda run: run.log(Outcome("done", {}))):
    """A stage in the project `root`."""
    with projects.inside(root), tracked("fuse", Params({"fuse": "fuse"}, {"fuse": {"n_trials": 3}})) as run:
        action(run)


def log_row(root, model="audio"):
    """What stage report writes."""
    with projects.inside(root), comparable_rows() as log:
        tags = {"stage": "report", "model": model}
        return log(ComparableRow(model, {"lr": 1}, tags, {"test.top1": 1.0, "test.mean_class_accuracy": 1.0}))


def client_of(root):
    return MlflowClient(sqlite_address(root / "mlruns/mlflow.db"))


def runs_of(root, experiment):
    client = client_of(root)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def text_of(root, run, name, folder):
    """What an artifact of a run says, by way of MLflow."""
    folder.mkdir(exist_ok=True)
    return Path(client_of(root).download_artifacts(run.info.run_id, name, str(folder))).read_text()


def test_a_given_tracking_address_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert ensure_store(tmp_path) == "http://elsewhere"
    assert not (tmp_path / "mlruns").exists()


def test_the_store_is_in_write_ahead_mode(tracking_template):
    assert (tracking_template / "mlflow.db").read_bytes()[18:20] == b"\x02\x02"


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


def test_half_a_row_of_a_killed_report_is_deleted_by_the_next_stage(root):
    with projects.inside(root):
        track(root)
        client = tracking_client()
        process = f"{provenance._machine()} {provenance._boot()} 999999999 1"
        run_id = begin_run(client, "avrecog", "audio", {"lr": 1}, {provenance.PROCESS_TAG: process})
    track(root)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"


def test_runs_of_another_machine_or_of_a_living_process_are_left_alone(root):
    with projects.inside(root):
        client = tracking_client()
        for process in ("elsewhere/1 - 999999999 1", provenance.this_process(), "nonsense"):
            begin_run(client, "avrecog-stages", process, {}, {provenance.PROCESS_TAG: process})
        tracking_client()
    runs = client.search_runs([client.get_experiment_by_name("avrecog-stages").experiment_id])
    assert [run.info.status for run in runs] == ["RUNNING"] * 3


def test_a_run_from_before_the_machine_was_started_anew_is_marked(root):
    with projects.inside(root):
        client = tracking_client()
        process = f"{provenance._machine()} another-boot {os.getpid()} 1"
        run_id = begin_run(client, "avrecog-stages", "train", {}, {provenance.PROCESS_TAG: process})
        tracking_client()
    assert client.get_run(run_id).info.status == "KILLED"


def test_opening_the_store_again_leaves_open_connections_their_locks(root):
    """Else the next process to close the database removes the log that they read: "disk image is malformed"."""
    with projects.inside(root):
        client = tracking_client()
        client.search_experiments()
        tracking_client()
        other = (
            f"import sqlite3; c = sqlite3.connect({str(root / 'mlruns/mlflow.db')!r}); c.execute('{COUNT}'); c.close()"
        )
        subprocess.run([sys.executable, "-c", other], check=True)
        assert (root / "mlruns/mlflow.db-wal").exists()


def test_the_first_run_of_a_store_keeps_its_files_in_the_project(root):
    with projects.inside(root):
        client = tracking_client()
        begin_run(client, "avrecog-stages", "first", {}, {})
    assert "MLFLOW_TRACKING_URI" not in os.environ
    location = client.get_experiment_by_name("avrecog-stages").artifact_location
    assert location == (root / "mlruns/avrecog-stages").as_uri()


def delete(root, experiment):
    client = client_of(root)
    client.delete_experiment(client.get_experiment_by_name(experiment).experiment_id)


def restored(caplog, experiment):
    return f"experiment {experiment} had been deleted; it is restored" in caplog.text


def test_a_stage_restores_its_deleted_experiment_and_says_so(root, caplog):
    track(root)
    delete(root, "avrecog-stages")
    track(root)
    assert len(runs_of(root, "avrecog-stages")) == 2
    assert restored(caplog, "avrecog-stages")
    assert caplog.text.count("had been deleted") == 1


def test_the_deleted_experiment_of_the_rows_is_restored_by_who_writes_one(root, caplog):
    log_row(root)
    delete(root, "avrecog")
    log_row(root, "rgb")
    assert {run.data.tags["model"] for run in runs_of(root, "avrecog")} == {"audio", "rgb"}
    assert restored(caplog, "avrecog")


def test_the_deleted_experiment_of_the_rows_is_restored_by_who_reads_them(root, caplog):
    run_id = log_row(root)
    delete(root, "avrecog")
    with projects.inside(root):
        assert [row.run_id for row in finished_rows()] == [run_id]
    assert restored(caplog, "avrecog")


def test_a_sweep_restores_the_deleted_experiment_of_the_stages(root, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "tried-hard")
    with projects.inside(root), tracked("train", Params({}, {})) as run:
        run.log_epoch(1, {"val_top1": 0.5})
        run.log(Outcome("done", {}))
    delete(root, "avrecog-stages")
    with projects.inside(root):
        sweep_tracking._client.cache_clear()
        assert sweep_tracking.validation_curve("tried-hard", "val_top1") == [(1, 0.5)]
        delete(root, "avrecog-stages")
        sweep_tracking.log_study("study", "val_top1", [], None, tmp_path / "trials.json")
    assert {run.info.run_name for run in runs_of(root, "avrecog-stages")} == {"train", "study"}
    assert caplog.text.count("had been deleted") == 2


def test_an_experiment_that_another_process_has_just_restored_is_taken_as_it_is(root, monkeypatch):
    track(root)
    delete(root, "avrecog-stages")
    restore = MlflowClient.restore_experiment

    def restore_twice(client, number):
        restore(client, number)
        restore(client, number)

    monkeypatch.setattr(MlflowClient, "restore_experiment", restore_twice)
    track(root)
    assert len(runs_of(root, "avrecog-stages")) == 2


def test_an_experiment_that_is_gone_for_good_is_made_anew_in_the_project(root):
    track(root)
    delete(root, "avrecog-stages")
    client = client_of(root)
    number = client.get_experiment_by_name("avrecog-stages").experiment_id
    client._tracking_client.store._hard_delete_experiment(number)
    track(root)
    made = client.get_experiment_by_name("avrecog-stages")
    assert made.artifact_location == (root / "mlruns/avrecog-stages").as_uri()
    assert len(runs_of(root, "avrecog-stages")) == 1


@pytest.fixture
def old_project(tmp_path, tracking_template):
    """A project in which a stage has run, with a file of its own and experiments of other people in its store."""
    root = tmp_path / "old/project"
    shutil.copytree(tracking_template, root / "mlruns")
    (root / "mlflow.db").symlink_to("mlruns/mlflow.db")
    (root / "note.txt").write_text("written in the old place")
    track(root, lambda run: run.log(Outcome("done", {}, files=[root / "note.txt"])))
    client = client_of(root)
    client.create_experiment("mine", artifact_location=(root / "mlruns/mine").as_uri())
    client.create_experiment("plain")
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db")) as connection, connection:
        path = str(root / "mlruns/2")  # as MLflow's page writes it, in the experiment Default too
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'plain'", (path,))
    client.create_experiment("disk", artifact_location="file:///somewhere/mlruns/disk")
    client.create_experiment("cloud", artifact_location="s3://bucket/mlruns/cloud")
    return root


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def contents(root):
    """The whole store, as SQL."""
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db")) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("name", ["project", "team%2Fmain", "what? a #name"])
def test_a_project_that_was_moved_keeps_its_files_where_it_is_now(old_project, tmp_path, name, caplog):
    new = tmp_path / "new" / name
    new.parent.mkdir()
    shutil.move(old_project, new)
    track(new)
    assert not old_project.exists()
    runs = runs_of(new, "avrecog-stages")
    assert {run.info.artifact_uri for run in runs} == {
        (new / "mlruns/avrecog-stages" / run.info.run_id / "artifacts").as_uri() for run in runs
    }
    assert len(list((new / "mlruns/avrecog-stages").iterdir())) == len(runs) == 2
    first = min(runs, key=lambda run: run.info.start_time)
    assert text_of(new, first, "note.txt", tmp_path / "fetched") == "written in the old place"
    places = {each.name: each.artifact_location for each in client_of(new).search_experiments()}
    assert places["mine"] == (new / "mlruns/mine").as_uri()
    assert places["plain"] == str(new / "mlruns/2")
    assert places["disk"] == "file:///somewhere/mlruns/disk"
    assert places["cloud"] == "s3://bucket/mlruns/cloud"
    assert f"its files were at {old_project}/mlruns; the project was moved or copied" in caplog.text
    caplog.clear()
    track(new)
    assert "its files were at" not in caplog.text


def written(root, text):
    """A stage that keeps a file which says `text`; its run."""
    (root / "note.txt").write_text(text)
    track(root, lambda run: run.log(Outcome("done", {}, files=[root / "note.txt"])))
    return max(runs_of(root, "avrecog-stages"), key=lambda run: run.info.start_time)


def test_files_that_were_written_into_the_old_place_after_the_move_are_found_there(
    old_project, tmp_path, monkeypatch, caplog
):
    (before,) = runs_of(old_project, "avrecog-stages")
    new = tmp_path / "new"
    shutil.move(old_project, new)
    with monkeypatch.context() as earlier_version:
        earlier_version.setattr(client, "_follow", lambda *_: None)
        between = written(new, "written between the move and the upgrade")
    assert (old_project / "mlruns/avrecog-stages" / between.info.run_id).exists()
    after = written(new, "written since")
    assert "runs and models with files at the old place alone: 1;" in caplog.text
    fetched = tmp_path / "fetched"
    assert text_of(new, before, "note.txt", fetched) == "written in the old place"
    assert text_of(new, between, "note.txt", fetched) == "written between the move and the upgrade"
    assert text_of(new, after, "note.txt", fetched) == "written since"
    folders = {path.name for path in (new / "mlruns/avrecog-stages").iterdir()}
    assert folders == {before.info.run_id, after.info.run_id}
    caplog.clear()
    track(new)
    assert "tracking store" not in caplog.text


def test_a_store_that_was_copied_alone_finds_the_files_of_the_original(old_project, tmp_path, caplog):
    (before,) = runs_of(old_project, "avrecog-stages")
    unchanged = contents(old_project), files_below(old_project)
    new = tmp_path / "copy"
    (new / "mlruns").mkdir(parents=True)
    with (
        contextlib.closing(sqlite3.connect(old_project / "mlruns/mlflow.db")) as source,
        contextlib.closing(sqlite3.connect(new / "mlruns/mlflow.db")) as target,
    ):
        source.backup(target)
    after = written(new, "written in the copy")
    assert text_of(new, before, "note.txt", tmp_path / "fetched") == "written in the old place"
    assert (new / "mlruns/avrecog-stages" / after.info.run_id / "artifacts/note.txt").exists()
    assert (contents(old_project), files_below(old_project)) == unchanged
    assert "runs and models with files at the old place alone: 1;" in caplog.text


def test_runs_without_files_follow_a_project_that_was_copied(old_project, tmp_path):
    track(old_project)
    shutil.rmtree(old_project / "mlruns/avrecog-stages")
    new = tmp_path / "copy"
    shutil.copytree(old_project, new, symlinks=True)
    track(new)
    place = (new / "mlruns/avrecog-stages").as_uri()
    assert all(run.info.artifact_uri.startswith(f"{place}/") for run in runs_of(new, "avrecog-stages"))


def test_a_copy_of_a_project_leaves_the_original_alone(old_project, tmp_path):
    new = tmp_path / "copy"
    subprocess.run(["cp", "-r", old_project, new], check=True)
    before = contents(old_project), files_below(old_project)
    track(new)
    assert (contents(old_project), files_below(old_project)) == before
    assert len(list((new / "mlruns/avrecog-stages").iterdir())) == 2
    assert (new / "mlflow.db").readlink() == Path("mlruns/mlflow.db")
    assert client_of(new).get_experiment_by_name("mine").artifact_location == (new / "mlruns/mine").as_uri()
    track(old_project)
    assert len(list((new / "mlruns/avrecog-stages").iterdir())) == 2


def test_a_store_that_two_projects_share_by_a_link_stays_where_it_is(old_project, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mlruns").symlink_to(old_project / "mlruns")
    (other / "note.txt").touch()
    track(other, lambda run: run.log(Outcome("done", {}, files=[other / "note.txt"])))
    place = client_of(old_project).get_experiment_by_name("avrecog-stages").artifact_location
    assert place == (old_project / "mlruns/avrecog-stages").as_uri()
    assert len(list((old_project / "mlruns/avrecog-stages").iterdir())) == 2


ODD_NAMES = [
    "team%2Fmain",
    "a%20b",
    "100%",
    "a b",
    "what?x=1",
    "h#sh",
    "caf\u00e9",
    "cafe\u0301",
    "q'u\"o",
    "a@b:c;d&e+f",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_of_a_folder_above_the_project_does(tmp_path, tracking_template, name):
    root = tmp_path / name / "project"
    shutil.copytree(tracking_template, root / "mlruns")
    (root / "note.txt").write_text("here")
    track(root, lambda run: run.log(Outcome("done", {"a": 1.0}, files=[root / "note.txt"])))
    (run,) = runs_of(root, "avrecog-stages")
    kept = root / "mlruns/avrecog-stages" / run.info.run_id / "artifacts"
    assert [path.name for path in kept.iterdir()] == ["note.txt"]
    assert text_of(root, run, "note.txt", tmp_path / "fetched") == "here"
    assert run.data.metrics["a"] == 1.0
    assert [path.name for path in tmp_path.iterdir() if path.name != "fetched"] == [name]


def test_a_fresh_store_is_made_below_any_name(tmp_path):
    ensure_store(tmp_path / "what? %2F #1")
    assert files_below(tmp_path) == ["what? %2F #1/mlruns/.init.lock", "what? %2F #1/mlruns/mlflow.db"]


def test_a_name_that_no_address_can_hold_is_refused_at_once(tmp_path, tracking_template):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        shutil.copytree(tracking_template, root / "mlruns")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(
        TrackingError, match=r"caf\\xe9/mlruns/mlflow.db: MLflow can't keep runs in a folder whose name"
    ):
        track(root)


def test_a_database_that_was_given_and_cannot_be_opened_is_refused_at_once(tmp_path, monkeypatch):
    def never(seconds):
        raise AssertionError(f"waits for {seconds} s")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}")
    monkeypatch.setattr(time, "sleep", never)
    with pytest.raises(TrackingError, match="the tracking store can't be used .*unable to open database file"):
        tracking_client()


def test_a_database_whose_driver_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://localhost/runs")
    with pytest.raises(TrackingError, match="postgresql needs a package that is missing here"):
        tracking_client()


def test_there_is_no_id_of_an_experiment_that_nobody_made(root):
    assert experiment_id(client_of(root), "avrecog") is None
