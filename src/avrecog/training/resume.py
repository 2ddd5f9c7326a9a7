"""A training that can be stopped anywhere and taken up again: what is written when, and when it is gone on with."""

import hashlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from avrecog.errors import CheckpointError, DivergedError, TrainingError
from avrecog.models.checkpoint import load_checkpoint, save_checkpoint
from avrecog.tracking.history import EpochMetrics, ranking_key, write_history
from avrecog.training.loop import Control, Trainer
from avrecog.training.settings import TrainConfig
from avrecog.training.signals import StopSignals

log = logging.getLogger(__name__)

SAVE_EVERY_S = 600  # within an epoch

STATE = {"digest", "code", "best", "seconds", "ended", "steps_done", "sums"}  # a state must have these at least


class Session(Control):
    """One training from its beginning to its end, over as many processes' lives as it takes.

    All of torchrun's processes have one; the first one reads and writes.
    """

    def __init__(
        self,
        trainer: Trainer,
        config: TrainConfig,
        out: Path,
        *,
        description: Mapping[str, Any],
        digest: str,
        signals: StopSignals,
        log_epoch: Callable[[int, EpochMetrics], None],
    ) -> None:
        """Bring the trainer to where a stopped training of the same digest was; anything else in `out` is removed.

        Args:
            trainer: of the model, at its beginning.
            config: what is in force.
            out: the folder of the checkpoints.
            description: what every checkpoint says of the model.
            digest: of all that the training hangs on.
            signals: asked whether to stop.
            log_epoch: called with the step and the numbers of each epoch.
        """
        self._began, self._saved_at = time.perf_counter(), time.monotonic()
        self._trainer, self._config, self._out, self._description = trainer, config, out, description
        self._digest, self._signals, self._log_epoch = digest, signals, log_epoch
        self._limit_s = math.inf if config.max_hours is None else config.max_hours * 3600
        self._writes = trainer.processes.is_main
        self._code, self._code_before = _code_digest(), ""
        self._best, self._seconds_before = (-1.0, 0.0), 0.0
        state = trainer.processes.broadcast(self._load_resumable_state() if self._writes else None)
        if state is not None:
            self._resume(state)
        self.first_epoch = trainer.epochs_done

    @property
    def code_changed(self) -> bool:
        """Whether the source files have changed since the training began."""
        return self._code_before not in ("", self._code)

    @property
    def seconds(self) -> float:
        """Spent on the training so far, restarts included."""
        return self._seconds_before + time.perf_counter() - self._began

    def should_stop(self) -> bool:
        """After a signal, or at `train.max_hours`."""
        return self._signals.received is not None or self.seconds > self._limit_s

    def should_save(self) -> bool:
        """When nothing was saved for ten minutes."""
        return self._writes and time.monotonic() - self._saved_at > SAVE_EVERY_S

    def save(self) -> None:
        """Write the state into `last.ckpt`."""
        self._write(self._out / "last.ckpt", with_state=True)

    def after_epoch(self, row: EpochMetrics) -> None:
        """Write what an epoch changes: the history, `last.ckpt`, and `best.ckpt` if it is the best so far."""
        if not self._writes:
            return
        if "val_top1" in row and ranking_key(row) > self._best:
            self._best = ranking_key(row)
            self._write(self._out / "best.ckpt", with_state=False)
        write_history(self._out / "history.csv", self._trainer.history)
        self._write(self._out / "last.ckpt", with_state=self._trainer.epochs_done < self._config.epochs)
        self._log_epoch(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})

    def stopped(self) -> None:
        """Save the state of a training that was told to stop; then do what a signal asks for, if there was one."""
        self._signals.hold()
        received = [
            number for number in self._trainer.processes.all_gather(self._signals.received) if number is not None
        ]
        self._write(self._out / "last.ckpt", with_state=True, ended=not received)
        log.info(
            "%s: stopped after epoch %d, step %d; saved", self._out, self._trainer.epochs_done, self._trainer.steps_done
        )
        if received:
            self._signals.act(received[0])

    def diverged(self, error: DivergedError) -> TrainingError:
        """Save the state as it is now, beside the checkpoints; the error that says where."""
        path = self._out.with_name(f"{self._out.name}.diverged.ckpt")
        self._write(path, with_state=True)
        kept = f", that of the last whole epoch in {self._out}/last.ckpt" if self._trainer.history else ""
        return TrainingError(f"{error}; the state at that moment is in {path}{kept}")

    def _write(self, path: Path, with_state: bool, ended: bool = False) -> None:
        self._saved_at = time.monotonic()
        if not self._writes:
            return
        trainer = self._trainer
        content: dict[str, Any] = {
            **self._description,
            "weights": trainer.evaluated_weights(),
            "epoch": trainer.epochs_done,
            "metrics": dict(trainer.history[-1]) if trainer.history else {},
        }
        if with_state:
            content["state"] = {
                **trainer.state(),
                "digest": self._digest,
                "code": self._code_before or self._code,
                "best": list(self._best),
                "seconds": self.seconds,
                "ended": ended,  # at max_hours
            }
        save_checkpoint(path, content)

    def _resume(self, state: Mapping[str, Any]) -> None:
        self._trainer.load_state(state)
        self._code_before, self._seconds_before = state["code"], state["seconds"]
        best_top1, best_loss = state["best"]
        self._best = (best_top1, best_loss)
        epoch, step = self._trainer.epochs_done, self._trainer.steps_done
        log.info("%s: going on after epoch %d, step %d", self._out, epoch, step)
        if self.code_changed:
            log.warning("%s: the code has changed since this training began", self._out)

    def _load_resumable_state(self) -> dict[str, Any] | None:
        """The state in the folder; or None and an empty folder, with a word why."""
        if (self._out / "last.ckpt").exists():
            reason = ""
            state: dict[str, Any] = {}
            try:
                state = load_checkpoint(self._out / "last.ckpt").get("state", {})
                if not state:
                    reason = "it was finished"
                elif STATE - state.keys():
                    reason = "another version of avrecog wrote it"
                elif state["digest"] != self._digest:
                    reason = "its parameters or data were others"
                elif state["ended"] and state["seconds"] >= self._limit_s:
                    reason = "it had ended at train.max_hours"
            except CheckpointError as error:
                reason = str(error)
            if not reason:
                return state
            log.info("%s: the training there is not gone on with: %s; begun anew", self._out, reason)
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir(parents=True)
        return None


def _code_digest() -> str:
    """Of the library's own source files."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
