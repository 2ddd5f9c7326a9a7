"""Fixtures of the tests of stage prepare."""

import pytest


@pytest.fixture(autouse=True)
def project_root(tmp_path, monkeypatch):
    """The project below which is remembered what was read of the media: this test's own."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    return tmp_path / "project"
