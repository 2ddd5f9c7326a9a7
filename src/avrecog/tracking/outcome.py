"""What a stage has to say when it ends: a line for people, numbers, curves and files for tracking."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """The result of a stage."""

    summary: str  # one line for people, without the stage's name
    metrics: dict[str, float | None]  # None where there is nothing to measure (GPU memory without a GPU)
    curves: Sequence[tuple[int, dict[str, float]]] = ()  # (step, numbers) of a search or a training
    files: Sequence[Path] = ()  # small files that tracking keeps: pictures, tables
    manifest: Path | None = None  # where this was made: tracking keeps it as a dataset with its digest
    facts: dict[str, str] = field(default_factory=dict)  # words that tracking keeps as tags


def enough_skipped(n_skipped: int, n_clips: int) -> float:
    """The smallest `data.max_skipped`, of three decimals, that lets so many clips be skipped."""
    thousandths = math.ceil(1000 * n_skipped / n_clips)
    while thousandths / 1000 * n_clips < n_skipped:  # 0.29 of 100 is a little less than 29
        thousandths += 1
    return min(thousandths / 1000, 1.0)


def format_skipped(n_skipped: int, n_clips: int, max_skipped: float, done: str) -> str:
    """Why a stage ends where too many clips can't be `done`, and what to do."""
    advice = "repair or drop them"
    if n_skipped < n_clips:
        advice += f", or set data.max_skipped: {enough_skipped(n_skipped, n_clips):g} to go on without them"
    return (
        f"{n_skipped} of {n_clips} clips can't be {done}, more than data.max_skipped ({max_skipped:g}) allows; {advice}"
    )


def placed(where: str, reason: str) -> str:
    """Where something is wrong, and what; a reason that names the place itself stands alone."""
    return reason if reason.startswith(where) else f"{where}: {reason}"
