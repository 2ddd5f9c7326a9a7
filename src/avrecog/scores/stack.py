"""The score tables of several models as one array."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from avrecog.errors import LeakError, ScoreError
from avrecog.scores.npz import read_scores
from avrecog.scores.table import ScoreTable, join_scores, probabilities


def read_stack(scores_dir: Path, models: Sequence[str], split: str) -> tuple[list[ScoreTable], np.ndarray]:
    """The tables of a split, of the same clips in one order, and their (M, N, K) probabilities, which they share."""
    tables = read_tables(scores_dir, models, split)
    stack = stacked(tables)
    return [replace(table, scores=rows, kind="probabilities") for table, rows in zip(tables, stack, strict=True)], stack


def read_tables(scores_dir: Path, models: Sequence[str], split: str) -> list[ScoreTable]:
    """The models' tables of a split, of the same clips in one order.

    Raises:
        ScoreError: if a table is missing or damaged, or they don't fit together; LeakError if one of another split is
            called so.
    """
    return join_scores([_read_split(scores_dir / model, split) for model in models])


def _read_split(folder: Path, split: str) -> ScoreTable:
    table = read_scores(folder / f"{split}.npz")
    if table.split != split:  # a copied test file would be tuned on
        kind = LeakError if table.split == "test" else ScoreError
        raise kind(f"{folder / split}.npz: expected scores of split {split}, got {table.split}; run stage test")
    return table


def stacked(tables: Sequence[ScoreTable]) -> np.ndarray:
    """The tables' probabilities, (M, N, K) float32."""
    return np.stack([probabilities(table) for table in tables])
