"""`avrecog doctor` says "all is well" of nothing that will fail."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from unittest import mock

import pytest
from mlflow import MlflowClient

import projects
from avrecog import cli
from avrecog.tracking.client import tracking_client

COMPILING = {
    "test.engine: torch-compiled can't run": {"test": {"engine": "torch-compiled"}},
    "benchmark.report: compiled can't be timed": {
        "benchmark": {"variants": ["eager", "compiled"], "report": "compiled"}
    },
    "train.compile: audio can't be compiled": {"models": {"audio": {"train": {"compile": True}}}},
}


def git(folder, *arguments):
    identity = ["-c", "user.name=c", "-c", "user.email=c"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def healthy(project):
    """A whole project in a git repository, of which nothing is wrong."""
    git(project, "init")
    git(project, "commit", "--allow-empty", "-m", "begin")
    with projects.inside(project):
        tracking_client()  # which follows the project to where it was copied
    return project


@pytest.fixture
def doctor(capsys):
    """What `avrecog doctor` prints in a folder: whether it is content, its problems, all of its lines."""

    def examine(folder, **environment):
        with (
            projects.inside(folder),
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["avrecog", "doctor"]),
        ):
            try:
                cli.main()
                code = 0
            except SystemExit as stop:
                code = stop.code
        lines = capsys.readouterr().out.splitlines()
        problems = [line.removeprefix("problem: ") for line in lines if line.startswith("problem: ")]
        assert code == (1 if problems else 0)
        assert ("all is well" in lines) == (not problems)
        return problems, lines

    return examine


def test_doctor_is_content_with_a_whole_project(healthy, doctor):
    problems, lines = doctor(healthy)
    assert not problems
    assert any("torch 2" in line for line in lines)
    assert any(line.startswith(f"tracking store: {healthy}/mlruns/mlflow.db (") for line in lines)


def test_doctor_lists_all_problems_of_params_yaml(healthy, doctor):
    changes = {
        "train": {"epochz": 3},
        "models": {"audio": {"depth": True}},
        "data": {"val_fraction": 3},
        "selfsupervised": {"models": ["a b"]},
    }
    projects.write_params(healthy, projects.SMALL, changes)
    out = "\n".join(doctor(healthy)[1])
    assert "train.epochz: unknown key; did you mean `epochs`" in out
    assert "models.audio.depth: expected a whole number, got true" in out
    assert "data.val_fraction: expected a number below 1, got 3" in out
    assert "selfsupervised.models: expected names of letters, digits, - and _, got 'a b'" in out


def test_doctor_sees_models_that_are_not_there_and_wrong_overrides(healthy, doctor):
    changes = {
        "pipeline": {"models": ["audio", "video"]},
        "selfsupervised": {"models": ["sync", "audio"]},
        "models": {"audio": {"train": {"lr": -1}}},
        "data": {"annotation": "nowhere"},
    }
    projects.write_params(healthy, projects.SMALL, changes)
    out = "\n".join(doctor(healthy)[0] + doctor(healthy)[1])
    assert "pipeline.models: video is no section below models (audio, rgb)" in out
    assert "selfsupervised.models: sync is no section below models (audio, rgb)" in out
    assert "selfsupervised.models: audio is of architecture audio, which needs labels; expected one" in out
    assert "models.audio.train.lr: expected a number above 0, got -1" in out
    assert "data.annotation: nowhere does not exist" in out


def test_doctor_names_the_model_whose_front_end_is_off(healthy, doctor):
    projects.write_params(healthy, projects.SMALL, {"audio": None})
    assert "models.audio: this model needs section `audio`, which is null" in "\n".join(doctor(healthy)[1])


def test_doctor_sees_that_there_is_no_git_repository(healthy, doctor):
    shutil.rmtree(healthy / ".git")
    (problem,), _ = doctor(healthy)
    assert (
        "expected a git repository with a commit, in which dvc keeps experiments, got none; run `git init`" in problem
    )


def test_doctor_sees_a_git_repository_without_a_commit(healthy, doctor):
    shutil.rmtree(healthy / ".git")
    git(healthy, "init")
    (problem,), _ = doctor(healthy)
    assert "expected a git repository with a commit" in problem


@pytest.mark.parametrize("what", COMPILING)
def test_doctor_sees_a_missing_compiler_where_params_yaml_needs_it(healthy, doctor, monkeypatch, what):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not doctor(healthy)[0]
    projects.write_params(healthy, projects.SMALL, COMPILING[what])
    (problem,), _ = doctor(healthy)
    assert problem.startswith(f"{what} here: there is no C")


def test_doctor_is_content_without_a_compiler_as_shipped_and_says_what_is_left_out(healthy, doctor, monkeypatch):
    left_out = "benchmark.variants: compiled is left out here: there is no C"
    shutil.copytree(projects.ROOT / "recipes", healthy / "recipes")
    shutil.copy(projects.ROOT / "recipes/default.yaml", healthy / "params.yaml")
    problems, lines = doctor(healthy)
    assert not problems
    monkeypatch.setattr("shutil.which", lambda name: None)
    problems, lines = doctor(healthy)
    assert not problems
    assert [line for line in lines if line.startswith(left_out)]
    monkeypatch.setattr("avrecog.runtime.device.lacking_to_compile", lambda device: None)
    assert not [line for line in doctor(healthy)[1] if line.startswith(left_out)]


def test_doctor_sees_a_deleted_experiment_and_restores_nothing(healthy, doctor):
    client = MlflowClient(f"sqlite:///{healthy}/mlruns/mlflow.db")
    number = client.get_experiment_by_name("avrecog").experiment_id
    client.delete_experiment(number)
    (problem,), _ = doctor(healthy)
    assert problem.startswith(
        "tracking store: experiment avrecog was deleted; the next stage that writes to it restores"
    )
    assert client.get_experiment(number).lifecycle_stage == "deleted"


def test_doctor_sees_that_the_project_was_moved(healthy, doctor, tmp_path):
    shutil.move(healthy, tmp_path / "new")
    (problem,), _ = doctor(tmp_path / "new")
    assert f"it has its files at {(healthy / 'mlruns').resolve().as_uri()}, from where the project was moved" in problem
    assert not healthy.exists()
    with projects.inside(tmp_path / "new"):
        tracking_client()
    assert not doctor(tmp_path / "new")[0]


def test_doctor_sees_a_store_beside_the_one_that_is_written(healthy, doctor):
    (healthy / "mlflow.db").symlink_to("mlruns/mlflow.db")
    assert not doctor(healthy)[0]
    (healthy / "mlflow.db").unlink()
    shutil.copy(healthy / "mlruns/mlflow.db", healthy / "mlflow.db")
    (problem,), _ = doctor(healthy)
    assert problem.startswith("mlflow.db: is not the store that the stages write")


def test_doctor_sees_a_store_that_is_no_database(healthy, doctor):
    for path in (healthy / "mlruns").glob("mlflow.db*"):
        path.unlink()
    (healthy / "mlruns/mlflow.db").write_text("nothing of the kind, and long enough to be looked at")
    (problem,), _ = doctor(healthy)
    assert "mlflow.db: the tracking store can't be used" in problem


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server of something else; it counts what it was asked."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        self.send_error(503)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Refusing.asked = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_doctor_asks_a_given_server_once(healthy, doctor, server):
    (problem,), lines = doctor(healthy, MLFLOW_TRACKING_URI=server)
    assert problem.startswith(f"{server}: the tracking store can't be used (")
    assert f"tracking store: {server} (MLFLOW_TRACKING_URI)" in lines
    assert Refusing.asked == 1


def test_doctor_names_a_server_that_is_away(healthy, doctor, server):
    address = server.rpartition(":")[0] + ":9"  # nobody listens to port 9, discard
    (problem,), _ = doctor(healthy, MLFLOW_TRACKING_URI=address)
    assert problem.startswith(f"{address}: the tracking store can't be used (")
    assert Refusing.asked == 0


def test_doctor_looks_at_a_database_that_was_given(healthy, doctor, tmp_path):
    (tmp_path / "folder").mkdir()
    (problem,), _ = doctor(healthy, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/folder")
    assert "unable to open database file" in problem
    store = f"sqlite:///{shutil.copy(healthy / 'mlruns/mlflow.db', tmp_path / 'elsewhere.db')}"
    assert not doctor(healthy, MLFLOW_TRACKING_URI=store)[0]


def test_doctor_says_what_is_wrong_with_an_address(healthy, doctor):
    (problem,), _ = doctor(healthy, MLFLOW_TRACKING_URI="http://[::1")
    assert problem.startswith("MLFLOW_TRACKING_URI: expected an address")


def test_doctor_prints_no_password(healthy, doctor, server):
    address = server.replace("http://", "http://user:hush@")
    (problem,), lines = doctor(healthy, MLFLOW_TRACKING_URI=address)
    assert problem.startswith(f"{server.replace('http://', 'http://***@')}: the tracking store can't be used (")
    assert "hush" not in "\n".join(lines)
    assert Refusing.asked == 1


def test_doctor_names_files_that_dvc_cannot_hash(healthy, doctor):
    folder = os.fsencode(healthy / "clips/high")
    os.rename(folder + b"/clip_00.mp4", folder + b"/caf\xe9.mp4")
    problems, _ = doctor(healthy)
    expected = r"data.annotation: 1 names in clips are no UTF-8, and DVC can't hash the folder then (high/caf\xe9.mp4);"
    assert any(problem.startswith(expected) for problem in problems)


def test_doctor_sees_a_virtual_environment_that_was_made_for_another_place(healthy, doctor):
    shutil.rmtree(healthy / "src", ignore_errors=True)
    (healthy / "src/avrecog").mkdir(parents=True)
    problems, lines = doctor(healthy)
    assert not problems
    assert any("not this project's; `rm -rf .venv`, then `make install`" in line for line in lines)
