"""One trial as an experiment of dvc in a folder of its own: `dvc exp run --temp --name NAME -S KEY=VALUE train@MODEL`.

What was found out by trying (dvc 3.67): Ctrl-C to its process group ends the stage in good order and removes the
temporary folder; SIGTERM ends dvc at once, and leaves the stage and the folder. Its experiments pass through one git
stash that all dvc processes of a project share, and a process that has ended its own takes what it finds there next: so
one begins at a time here, and one that took another's experiment is stopped, to be begun again by its owner.
"""

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from avrecog.errors import ConfigError, TrainingError
from avrecog.experiments.sweep.tracking import validation_curve
from avrecog.runtime.files import file_lock
from avrecog.tracking.history import EpochMetrics, ranking_key, read_history

log = logging.getLogger(__name__)

POLL_S = 0.5
STOP_WITHIN_S = 30  # the stage ends in 5, then dvc removes its folder
ATTEMPTS = 5  # to begin a trial that another dvc process took, or that met a lock

# Ends a process group once this process has ended, however it did: then its end of the pipe is closed.
WATCH = f'read -r _; kill -INT -- "-$0"; sleep {STOP_WITHIN_S}; kill -KILL -- "-$0"'


class Trial(Protocol):
    """A training that runs elsewhere."""

    def ended(self) -> bool:
        """Whether it has, well or not."""

    def curve(self) -> list[tuple[int, float]]:
        """The validations until now: epoch and value."""

    def value(self) -> float:
        """The objective's value after its end; raises a TrainingError where it failed."""

    def stop(self) -> None:
        """End it in good order; nothing where it has ended."""


