"""What weights are worth on a set of clips."""

import numpy as np

from avrecog.fusion.settings import Domain, Objective
from avrecog.fusion.weighted_sum import BLOCK, add_weighted, blocks
from avrecog.metrics import mean_negative_log


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
        own = add_weighted(self._own, coefficients)[self._clip]
        rivals = add_weighted(self._rivals, coefficients)
        beaten = (rivals > own) | ((rivals == own) & self._before)
        correct = self._open.copy()
        correct[self._clip[beaten]] = False
        return share_of(correct, self._clip_weight)

    def log_loss(self, coefficients: np.ndarray) -> float:
        """The log-loss of the fused probabilities, in nats."""
        own = add_weighted(self._own, coefficients)
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


def _log_norms(log_values: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """(N,) logarithms of the sums over the classes of exp(weighted sum of (M, N, K) logarithms)."""
    norms = np.empty(log_values.shape[1])
    for block in blocks(len(norms)):
        fused = add_weighted(log_values[:, block], coefficients)
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
