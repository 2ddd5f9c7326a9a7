"""Waiting for what happens in other processes, however slow the machine is."""

import time
from collections.abc import Callable
from typing import Any

HANGS_S = 3600  # what takes so long hangs; no other limit in time stands in a test


def wait_until(condition: Callable[[], Any], alive: Callable[[], Any] = lambda: True) -> None:
    """Wait for a condition, as long as that on which it hangs is alive."""
    began = time.monotonic()
    while not condition():
        assert alive() or condition(), "has ended before"
        assert time.monotonic() - began < HANGS_S, "hangs"
        time.sleep(0.02)
