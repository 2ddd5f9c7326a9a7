"""Score files: what a model said about every clip of a split, and joining several by clip id.

N clips, K classes. A ScoreTable that exists is valid: its constructor checks it, so nothing after needs to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from avrecog.errors import ScoreError

Kind = Literal["logits", "probabilities"]
Split = Literal["train", "val", "test"]
SUM_TOLERANCE = 1e-3  # how far a row of probabilities may be from a sum of 1: float16 on the way costs this much


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """What one model said about every clip of one split.

    Raises:
        ScoreError: if shapes, types, labels, ids or values don't fit together; the message says which.
    """

    clip_ids: np.ndarray  # (N,) str, each once
    labels: np.ndarray  # (N,) int64 in [0, K)
    scores: np.ndarray  # (N, K) float32, finite
    classes: tuple[str, ...]  # K names
    kind: Kind
    model: str
    split: Split
    left_out: np.ndarray = field(default_factory=lambda: np.zeros(0, "U1"))  # (M,) str: clips it could not score

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise ScoreError(problem)


def join_scores(tables: Sequence[ScoreTable]) -> list[ScoreTable]:
    """The tables with their rows in the first one's order, so that row i is the same clip in all.

    A clip that some table says it left out (it has no sound, or no picture) is left out of all.

    Raises:
        ScoreError: if there is no table, if splits, classes, clip ids or labels differ (names the first difference), or
            if no clip is in all tables.
    """
    if not tables:
        raise ScoreError("expected at least one score table, got none")
    left_out = np.unique(np.concatenate([table.left_out for table in tables]))
    first, *others = (_without(table, left_out) for table in tables)
    return [first, *(_in_order_of(first, table) for table in others)]


def probabilities(table: ScoreTable) -> np.ndarray:
    """(N, K) float32 probabilities: the scores themselves, or the softmax of logits."""
    if table.kind == "probabilities":
        return table.scores
    shifted = table.scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted, out=shifted)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def _problem(table: ScoreTable) -> str | None:
    """The first thing that is wrong with a table; later checks lean on earlier ones."""
    n_classes = len(table.classes)
    ids, labels, scores = table.clip_ids, table.labels, table.scores
    if scores.ndim != 2 or scores.dtype != np.float32 or scores.shape[1] != n_classes:
        return f"scores: expected (clips, {n_classes} classes) float32, got {_described(scores)}"
    n_clips = len(scores)
    if n_clips == 0 or n_classes == 0:
        return f"scores: expected at least one clip and one class, got {n_clips} clips and {n_classes} classes"
    if ids.shape != (n_clips,) or ids.dtype.kind != "U":
        return f"clip_id: expected ({n_clips},) text, got {_described(ids)}"
    if labels.shape != (n_clips,) or labels.dtype != np.int64:
        return f"label: expected ({n_clips},) int64, got {_described(labels)}"
    if len(set(table.classes)) < n_classes:
        return f"classes: {_first_doubled(np.array(table.classes))!r} is there twice"
    if table.kind not in get_args(Kind):
        return f"kind: expected logits or probabilities, got {table.kind!r}"
    if table.split not in get_args(Split):
        return f"split: expected train, val or test, got {table.split!r}"
    if not table.model:
        return "model: expected a name, got empty text"
    if table.left_out.ndim != 1 or table.left_out.dtype.kind != "U":
        return f"left_out: expected a list of clip ids, got {_described(table.left_out)}"
    both = ids[np.isin(ids, table.left_out)]
    if len(both):
        return f"left_out: {_named(both)} scored and left out"
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < n_clips:
        return f"clip_id: {_named(unique[counts > 1])} there more than once"
    outside = (labels < 0) | (labels >= n_classes)
    if outside.any():
        row = int(outside.argmax())
        return f"label: expected 0 to {n_classes - 1}, got {labels[row]} for clip {str(ids[row])!r}"
    broken = ~np.isfinite(scores).all(axis=1)
    if broken.any():
        return f"scores: expected finite numbers, NaN or infinity for {_named(ids[broken], verb=False)}"
    if table.kind == "probabilities":
        sums = scores.sum(axis=1, dtype=np.float64)
        wrong = (np.abs(sums - 1) > SUM_TOLERANCE) | (scores.min(axis=1) < 0)
        if wrong.any():
            row = int(wrong.argmax())
            return (
                f"scores: expected probabilities (0 or more, sum 1), got sum {sums[row]:.6g}, least "
                f"{scores[row].min():g} for clip {str(ids[row])!r}; if they are logits, say so in `kind`"
            )
    return None


def _without(table: ScoreTable, clip_ids: np.ndarray) -> ScoreTable:
    """The table without the rows of some clips.

    Raises:
        ScoreError: if none is left.
    """
    kept = ~np.isin(table.clip_ids, clip_ids)
    if kept.all():
        return table
    if not kept.any():
        raise ScoreError(
            f"the models have no clip of split {table.split} in common: each left out what another scored; fuse models "
            f"that use the same clips"
        )
    return replace(table, clip_ids=table.clip_ids[kept], labels=table.labels[kept], scores=table.scores[kept])


def _in_order_of(first: ScoreTable, table: ScoreTable) -> ScoreTable:
    one, other = f"{first.model} ({first.split})", f"{table.model} ({table.split})"
    if table.split != first.split:
        raise ScoreError(f"score files are of different splits: {one} and {other}; join files of one split")
    if table.classes != first.classes:
        raise ScoreError(f"{one} and {other} know different classes: {_class_difference(first.classes, table.classes)}")
    for has, lacks, ids, others in (
        (one, other, first.clip_ids, table.clip_ids),
        (other, one, table.clip_ids, first.clip_ids),
    ):
        missing = ids[~np.isin(ids, others)]
        if len(missing):
            raise ScoreError(
                f"{_named(missing)} in the scores of {has} but not of {lacks}; "
                "run stage test for both on the same clips"
            )
    order = np.argsort(table.clip_ids)
    order = order[np.searchsorted(table.clip_ids, first.clip_ids, sorter=order)]
    labels = table.labels[order]
    differ = labels != first.labels
    if differ.any():
        row = int(differ.argmax())
        raise ScoreError(
            f"clip {str(first.clip_ids[row])!r} is {first.classes[first.labels[row]]!r} for {one} but "
            f"{first.classes[labels[row]]!r} for {other} ({np.count_nonzero(differ)} clips differ); score both anew"
        )
    return replace(table, clip_ids=first.clip_ids, labels=labels, scores=table.scores[order])


def _class_difference(one: Sequence[str], other: Sequence[str]) -> str:
    for index, (a, b) in enumerate(zip(one, other)):  # noqa: B905  lists of unequal length are told below
        if a != b:
            return f"class {index} is {a!r} and {b!r}"
    return f"{len(one)} and {len(other)} of them"


def _named(ids: np.ndarray, verb: bool = True) -> str:
    more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    return f"clip {str(ids[0])!r}{more}" + ((" are" if more else " is") if verb else "")


def _first_doubled(names: np.ndarray) -> str:
    unique, counts = np.unique(names, return_counts=True)
    return str(unique[counts > 1][0])


def _described(array: np.ndarray) -> str:
    return f"shape {array.shape} {array.dtype}"
