"""`history.csv`: a row of numbers for each epoch of a training."""

import csv
from collections.abc import Sequence
from pathlib import Path

from avrecog.errors import CheckpointError
from avrecog.runtime.files import atomic_path

EpochMetrics = dict[str, float]

COLUMNS = ("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1")


def ranking_key(row: EpochMetrics) -> tuple[float, float]:
    """What makes an epoch that was validated the best: its val top-1, then the lower loss."""
    return row["val_top1"], -row["val_loss"]


def write_history(path: Path, history: Sequence[EpochMetrics]) -> None:
    """Write the rows as CSV, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})


def read_history(path: Path) -> list[EpochMetrics]:
    """The rows of a `history.csv`; an epoch that was not validated lacks the val columns.

    Raises:
        CheckpointError: if the file is missing or not a history.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: no training history ({error}); run `dvc repro train`") from None
