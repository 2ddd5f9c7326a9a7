"""Logarithms of probabilities, and back."""

import numpy as np

MIN_PROBABILITY = 1e-6  # a lower one counts as this in a logarithm, so that no model has a veto


def logarithms(probabilities: np.ndarray) -> np.ndarray:
    """Log p with p no smaller than `MIN_PROBABILITY`."""
    result = np.maximum(probabilities, MIN_PROBABILITY)
    return np.log(result, out=result)


def softmax(values: np.ndarray, axis: int) -> np.ndarray:
    """Probabilities that sum to 1 along the axis."""
    from scipy import special  # late: equal or given weights need none of it

    result: np.ndarray = special.softmax(values, axis=axis)
    return result
