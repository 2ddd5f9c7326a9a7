"""MMAction2's rules for fusing result files and for counting what is right, bugs and all, so that its numbers come out.

For numbers that mean what they say use `fusion/` and `metrics.py`. N clips, K classes.

What differs from ours: scores are added as they are, logits to probabilities too; the softmax, where it is asked for,
is applied to probabilities again; rows are joined by their place; a class that is predicted but never true counts as 0
in the mean class accuracy; ties in the top-k are broken by NumPy's unstable sort, mostly for the higher index, and in
the mean class accuracy for the lower.

Source: tools/analysis/report_accuracy.py and core/evaluation/accuracy.py of MMAction2 0.24.1, evaluation/functional of
1.2.0; equal to their output in tests/parity/test_mmaction2_scores.py.
"""

from collections.abc import Sequence

import numpy as np

from avrecog.errors import ScoreError


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes that are true or predicted somewhere of the share of a class's clips that are right, 0
    for a class without clips; in [0, 1].
    """
    predicted = scores.argmax(axis=1)
    n_classes = 1 + int(max(predicted.max(), labels.max()))
    n_true, n_predicted = (np.bincount(values, minlength=n_classes) for values in (labels, predicted))
    n_right = np.bincount(labels[labels == predicted], minlength=n_classes)
    counted = (n_true > 0) | (n_predicted > 0)
    return float(np.mean(n_right[counted] / np.maximum(n_true[counted], 1)))


def top_classes(scores: np.ndarray, k: int) -> np.ndarray:
    """(N, min(k, K)) int64: the last k of each row's classes in NumPy's default order, which is not stable."""
    return np.argsort(scores, axis=1)[:, -k:]


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The share of clips whose true class is among `top_classes`, in [0, 1]."""
    return float(np.mean((top_classes(scores, k) == labels[:, None]).any(axis=1)))


def fuse(files: Sequence[np.ndarray], coefficients: Sequence[float], apply_softmax: bool = False) -> np.ndarray:
    """The sum of (N, K) scores times coefficients, not scaled: (N, K) float64.

    Args:
        files: scores of each file, whatever they are.
        coefficients: one a file, of any sign.
        apply_softmax: take the softmax of every file first, of those that hold probabilities too.

    Raises:
        ScoreError: if the files differ in shape, or there isn't one coefficient a file.
    """
    if len(coefficients) != len(files):
        raise ScoreError(f"--coefficients: expected {len(files)}, one a score file, got {len(coefficients)}")
    for file in files:
        if file.shape != files[0].shape:
            raise ScoreError(
                f"score files hold {files[0].shape[0]:,} clips of {files[0].shape[1]:,} classes and {file.shape[0]:,} "
                f"of {file.shape[1]:,}; MMAction2's rules join rows by their place, so give files of the same list"
            )
    total = np.zeros(files[0].shape)
    for file, coefficient in zip(files, coefficients, strict=True):
        total += (_softmax(file) if apply_softmax else file).astype(np.float64) * coefficient
    return total


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def report(scores: np.ndarray, labels: np.ndarray) -> list[str]:
    """The three lines that its report_accuracy.py prints for (N, K) fused scores."""
    return [
        f"Mean Class Accuracy: {mean_class_accuracy(scores, labels):.4f}",
        f"Top 1 Accuracy: {top_k_accuracy(scores, labels, 1):.4f}",
        f"Top 5 Accuracy: {top_k_accuracy(scores, labels, 5):.4f}",
    ]
