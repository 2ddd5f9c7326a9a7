"""Fitting every fusion method on val and choosing one of them, by cross-validation inside val.

The order of the clips, of the models and of the classes changes nothing. M models, N clips, K classes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avrecog.errors import ScoreError
from avrecog.fusion.distinct import find_distinct_models
from avrecog.fusion.fitting import FitClips, FitContext
from avrecog.fusion.folds import validation_folds
from avrecog.fusion.methods.base import FusionMethod
from avrecog.fusion.methods.registry import METHODS
from avrecog.fusion.objective import clip_weights, share_of
from avrecog.fusion.settings import FuseConfig, Objective
from avrecog.metrics import correct_clips, mean_negative_log

if TYPE_CHECKING:
    from avrecog.fusion.weight_search import WeightTrial

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A method fitted on all of val."""

    fusion: FusionMethod
    trials: "Sequence[WeightTrial]"  # what the search of its weights has tried; empty where there is none
    value: float  # of the objective on the clips it was fitted on; more is better
    held_out: float | None  # of the objective on clips it was not fitted on; None where that was not asked for
    held_out_log_loss: float | None  # nats


def objective_value(probabilities: np.ndarray, labels: np.ndarray, objective: Objective) -> float:
    """The objective's value of (N, K) probabilities; more is better (the log-loss is negated)."""
    return _value_of_clips(*_judge_clips(probabilities, labels), labels, objective)


def _judge_clips(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) booleans, whether the top class is the true one, and (N,) probabilities of the true class."""
    return correct_clips(probabilities, labels), probabilities[np.arange(len(labels)), labels]


def _value_of_clips(correct: np.ndarray, own: np.ndarray, labels: np.ndarray, objective: Objective) -> float:
    if objective == "log_loss":
        return round(-mean_negative_log(own), 12)  # so that the last bits of a sum decide nothing
    return share_of(correct, clip_weights(labels, objective))


def fit_methods(
    probabilities: np.ndarray,
    labels: np.ndarray,
    clip_ids: Sequence[str],
    models: Sequence[str],
    config: FuseConfig,
    *,
    studies: Path | None = None,
) -> dict[str, Fitted]:
    """Every method of the config, fitted on these clips (those of val) and tried on held-out parts of them.

    Args:
        probabilities: (M, N, K) float32, rows sum to 1.
        labels: (N,) int64 in [0, K).
        clip_ids: N names.
        models: M names.
        config: methods, objective, trials, folds and seed.
        studies: folder of Optuna's journals, one a method that has a search; None keeps the searches in memory.

    Raises:
        ScoreError: if there isn't one name for each model, all different.
    """
    if len(models) != len(probabilities) or len(set(models)) != len(models):
        raise ScoreError(f"models: expected {len(probabilities)} different names, got {', '.join(models) or 'none'}")
    order = np.argsort(np.asarray(clip_ids))
    truth, ids = labels[order], [str(clip_ids[row]) for row in order]
    stack = probabilities if (np.diff(order) == 1).all() else probabilities[:, order]
    context = FitContext(models=tuple(models), distinct=find_distinct_models(stack, truth), config=config)
    methods: dict[str, Fitted] = {}
    for name, method in _methods_to_fit(config.methods, len(context.distinct.index), *stack.shape[1:]).items():
        journal = studies / f"{name}.log" if studies is not None else None
        # what is fitted on is handed over and not kept: a copy takes much memory
        fusion, trials = method.fit(FitClips.of(stack, truth, ids, context.distinct), replace(context, journal=journal))
        held_out, held_out_log_loss = _held_out(method, stack, truth, ids, context)
        methods[name] = Fitted(
            fusion=fusion,
            trials=trials,
            value=objective_value(fusion(stack), truth, config.objective),
            held_out=held_out,
            held_out_log_loss=held_out_log_loss,
        )
    return methods


def _methods_to_fit(
    asked_for: Sequence[str] | None, n_models: int, n_clips: int, n_classes: int
) -> dict[str, type[FusionMethod]]:
    """The methods that are compared on scores of so many distinct models."""
    if n_models == 1:
        return {name: method for name, method in METHODS.items() if not method.is_fitted}
    if asked_for is not None:
        return {name: method for name, method in METHODS.items() if name in asked_for}
    slow = [name for name, method in METHODS.items() if method.takes_long(n_models, n_clips, n_classes)]
    for name in slow:
        log.warning(
            "%s is left out: with %d clips of %d classes it would take long; name it in fuse.methods to have it",
            name,
            n_clips,
            n_classes,
        )
    return {name: method for name, method in METHODS.items() if name not in slow}


def choose(methods: Mapping[str, Fitted]) -> str:
    """The method that is best on held-out clips, then has the lower log-loss there, then fits fewer numbers.

    One that is worse than an unfitted one (equal weights) on the clips it was fitted on is not taken.
    """
    bar = max((fitted.value for fitted in methods.values() if not fitted.fusion.is_fitted), default=-np.inf)
    names = [name for name, fitted in methods.items() if fitted.value >= bar]

    def ranking_key(name: str) -> tuple[float, float]:
        fitted = methods[name]
        if fitted.held_out is None or fitted.held_out_log_loss is None:
            return 0.0, 0.0
        return fitted.held_out, -fitted.held_out_log_loss

    return max(names, key=ranking_key)  # the first of equals


def _held_out(
    method: type[FusionMethod], stack: np.ndarray, labels: np.ndarray, clip_ids: Sequence[str], context: FitContext
) -> tuple[float | None, float | None]:
    """The objective's value and the log-loss, each clip fused by a fit on other folds; None for a single clip."""
    if len(labels) < 2:
        return None, None
    folds = validation_folds(clip_ids, labels, min(context.config.n_folds, len(labels)))
    correct, own = np.empty(len(labels), bool), np.empty(len(labels))
    for fold in np.unique(folds):
        inside = folds != fold
        fusion, _ = method.fit(FitClips.of(stack, labels, clip_ids, context.distinct, inside), context)
        correct[~inside], own[~inside] = _judge_clips(fusion(stack[:, ~inside]), labels[~inside])
    return _value_of_clips(correct, own, labels, context.config.objective), round(mean_negative_log(own), 12)
