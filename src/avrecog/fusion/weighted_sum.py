"""Late fusion: a weighted sum of the probabilities that several models give, or of their logarithms.

M models, N clips, K classes. Arrays only; which weights are best is `weight_search.py`'s question.
"""

from collections.abc import Iterator

import numpy as np

from avrecog.errors import ScoreError

BLOCK = 512  # clips at a time, so that what lies between two steps stays in the processor's cache


def normalise(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients scaled to sum 1, as (M,) float64; ones that already do (within 1e-9) come back bit for bit.

    Raises:
        ScoreError: if they aren't a row of finite numbers, none below 0 and one above.
    """
    values = np.asarray(coefficients, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ScoreError(
            f"coefficients: expected one number a model, none below 0 and one above, got {values.tolist()}"
        )
    total = values.sum()
    return values.copy() if abs(total - 1) < 1e-9 else values / total


def weighted_sum(probabilities: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """The weighted sum of (M, N, K) probabilities, or of their logarithms: (N, K) float64.

    Raises:
        ScoreError: if there isn't one coefficient a model.
    """
    if np.ndim(probabilities) != 3 or np.shape(coefficients) != np.shape(probabilities)[:1]:
        raise ScoreError(
            f"expected (models, clips, classes) and one coefficient a model, got shapes {np.shape(probabilities)} and "
            f"{np.shape(coefficients)}"
        )
    return add_weighted(probabilities, coefficients)


def blocks(n_clips: int) -> Iterator[slice]:
    """All of n clips, some at a time."""
    for begin in range(0, n_clips, BLOCK):
        yield slice(begin, begin + BLOCK)


def add_weighted(arrays: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """The weighted sum of arrays (M, ...), in one order of additions however they lie in memory: (...) float64."""
    # model by model, not as a BLAS product: that rounds differently with the array's layout, so a tie could be broken
    # one way while tuning and the other way in the report. Both are bound by memory and equally fast.
    total = np.multiply(arrays[0], coefficients[0], dtype=np.float64)
    for array, coefficient in zip(arrays[1:], coefficients[1:], strict=True):
        for block in blocks(len(total)) if total.ndim > 1 else [slice(None)]:
            total[block] += np.multiply(array[block], coefficient, dtype=np.float64)
    return total
