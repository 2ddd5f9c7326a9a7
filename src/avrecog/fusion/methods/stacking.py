"""A logistic regression on the log-probabilities of all models and classes.

Source: Wolpert, "Stacked Generalization", 1992.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from threadpoolctl import threadpool_limits

from avrecog.errors import ScoreError
from avrecog.fusion.fitting import FitClips, FitContext
from avrecog.fusion.folds import validation_folds
from avrecog.fusion.log_probabilities import logarithms, softmax
from avrecog.fusion.methods.base import FusionMethod, check_weights

if TYPE_CHECKING:
    from avrecog.fusion.weight_search import WeightTrial

STACKING_C_VALUES = (0.001, 0.01, 0.1)  # scikit-learn's C, chosen by cross-validated log-loss
N_FOLDS = 3  # of that cross-validation
MAX_QUICK_SIZE = 500_000_000  # clips x models x classes x classes: some minutes for its sixty regressions
ABSENT_INTERCEPT = -10.0  # of a class without a clip: below all others


@dataclass(frozen=True, eq=False, kw_only=True)
class Stacking(FusionMethod):
    """softmax(log p of all models and classes x matrix + intercept).

    Raises:
        ScoreError: if matrix and intercept are not those of M models and K classes.
    """

    name: ClassVar[str] = "stacking"
    weights: np.ndarray  # (M,) float64, equal shares of the distinct models; in its file, and in no fused score
    matrix: np.ndarray  # (M * K, K) float64
    intercept: np.ndarray  # (K,) float64

    def __post_init__(self) -> None:
        super().__post_init__()
        n_models, n_classes = len(self.models), len(self.intercept) if self.intercept.ndim == 1 else 0
        check_weights(self.weights, n_models)
        if not n_classes:
            raise ScoreError("matrix, intercept: expected those of a stacking")
        if self.matrix.shape != (n_models * n_classes, n_classes):
            raise ScoreError(f"matrix: expected (models x classes, classes) for {n_models} models")
        if not (np.isfinite(self.matrix).all() and np.isfinite(self.intercept).all()):
            raise ScoreError("matrix, intercept: expected finite numbers")

    @classmethod
    def fit(cls, clips: FitClips, context: FitContext) -> "tuple[Self, Sequence[WeightTrial]]":
        """The regression whose regularisation has the least log-loss on held-out parts of the clips."""
        n_models, _, n_classes = clips.probabilities.shape
        folds = validation_folds(clips.clip_ids, clips.labels, min(N_FOLDS, len(clips.labels)))
        matrix, intercept = fit_stacking(clips.probabilities, clips.labels, folds)
        spread = context.spread(matrix.reshape(n_models, n_classes, n_classes))
        fusion = cls(
            models=context.models,
            weights=context.equal_weights(),
            matrix=spread.reshape(-1, n_classes),
            intercept=intercept,
        )
        return fusion, ()

    @classmethod
    def takes_long(cls, n_models: int, n_clips: int, n_classes: int) -> bool:
        """Whether the regressions take more than some minutes."""
        return n_clips * n_models * n_classes**2 > MAX_QUICK_SIZE

    def fuse_block(self, probabilities: np.ndarray) -> np.ndarray:
        """The regression's probabilities (B, K) of (M, B, K) probabilities.

        Raises:
            ScoreError: if there are other numbers of classes than it was fitted for.
        """
        if probabilities.shape[2] != len(self.intercept):
            raise ScoreError(f"expected {len(self.intercept)} classes, got {probabilities.shape[2]}")
        return softmax(_features(probabilities) @ self.matrix + self.intercept, axis=1)

    def describe(self) -> str:
        """The models that it stacks."""
        return f"stacking of {', '.join(self.models)}"

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights, the matrix and the intercept."""
        return {"weights": self.weights, "matrix": self.matrix, "intercept": self.intercept}

    @classmethod
    def from_arrays(cls, models: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> Self:
        """The regression by `matrix` and `intercept`."""
        return cls(models=models, weights=arrays["weights"], matrix=arrays["matrix"], intercept=arrays["intercept"])


def fit_stacking(probabilities: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (M * K, K) and intercept (K,) of a logistic regression on log-probabilities.

    A class that doesn't occur gets an intercept below all others.

    Args:
        probabilities: (M, N, K).
        labels: (N,) int64.
        folds: (N,) fold of each clip, by which the strength of the regularisation is chosen.
    """
    from scipy.special import log_softmax

    features, n_classes = _features(probabilities), probabilities.shape[2]

    def held_out_loss(c_value: float) -> float:
        losses = np.zeros(len(labels))
        for fold in np.unique(folds):
            inside = folds != fold
            matrix, intercept = _regression(features[inside], labels[inside], c_value, n_classes)
            logits = features[~inside] @ matrix + intercept
            losses[~inside] = -log_softmax(logits, axis=1)[np.arange(len(logits)), labels[~inside]]
        return float(losses.mean())

    best = min(STACKING_C_VALUES, key=held_out_loss) if len(np.unique(folds)) > 1 else STACKING_C_VALUES[0]
    return _regression(features, labels, best, n_classes)


def _regression(
    features: np.ndarray, labels: np.ndarray, c_value: float, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    matrix, intercept = np.zeros((features.shape[1], n_classes)), np.full(n_classes, ABSENT_INTERCEPT)
    if len(present) == 1:
        intercept[present] = 0.0
        return matrix, intercept
    with threadpool_limits(1):  # scikit-learn's own threads too
        model = LogisticRegression(C=c_value, tol=1e-8, max_iter=2000).fit(features, labels)
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