class DvcTrial:
    """A trial that is run by dvc."""

    def __init__(
        self, name: str, values: Mapping[str, Any], objective: str, folder: Path, check: Callable[[], None]
    ) -> None:
        """Begin it; returns once dvc has made the experiment.

        Args:
            name: of the experiment.
            values: by dotted path in params.yaml.
            objective: `<model>.val_top1` or `<model>.val_loss`.
            folder: for its log, and the lock of those that begin.
            check: called while no experiment is being made, which changes the working folder for a moment.

        Raises:
            TrainingError: if dvc can't begin it.
        """
        self.name, self._lock, self._check = name, folder / ".begin.lock", check
        self._model, _, self._metric = objective.rpartition(".")
        self._log = folder / f"{name}.txt"
        settings = [f"{key}={hydra_value(value)}" for key, value in values.items()]
        options = [part for setting in settings for part in ("-S", setting)]
        self._command = ["exp", "run", "--temp", "--name", name, *options, f"train@{self._model}"]
        self._attempts = 0
        self._begin()

    def _begin(self) -> None:
        self._attempts += 1
        with file_lock(self._lock):
            self._check()
            with self._log.open("wb") as file:
                self._process = _in_own_group(["dvc", "--wait-for-lock", *self._command], file)
            self._watcher = subprocess.Popen(
                ["sh", "-c", WATCH, str(self._process.pid)],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                while not self._begun() and self._process.poll() is None:
                    time.sleep(POLL_S)
            except BaseException:
                self.stop()
                raise

    def _begun(self) -> list[str]:
        """The experiments that this dvc process has begun: its own, and then perhaps one that it took."""
        return re.findall(r"^Reproducing experiment '(.+)'$", self._output(), re.MULTILINE)

    def _output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ended(self) -> bool:
        """Whether it has, well or not; a start that went wrong is tried again."""
        begun = self._begun()
        if begun[:1] == [self.name]:
            if len(begun) > 1:
                log.info("%s: its dvc process took %s too; stopped there", self.name, begun[1])
                self.stop()
            if self._process.poll() is None:
                return False
        elif begun:
            log.info("%s: its dvc process took %s instead; begun again", self.name, begun[0])
            self.stop()
        elif self._process.poll() is None:
            return False
        self._release()
        if self._made_it() or self._attempts >= ATTEMPTS or not self._may_try_again(begun):
            return True
        time.sleep(self._attempts)
        self._begin()
        return False

    def _made_it(self) -> bool:
        return self._begun()[:1] == [self.name] and self._is_saved()

    def _is_saved(self) -> bool:
        names = subprocess.run(
            ["git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{self.name}"],
            capture_output=True,
            text=True,
            check=False,
        )
        return bool(names.stdout.strip())

    def _may_try_again(self, begun: list[str]) -> bool:
        """Whether another process was in the way, not the pipeline."""
        if begun[:1] != [self.name] and self._process.returncode == 0:
            return True
        if begun[:1] not in ([], [self.name]):
            return True
        return "Unable to acquire lock" in self._output() or "is busy, it is being blocked by" in self._output()

    def curve(self) -> list[tuple[int, float]]:
        """The validations until now, from the tracking store."""
        return validation_curve(self.name, self._metric)

    def value(self) -> float:
        """That of the epoch that is kept as best.ckpt, from the experiment's own history.csv.

        dvc may have had the training in its cache and run nothing, so that the tracking store has no run of it.

        Raises:
            TrainingError: if the pipeline failed.
        """
        if not self._made_it():
            raise TrainingError(f"{self.name}: {_reason(self._output())} ({self._log})")
        history = f"models/{self._model}/history.csv"
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "history.csv"
            got = subprocess.run(
                ["dvc", "--wait-for-lock", "get", ".", history, "--rev", self.name, "-o", str(copy)],
                env=_environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            if got.returncode:
                raise TrainingError(f"{self.name}: {history} can't be read: {_reason(got.stderr)}")
            value = best_value(read_history(copy), self._metric)
        self._log.unlink()
        return value

    def stop(self) -> None:
        """Ctrl-C for dvc and its stage; what doesn't heed it is killed and its folder removed."""
        if self._process.poll() is None:
            _signal_group(self._process.pid, signal.SIGINT)
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                folders = _folders(self._process.pid)
                _signal_group(self._process.pid, signal.SIGKILL)
                self._process.wait()
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        """End the watcher, and a stage that outlived a dvc that was killed."""
        if (self._process.returncode or 0) < 0:
            _signal_group(self._process.pid, signal.SIGKILL)
        self._watcher.kill()
        self._watcher.communicate()


def best_value(history: list[EpochMetrics], metric: str) -> float:
    """`metric` at the epoch that is kept as best.ckpt.

    Raises:
        TrainingError: if no epoch was validated.
    """
    validated = [row for row in history if "val_top1" in row]
    if not validated:
        raise TrainingError("no epoch was validated")
    return max(validated, key=ranking_key)[metric]


def hydra_value(value: Any) -> str:
    """A value as `dvc exp run -S` reads it, in Hydra's grammar: text is quoted, so that it stays text."""
    if isinstance(value, str):
        escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
        escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
        return f"'{escaped}'"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return repr(value)


def check_repository() -> None:
    """See that dvc can make experiments here.

    Raises:
        ConfigError: if there is no git repository, or one without a commit.
    """
    try:
        found = subprocess.run(["git", "rev-parse", "--verify", "-q", "HEAD"], capture_output=True, check=False)
    except OSError:
        raise ConfigError("git is not installed; dvc keeps experiments in it") from None
    if found.returncode:
        raise ConfigError(
            "expected a git repository with a commit, in which dvc keeps experiments, got none; run `git init`, "
            "`git add -A` and `git commit -m begin`"
        )


def _environment() -> dict[str, str]:
    """Variables for dvc: it and the stages' python are those beside this one, and no experiment is around it."""
    others = ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
    own = {key: value for key, value in os.environ.items() if key not in others}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', os.defpath)}"
    return {**own, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def _in_own_group(command: list[str], output: Any) -> "subprocess.Popen[bytes]":
    """Start a process that heeds SIGINT, even where this one, started with `&` by a script, ignores it.

    Raises:
        TrainingError: if the command is not there.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise TrainingError(f"{command[0]} can't be started ({error.strerror}); run `make install`") from None
    finally:
        signal.signal(signal.SIGINT, before)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(group, number)


def _folders(pid: int) -> set[Path]:
    """The temporary folders of dvc that a process and those below it work in."""
    import psutil

    parent = Path(".dvc/tmp/exps/standalone").resolve()
    found: set[Path] = set()
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                here = Path(each.cwd())
                found |= {folder for folder in (here, *here.parents) if folder.parent == parent}
    except psutil.NoSuchProcess:
        return found
    return found


def _reason(text: str) -> str:
    """The line of a log that says what went wrong: the stage's own error, or else the last."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    lines = errors or [line for line in lines if line.startswith("ERROR: ")] or lines or ["dvc said nothing"]
    return lines[-1].removeprefix("error: ").removeprefix("ERROR: ")[:500]
