"""Numbers that say how good clip scores are: arrays in, numbers out.

N clips, K classes. `scores` is (N, K), higher is likelier, logits or probabilities alike; `probabilities` is (N, K) in
[0, 1]; `labels` is (N,) whole numbers in [0, K); `correct` is (N,) booleans, one a clip. Every function that takes
scores refuses, with a ScoreError that says where, NaN and infinity, shapes that don't fit, and labels out of range.

Ties: a class with the same score as the true class but a lower index ranks above it, so results are the same on every
machine, the top-1 class is `argmax`, and a constant output scores what a constant guess deserves. (MMAction2 breaks
ties by numpy's unstable sort, where mostly the higher index wins.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avrecog.errors import ScoreError

MIN_PROBABILITY = 1e-12  # below this a true class costs no more in the log-loss


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """How often the top class was right, by how sure the model was of it; B bins of equal width over [0, 1]."""

    edges: np.ndarray  # (B + 1,) from 0 to 1
    n_clips: np.ndarray  # (B,) clips whose confidence lies in (edge, next edge]
    confidence: np.ndarray  # (B,) mean confidence in the bin; NaN where it has no clip
    accuracy: np.ndarray  # (B,) share of them that were right; NaN where it has no clip


def true_class_rank(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes rank above the true one: those with a higher score, and ties at a lower index.

    Returns: (N,) int64 in [0, K); 0 where the true class is on top.
    """
    scores, labels = _checked(scores, labels)
    own = scores[np.arange(len(labels)), labels][:, None]
    ties_before = (scores == own) & (np.arange(scores.shape[1]) < labels[:, None])
    return np.count_nonzero((scores > own) | ties_before, axis=1)


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The share of clips whose true class is among the top-min(k, K), in [0, 1].

    Raises:
        ValueError: if k is below 1.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}")
    return float(np.mean(true_class_rank(scores, labels) < k))


def correct_clips(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) booleans: the top class is the true one."""
    return true_class_rank(scores, labels) == 0


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean over classes of the share of a class's clips that were recognised, in [0, 1].

    Only classes that occur in `labels` count (scikit-learn's balanced accuracy). MMAction2 also counts, as 0, a class
    that is predicted but doesn't occur.
    """
    matrix = confusion_matrix(scores, labels)
    per_class = matrix.sum(axis=1)
    return float(np.mean(matrix.diagonal()[per_class > 0] / per_class[per_class > 0]))


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Clips by true class (row) and top class (column): (K, K) int64."""
    scores, labels = _checked(scores, labels)
    n_classes = scores.shape[1]
    pairs = np.bincount(labels * n_classes + scores.argmax(axis=1), minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


def per_class_table(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One row a class: `class, n_clips, top1, precision, most_confused_with`.

    `top1` is None for a class without clips, `precision` for one never predicted, `most_confused_with` (the wrong class
    that most of its clips were given; the first of several) where nothing went wrong.

    Raises:
        ScoreError: if there isn't one name a class.
    """
    matrix = confusion_matrix(scores, labels)
    if len(classes) != len(matrix):
        raise ScoreError(f"classes: expected {len(matrix)} names, one a column of the scores, got {len(classes)}")
    predicted = matrix.sum(axis=0)
    rows = []
    for index, name in enumerate(classes):
        n_clips, hits = int(matrix[index].sum()), int(matrix[index, index])
        wrong = matrix[index].copy()
        wrong[index] = 0
        rows.append(
            {
                "class": name,
                "n_clips": n_clips,
                "top1": hits / n_clips if n_clips else None,
                "precision": hits / int(predicted[index]) if predicted[index] else None,
                "most_confused_with": classes[int(wrong.argmax())] if wrong.any() else None,
            }
        )
    return rows


def reliability_bins(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = 15) -> ReliabilityBins:
    """Confidence (the top probability) against accuracy, in bins of equal width.

    Raises:
        ValueError: if n_bins is below 1.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins: expected at least 1, got {n_bins}")
    probabilities, labels = _checked(probabilities, labels)
    _check_probabilities(probabilities)
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    n_clips = np.bincount(index, minlength=n_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin is the NaN that we promise
        return ReliabilityBins(
            edges=np.linspace(0, 1, n_bins + 1),
            n_clips=n_clips,
            confidence=np.bincount(index, weights=confidence, minlength=n_bins) / n_clips,
            accuracy=np.bincount(index, weights=correct, minlength=n_bins) / n_clips,
        )


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = 15) -> float:
    """How far confidence is from accuracy: the mean distance over the bins, weighted by their clips, in [0, 1].

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3.
    """
    bins = reliability_bins(probabilities, labels, n_bins)
    filled = bins.n_clips > 0
    distance = np.abs(bins.accuracy[filled] - bins.confidence[filled])
    return float(np.average(distance, weights=bins.n_clips[filled]))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of -ln(probability of the true class), in nats; a probability below 1e-12 counts as 1e-12."""
    probabilities, labels = _checked(probabilities, labels)
    _check_probabilities(probabilities)
    return mean_negative_log(probabilities[np.arange(len(labels)), labels])


