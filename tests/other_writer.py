"""A process of its own that holds the lock of a folder, as a second training would."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import avrecog

HOLD = """
import sys
from pathlib import Path
from avrecog.runtime.files import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("holding", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def other_writer(folder: Path) -> Iterator[subprocess.Popen]:
    """The process; it ends when a line is sent to it, when it is killed, or with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(avrecog.__file__).parent.parent)},
    )
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.communicate()
