"""The score tables of several models as one array."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from avrecog.errors import LeakError, ScoreError
from avrecog.scores.npz import read_scores
from avrecog.scores.table import ScoreTable, join_scores, probabilities


@dataclass(frozen=True, eq=False)
class ScoreStack:
    """The probabilities that M models give K classes on the same N clips of a split."""

    tables: list[ScoreTable]  # one a model, with the probabilities as their scores
    probabilities: np.ndarray  # (M, N, K) float32

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 in [0, K)."""
        return self.tables[0].labels

    @property
    def clip_ids(self) -> np.ndarray:
        """(N,) names of the clips."""
        return self.tables[0].clip_ids

    @property
    def classes(self) -> tuple[str, ...]:
        """The K names."""
        return self.tables[0].classes

    @property
    def n_left_out(self) -> dict[str, int]:
        """How many clips each model could not score, for the models that lack some; none of these clips is here."""
        return {table.model: len(table.left_out) for table in self.tables if len(table.left_out)}


def read_stack(scores_dir: Path, models: Sequence[str], split: str) -> ScoreStack:
    """The models' scores of a split, of the same clips in one order; the tables share the memory of the stack.

    Raises:
        ScoreError: if a table is missing or damaged, or they don't fit together; LeakError if one of another split is
            called so.
    """
    tables = read_tables(scores_dir, models, split)
    stack = stack_probabilities(tables)
    shared = [replace(table, scores=rows, kind="probabilities") for table, rows in zip(tables, stack, strict=True)]
    return ScoreStack(shared, stack)


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


def stack_probabilities(tables: Sequence[ScoreTable]) -> np.ndarray:
    """The tables' probabilities, (M, N, K) float32."""
    return np.stack([probabilities(table) for table in tables])
