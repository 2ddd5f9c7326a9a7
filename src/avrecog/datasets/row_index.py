"""The rows of clips in a store, for datasets whose clips need not all be there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avrecog.features.store import ClipRows


@dataclass(frozen=True)
class Rows:
    """Where the rows of N clips lie; a clip that isn't there has none."""

    values: np.ndarray  # (all rows, *row_shape)
    start: np.ndarray  # (N,) int64
    n_rows: np.ndarray  # (N,) int64, 0 where the clip isn't there

    @classmethod
    def of(cls, store: ClipRows, clip_ids: Sequence[str]) -> "Rows":
        """The rows of these clips."""
        there = np.array([clip_id in store for clip_id in clip_ids], dtype=bool)
        start, n_rows = np.zeros(len(clip_ids), np.int64), np.zeros(len(clip_ids), np.int64)
        positions = store.positions([clip_id for clip_id, is_there in zip(clip_ids, there, strict=True) if is_there])
        start[there], n_rows[there] = store.start[positions], store.n_rows[positions]
        return cls(store.values, start, n_rows)

    def take(self, indices: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows `inside` (B, T) of the clips `indices` (B,), and (B, T) true where the clip has such a row.

        Where it hasn't, its nearest row stands, or a row of zeros if the clip has none.
        """
        n_rows = self.n_rows[indices, None]
        within = (inside >= 0) & (inside < n_rows)
        if not len(self.values):
            return np.zeros((*inside.shape, *self.values.shape[1:]), self.values.dtype), within
        row = np.where(n_rows > 0, self.start[indices, None] + np.clip(inside, 0, n_rows - 1), 0)
        values = self.values[row]
        if (n_rows == 0).any():
            values[n_rows[:, 0] == 0] = 0
        return values, within
