"""How a stage or a command begins and ends: logging, signals, and errors as messages with an exit code."""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from avrecog.errors import AvrecogError

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what CUDA's deterministic algorithms ask for
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a stage as Ctrl-C does."""


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Decorator for a `main`: an AvrecogError becomes its message and exit code 1, a signal a line and 130 or 143."""

    @functools.wraps(main)
    def wrapped() -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        for noisy in ("mlflow", "alembic", "optuna", "matplotlib", "torch", "lightning_fabric", "lightning.fabric"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        previous = signal.signal(signal.SIGTERM, _terminate)
        try:
            main()
        except AvrecogError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(1)
        except KeyboardInterrupt as signalled:
            sys.stderr.write("stopped; the same command goes on from here\n")
            sys.exit(143 if isinstance(signalled, Terminated) else 130)
        finally:
            signal.signal(signal.SIGTERM, previous)

    return wrapped


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated
