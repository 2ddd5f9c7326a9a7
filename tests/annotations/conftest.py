"""Fixtures of the tests of stage prepare."""

import pytest


@pytest.fixture(autouse=True)
def _in_a_project_of_its_own(project_root):
    """What is read of the media is remembered below the test's own project."""
