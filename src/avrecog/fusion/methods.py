"""Ways to fuse several models, each fitted on clips of val; which is best is `selection.py`'s question.

| method | what is fitted | fused probabilities |
| --- | --- | --- |
| equal | nothing | mean of the models' probabilities |
| weights | one weight a model | weighted mean |
| temperature | a temperature a model (log-loss), then weights | weighted mean of softmax(log p / T) |
| log_weights | one weight a model, then one exponent (log-loss) | softmax(exponent x weighted sum of log p) |
| stacking | logistic regression on log p of all models and classes | its own |

Sources: temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", 2017; weights on logarithms:
Genest and Zidek, "Combining Probability Distributions", 1986 (logarithmic pooling); stacking: Wolpert, "Stacked
Generalization", 1992.

Before anything is fitted, a model that gives every class the same probability is left out (weight 0), and models of
equal scores count as one (they share its weight), so neither can change a result. M models, N clips, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from avrecog.errors import ScoreError
from avrecog.fusion.settings import METHODS
from avrecog.fusion.weighted_sum import blocks, normalise, weighted_sum

SMALLEST_IN_LOG = 1e-6  # a probability below this counts as this in a logarithm, so that no model has a veto
STACKING_STRENGTHS = (0.001, 0.01, 0.1)  # scikit-learn's C, chosen by cross-validated log-loss


@dataclass(frozen=True, eq=False)
class Fusion:
    """A fitted way to fuse M models.

    Raises:
        ScoreError: if the parts don't fit together.
    """

    method: str  # one of METHODS, or `coefficients` where the weights were given
    models: tuple[str, ...]
    weights: np.ndarray  # (M,) float64, none below 0, sum 1; of stacking not used
    temperatures: np.ndarray  # (M,) float64; 1 where the method has none
    exponent: float = 1.0  # of log_weights
    matrix: np.ndarray | None = None  # (M * K, K) float64, of stacking
    intercept: np.ndarray | None = None  # (K,) float64, of stacking

    def __post_init__(self) -> None:
        n = len(self.models)
        if self.method not in (*METHODS, "coefficients"):
            raise ScoreError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")
        if self.weights.shape != (n,) or self.temperatures.shape != (n,) or not n:
            raise ScoreError(f"expected one weight and one temperature for each of {n} models")
        if np.abs(normalise(self.weights) - self.weights).max() > 1e-9:
            raise ScoreError(f"weights: expected a sum of 1, got {self.weights.sum():g}")
        finite = np.isfinite(self.temperatures).all() and np.isfinite(self.exponent)
        if not (finite and (self.temperatures > 0).all() and self.exponent > 0):
            raise ScoreError("temperatures, exponent: expected numbers above 0")
        if self.method == "stacking":
            matrix, intercept = self.matrix, self.intercept
            if matrix is None or intercept is None or intercept.ndim != 1:
                raise ScoreError("matrix, intercept: expected those of a stacking")
            if matrix.shape != (n * len(intercept), len(intercept)):
                raise ScoreError(f"matrix: expected (models x classes, classes) for {n} models")
            if not (np.isfinite(matrix).all() and np.isfinite(intercept).all()):
                raise ScoreError("matrix, intercept: expected finite numbers")

    @property
    def is_linear(self) -> bool:
        """Whether the weights alone give the fused scores: a weighted sum of probabilities."""
        return self.method in ("equal", "weights", "coefficients")

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Fused probabilities (N, K) float64 of (M, N, K) probabilities.

        Raises:
            ScoreError: if there are other numbers of models or classes than it was fitted for.
        """
        if len(probabilities) != len(self.models):
            raise ScoreError(f"expected scores of {', '.join(self.models)}, got those of {len(probabilities)} models")
        if self.intercept is not None and probabilities.shape[2] != len(self.intercept):
            raise ScoreError(f"expected {len(self.intercept)} classes, got {probabilities.shape[2]}")
        fused = np.empty(probabilities.shape[1:])
        for block in blocks(len(fused)):
            fused[block] = self._of_block(probabilities[:, block])
        return fused

    def _of_block(self, probabilities: np.ndarray) -> np.ndarray:
        if self.method == "stacking":
            assert self.matrix is not None
            assert self.intercept is not None
            return _softmax(_features(probabilities) @ self.matrix + self.intercept, axis=1)
        if self.method == "log_weights":
            return _softmax(self.exponent * weighted_sum(logarithms(probabilities), self.weights), axis=1)
        if self.method == "temperature":
            probabilities = calibrated(probabilities, self.temperatures)
        return weighted_sum(probabilities, self.weights)

    def of_those(self, said: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
        """Fused probabilities where only the models `said` have spoken: the others count as saying nothing.

        Args:
            said: indices into `models`.
            probabilities: (len(said), N, K).
        """
        full = np.full((len(self.models), *probabilities.shape[1:]), 1 / probabilities.shape[2], np.float32)
        full[list(said)] = probabilities
        if self.method == "stacking":
            return self(full)
        rest = np.zeros(len(self.models))
        rest[list(said)] = self.weights[list(said)] if self.weights[list(said)].any() else 1.0
        return Fusion(self.method, self.models, normalise(rest), self.temperatures, self.exponent)(full)


def logarithms(probabilities: np.ndarray) -> np.ndarray:
    """Log p with p no smaller than `SMALLEST_IN_LOG`."""
    result = np.maximum(probabilities, SMALLEST_IN_LOG)
    return np.log(result, out=result)


def calibrated(probabilities: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """softmax(log p / T) of (M, N, K) probabilities, one temperature a model: float32."""
    result = np.empty(probabilities.shape, np.float32)
    for block in blocks(probabilities.shape[1]):
        result[:, block] = _softmax(logarithms(probabilities[:, block]) / temperatures[:, None, None], axis=2)
    return result


def _softmax(values: np.ndarray, axis: int) -> np.ndarray:
    from scipy.special import softmax  # late: equal or given weights need none of it

    result: np.ndarray = softmax(values, axis=axis)
    return result


def fit_temperature(log_values: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    """The T in [0.2, 5], to three digits, with the least log-loss of softmax(weighted sum of log_values / T).

    Args:
        log_values: (M, N, K).
        weights: (M,).
        labels: (N,) int64.
    """
    from scipy.optimize import minimize_scalar  # late: a prediction needs none of it

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        losses = np.empty(len(labels))
        for block in blocks(len(labels)):
            scaled = weighted_sum(log_values[:, block], weights)
            scaled -= scaled.max(axis=1, keepdims=True)
            scaled /= temperature
            own = scaled[np.arange(len(scaled)), labels[block]]
            losses[block] = np.log(np.exp(scaled, out=scaled).sum(axis=1)) - own
        return float(losses.mean())

    found = minimize_scalar(loss, bounds=(np.log(0.2), np.log(5)), method="bounded", options={"xatol": 1e-5})
    return float(f"{np.exp(found.x):.3g}")


def fit_stacking(
    probabilities: np.ndarray, labels: np.ndarray, folds: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (M * K, K) and intercept (K,) of a logistic regression on log-probabilities.

    Args:
        probabilities: (M, N, K).
        labels: (N,) int64.
        folds: (N,) fold of each clip, by which the strength of the regularisation is chosen.
        n_classes: K; a class that doesn't occur gets an intercept below all others.
    """
    from scipy.special import log_softmax

    features = _features(probabilities)

    def held_out_loss(strength: float) -> float:
        losses = np.zeros(len(labels))
        for fold in np.unique(folds):
            inside = folds != fold
            matrix, intercept = _regression(features[inside], labels[inside], strength, n_classes)
            logits = features[~inside] @ matrix + intercept
            losses[~inside] = -log_softmax(logits, axis=1)[np.arange(len(logits)), labels[~inside]]
        return float(losses.mean())

    best = min(STACKING_STRENGTHS, key=held_out_loss) if len(np.unique(folds)) > 1 else STACKING_STRENGTHS[0]
    return _regression(features, labels, best, n_classes)


def _regression(features: np.ndarray, labels: np.ndarray, strength: float, k: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    matrix, intercept = np.zeros((features.shape[1], k)), np.full(k, -10.0)
    if len(present) == 1:
        intercept[present] = 0.0
        return matrix, intercept
    with threadpool_limits(1):  # scikit-learn's own threads too
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=2000).fit(features, labels)
    if len(present) == 2:  # scikit-learn keeps one column: that of the second class
        matrix[:, present] = model.coef_.T * np.array([-0.5, 0.5])
        intercept[present] = model.intercept_ * np.array([-0.5, 0.5])
    else:
        matrix[:, present], intercept[present] = model.coef_.T, model.intercept_
    return matrix, intercept


def _features(probabilities: np.ndarray) -> np.ndarray:
    """(N, M * K): each model's log-probabilities less their mean over the classes."""
    values = logarithms(probabilities).astype(np.float64)
    values -= values.mean(axis=2, keepdims=True)
    return np.concatenate(list(values), axis=1)
