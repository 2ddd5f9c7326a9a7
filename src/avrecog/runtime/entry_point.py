"""How a stage or a command begins and ends: logging, signals, and errors as messages with an exit code."""

import atexit
import contextlib
import errno
import functools
import gc
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from avrecog.errors import AvrecogError

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar for each file of a few KB
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a store that is away is tried again later
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what CUDA's deterministic algorithms ask for
}

NOT_WRITABLE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit (`ulimit -f`)",
    errno.EROFS: "work in a folder that can be written",
    errno.EACCES: "work in a folder that can be written",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGHUP of a lost connection, which end a stage as Ctrl-C does."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def entry_point(main: Callable[[], None]) -> Callable[[], None]:
    """Decorator for a `main`: an AvrecogError becomes its message and exit code, a signal 128 + its number.

    A disk that is full or can't be written becomes a message too.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        atexit.register(gc.freeze)  # at its end Python would look through all that PyTorch and MLflow have made (0.7 s)
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # what the terminal can't show is escaped
                stream.reconfigure(errors="backslashreplace")
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        for noisy in ("mlflow", "alembic", "optuna", "matplotlib", "torch", "lightning_fabric", "lightning.fabric"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # a CUDA toolkit and no GPU
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        for number, handler in previous.items():
            if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, _terminate)
        try:
            main()
        except AvrecogError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
        except OSError as error:
            if error.errno not in NOT_WRITABLE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            advice = NOT_WRITABLE[error.errno]
            sys.stderr.write(f"error: {where}can't be written ({error.strerror}); {advice} and run the same command\n")
            sys.exit(1)
        except KeyboardInterrupt as signalled:
            sys.stderr.write("stopped; the same command goes on from here\n")
            sys.exit(128 + (signalled.signum if isinstance(signalled, Terminated) else signal.SIGINT))
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    return wrapped


@contextlib.contextmanager
def kept_log() -> Iterator[io.StringIO]:
    """What is logged within the block, as text."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield text
    finally:
        root.removeHandler(handler)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated(signum)
