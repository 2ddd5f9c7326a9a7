"""Late fusion: a weighted sum of the probabilities that several models give, or of their logarithms.

M models, N clips, K classes. Arrays only; which weights are best is `tuning.py`'s question.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, Strict

from avrecog.config import Count, NonNegativeNumber, WholeNumber, section
from avrecog.errors import ConfigError, ScoreError
from avrecog.metrics import mean_negative_log

Objective = Literal["top1", "mean_class_accuracy", "log_loss"]
Domain = Literal["probability", "log"]
Method = Literal["equal", "weights", "temperature", "log_weights", "stacking"]
METHODS: tuple[Method, ...] = get_args(Method)  # from the fewest fitted numbers to the most
BLOCK = 512  # clips at a time, so that what lies between two steps stays in the processor's cache


@section
class FuseConfig:
    """Section `fuse` of params.yaml. What the methods are stands in `fusion_methods.py`."""

    coefficients: dict[str, NonNegativeNumber] | None = None  # model -> weight, used as they are; null: found on val
    methods: Annotated[list[Method], Field(min_length=1)] | None = None  # compared; null: all, stacking if it is quick
    objective: Objective = "top1"  # what the choice and the search maximise on val; log_loss is minimised
    n_trials: Count = 200
    n_folds: Annotated[int, Strict(), Field(ge=2)] = 5  # of the cross-validation inside val that chooses the method
    seed: WholeNumber = 0
    n_resamples: Count = 2000  # of the bootstrap

    def __post_init__(self) -> None:
        if self.methods is not None and len(set(self.methods)) < len(self.methods):
            raise ConfigError(f"methods: expected each once, got {', '.join(self.methods)}")
        if self.coefficients is not None and not sum(self.coefficients.values()) > 0:
            raise ConfigError(f"coefficients: expected at least one above 0, got {self.coefficients}")


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


def fuse(probabilities: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """The weighted sum of (M, N, K) probabilities, or of their logarithms: (N, K) float64.

    Raises:
        ScoreError: if there isn't one coefficient a model.
    """
    if np.ndim(probabilities) != 3 or np.shape(coefficients) != np.shape(probabilities)[:1]:
        raise ScoreError(
            f"expected (models, clips, classes) and one coefficient a model, got shapes {np.shape(probabilities)} and "
            f"{np.shape(coefficients)}"
        )
    return _weighted_sum(probabilities, coefficients)


class FusionObjective:
    """What coefficients are worth on a set of clips, prepared so that asking is cheap.

    Whatever the non-negative weights are, a class that every model puts below the true class, or below one same strong
    wrong class, can't decide a clip, and a clip is lost if every model puts one same wrong class above the true one. So
    only the few open pairs of clip and class are kept. It decides each clip as `fuse` and `correct_clips` do.

    Args:
        values: (M, N, K) float32: probabilities, or their logarithms.
        labels: (N,) int64 in [0, K).
        objective: `top1` and `mean_class_accuracy` in [0, 1], `log_loss` negated, so that more is always better.
        domain: of `values`.
    """

    def __init__(
        self, values: np.ndarray, labels: np.ndarray, objective: Objective = "top1", domain: Domain = "probability"
    ) -> None:
        n_clips = values.shape[1]
        clips = np.arange(n_clips)
        own = values[:, clips, labels]  # (M, N)
        rivals_of_blocks = [np.nonzero(_rivals(values[:, block], labels[block])) for block in blocks(n_clips)]
        # (P,) each: the pairs that can matter
        clip = np.concatenate([rows + number * BLOCK for number, (rows, _) in enumerate(rivals_of_blocks)])
        rival_class = np.concatenate([classes for _, classes in rivals_of_blocks])
        rivals = values[:, clip, rival_class]  # (M, P)
        self._open = np.ones(n_clips, dtype=bool)  # no wrong class is above the true one for every model
        self._open[clip[(rivals > own[:, clip]).all(axis=0)]] = False
        undecided = self._open[clip]
        self._clip, self._rivals, rival_class = clip[undecided], rivals[:, undecided], rival_class[undecided]
        self._own = own
        self._before = rival_class < labels[self._clip]  # ties go to the lower index
        self._objective = objective
        self._log_values = values if domain == "log" else None
        self._clip_weight = clip_weights(labels, objective)

    def __call__(self, coefficients: np.ndarray) -> float:
        """The value of (M,) coefficients that sum to 1; more is better."""
        if self._objective == "log_loss":
            return -self.log_loss(coefficients)
        own = _weighted_sum(self._own, coefficients)[self._clip]
        rivals = _weighted_sum(self._rivals, coefficients)
        beaten = (rivals > own) | ((rivals == own) & self._before)
        correct = self._open.copy()
        correct[self._clip[beaten]] = False
        return share_of(correct, self._clip_weight)

    def log_loss(self, coefficients: np.ndarray) -> float:
        """The log-loss of the fused probabilities, in nats."""
        own = _weighted_sum(self._own, coefficients)
        if self._log_values is None:
            return mean_negative_log(own)
        return float((_log_norms(self._log_values, coefficients) - own).mean())


def clip_weights(labels: np.ndarray, objective: Objective) -> np.ndarray:
    """(N,) what each clip that is right adds to `top1` or `mean_class_accuracy`."""
    if objective != "mean_class_accuracy":
        return np.full(len(labels), 1 / len(labels))
    per_class = np.bincount(labels)
    return 1 / (per_class[labels] * np.count_nonzero(per_class))


def share_of(correct: np.ndarray, weights: np.ndarray) -> float:
    """The sum of the weights of the (N,) clips that are right, rounded so that in another order it is the same."""
    return round(float(weights[correct].sum()), 12)


def blocks(n_clips: int) -> Iterator[slice]:
    """All of n clips, some at a time."""
    for begin in range(0, n_clips, BLOCK):
        yield slice(begin, begin + BLOCK)


def _log_norms(log_values: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """(N,) logarithms of the sums over the classes of exp(weighted sum of (M, N, K) logarithms)."""
    norms = np.empty(log_values.shape[1])
    for block in blocks(len(norms)):
        fused = _weighted_sum(log_values[:, block], coefficients)
        highest = fused.max(axis=1)
        fused -= highest[:, None]
        norms[block] = highest + np.log(np.exp(fused, out=fused).sum(axis=1))
    return norms


def _rivals(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, K) booleans: the wrong classes that some weights may put above the true one."""
    clips = np.arange(len(labels))
    rival = _not_below_everywhere(values, values[:, clips, labels])
    rival[clips, labels] = False
    for view in (*values, values.sum(axis=0)):  # the strongest wrong class of each model and of all
        wrong = view.copy()
        wrong[clips, labels] = -np.inf
        rival &= _not_below_everywhere(values, values[:, clips, wrong.argmax(axis=1)])
    return rival


def _not_below_everywhere(values: np.ndarray, bar: np.ndarray) -> np.ndarray:
    """(N, K) booleans: the class reaches the (M, N) bar in at least one model."""
    reached = np.zeros(values.shape[1:], dtype=bool)
    for model_values, model_bar in zip(values, bar, strict=True):
        reached |= model_values >= model_bar[:, None]
    return reached


def _weighted_sum(arrays: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    # model by model, not as a BLAS product: that rounds differently with the array's layout, so a tie could be broken
    # one way while tuning and the other way in the report. Both are bound by memory and equally fast.
    total = np.multiply(arrays[0], coefficients[0], dtype=np.float64)
    for array, coefficient in zip(arrays[1:], coefficients[1:], strict=True):
        for block in blocks(len(total)) if total.ndim > 1 else [slice(None)]:
            total[block] += np.multiply(array[block], coefficient, dtype=np.float64)
    return total
