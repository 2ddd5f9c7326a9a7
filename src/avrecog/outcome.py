"""What a stage has to say when it ends: a line for people, numbers, curves and files for tracking."""

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
