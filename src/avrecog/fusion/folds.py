"""Parts of val for cross-validation."""

from collections.abc import Sequence

import numpy as np


def validation_folds(clip_ids: Sequence[str], labels: np.ndarray, n_folds: int) -> np.ndarray:
    """(N,) fold of each clip, stratified by class, the same whatever the order of clips and classes."""
    first_of_class: dict[int, str] = {}
    for label, clip_id in zip(labels.tolist(), clip_ids, strict=True):
        first_of_class[label] = min(clip_id, first_of_class.get(label, clip_id))
    order = sorted(range(len(clip_ids)), key=lambda row: (first_of_class[int(labels[row])], clip_ids[row]))
    folds = np.empty(len(clip_ids), dtype=np.int64)
    folds[order] = np.arange(len(clip_ids)) % n_folds
    return folds