def mean_negative_log(true_class_probabilities: np.ndarray) -> float:
    """The log-loss of (N,) probabilities of the true classes."""
    return float(-np.log(np.maximum(true_class_probabilities.astype(np.float64), MIN_PROBABILITY)).mean())


def classification_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`top1, top5, mean_class_accuracy, calibration_error, log_loss, n_clips`."""
    rank = true_class_rank(probabilities, labels)
    return {
        "top1": float(np.mean(rank < 1)),
        "top5": float(np.mean(rank < 5)),
        "mean_class_accuracy": mean_class_accuracy(probabilities, labels),
        "calibration_error": expected_calibration_error(probabilities, labels),
        "log_loss": log_loss(probabilities, labels),
        "n_clips": len(rank),
    }


def bootstrap_gain(
    correct_a: np.ndarray, correct_b: np.ndarray, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of mean(a) - mean(b) under resampling of the clips (percentiles of the paired bootstrap).

    A clip's difference is -1, 0 or 1, so a resample is one multinomial draw of how many of each: the same distribution
    as drawing N clips with replacement, at a cost that doesn't grow with N.

    Returns: (low, high), each in [-1, 1].

    Raises:
        ValueError: if n_resamples is below 1.
    """
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, got {n_resamples}")
    a, b = _checked_pair(correct_a, correct_b)
    difference = a.astype(np.int64) - b.astype(np.int64)
    return _interval_of_mean(np.array([-1, 0, 1]), np.bincount(difference + 1, minlength=3), n_resamples, seed)


def bootstrap_difference(
    values_a: np.ndarray, values_b: np.ndarray, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of mean(a) - mean(b) as `bootstrap_gain` gives it, for (N,) numbers in place of booleans: the
    share of several runs that were right about a clip.

    Returns: (low, high).

    Raises:
        ScoreError: if they don't pair up, or aren't finite numbers.
        ValueError: if n_resamples is below 1.
    """
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, got {n_resamples}")
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    _check_lengths(a, b)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ScoreError("values: expected finite numbers, one a clip")
    values, counts = np.unique(np.round(a - b, 12), return_counts=True)  # 1/3 + 1/3 - 2/3 is nothing but rounding
    return _interval_of_mean(values, counts, n_resamples, seed)


def _interval_of_mean(values: np.ndarray, counts: np.ndarray, n_resamples: int, seed: int) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of the mean of clips drawn with replacement; `counts` clips have each of the values."""
    n_clips = int(counts.sum())
    draws = np.random.default_rng(seed).multinomial(n_clips, counts / n_clips, size=n_resamples)
    low, high = np.percentile(draws @ values / n_clips, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_interval(correct: np.ndarray, n_resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of mean(correct) under resampling of the clips: (low, high), each in [0, 1]."""
    return bootstrap_gain(correct, np.zeros_like(correct), n_resamples, seed)


def mcnemar_exact(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """The two-sided p-value of McNemar's exact test that a and b are right equally often, in (0, 1].

    Only clips on which exactly one of them is right count; without any, 1.
    """
    a, b = _checked_pair(correct_a, correct_b)
    only_a, only_b = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    if only_a + only_b == 0:
        return 1.0
    from scipy.special import bdtr  # late: most need none of it

    tail = float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))  # the two tails of a fair coin are equal
    return min(1.0, 2 * tail)


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ScoreError(f"scores: expected (clips, classes) with at least one of each, got shape {scores.shape}")
    if labels.shape != scores.shape[:1]:
        raise ScoreError(f"labels: expected shape {scores.shape[:1]}, one a row of the scores, got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ScoreError(f"labels: expected whole numbers, got {labels.dtype}")
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        n_broken = np.count_nonzero(~finite)
        raise ScoreError(f"scores: {n_broken} rows hold NaN or infinity, the first is row {finite.argmin()}")
    outside = (labels < 0) | (labels >= scores.shape[1])
    if outside.any():
        row = int(outside.argmax())
        raise ScoreError(f"labels: expected 0 to {scores.shape[1] - 1}, got {labels[row]} in row {row}")
    return scores, labels.astype(np.int64, copy=False)


def _check_probabilities(probabilities: np.ndarray) -> None:
    low, high = float(probabilities.min()), float(probabilities.max())
    if low < 0 or high > 1 + 1e-3:  # float32 means over views may end a little above 1
        raise ScoreError(f"probabilities: expected 0 to 1, got {low:g} to {high:g}; logits need a softmax first")


def _checked_pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    _check_lengths(a, b)
    if a.dtype != bool or b.dtype != bool:
        raise ScoreError(f"correct: expected booleans, one a clip, got {a.dtype} and {b.dtype}")
    return a, b


def _check_lengths(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise ScoreError(f"correct: expected two (clips,) arrays of one length, got shapes {a.shape} and {b.shape}")
