"""Fixtures that several test files share."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

import avrecog  # noqa: F401  sets how PyTorch's threads wait, before torch is loaded
import projects
from avrecog.tracking.client import ensure_store
from clips import make_labelled_folder

# no test may depend on how fast the machine is, or what else it does
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _quick_and_quiet():
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C, and
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup this; the tests send them
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real clips, where this machine has one."""
    folder = os.environ.get("AVRECOG_SHARED")
    if not folder:
        pytest.skip("AVRECOG_SHARED is not set: no reference numbers and real clips on this machine")
    return Path(folder)


@pytest.fixture(scope="session")
def tracking_template(tmp_path_factory) -> Path:
    """A tracking store with its tables made: a fresh one costs seconds."""
    root = tmp_path_factory.mktemp("tracking")
    ensure_store(root)
    return root / "mlruns"


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory, tracking_template) -> Path:
    """A project on 48 synthetic clips of 3 classes through which every stage has run. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(tracking_template, folder / "mlruns")
    make_labelled_folder(folder / "clips", ["high", "low", "middle"], 16)
    projects.write_params(folder, projects.SMALL)
    projects.run_all(folder)
    return folder


@pytest.fixture
def project(finished_project, tmp_path) -> Path:
    """A copy of the finished project that the test may change."""
    return projects.copy_project(finished_project, tmp_path / "project")


@pytest.fixture
def project_root(tmp_path, monkeypatch):
    """The project below which is remembered what was read of the media: this test's own."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    return tmp_path / "project"
