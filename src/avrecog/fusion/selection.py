"""Fitting every fusion method on val and choosing one of them, by cross-validation inside val.

The order of the clips, of the models and of the classes changes nothing. M models, N clips, K classes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avrecog.errors import ScoreError
from avrecog.fusion.distinct import Voices, distinct_voices
from avrecog.fusion.methods import Fusion, calibrated, fit_stacking, fit_temperature, logarithms
from avrecog.fusion.objective import clip_weights, share_of
from avrecog.fusion.settings import METHODS, Domain, FuseConfig, Method, Objective
from avrecog.metrics import correct_clips, mean_negative_log

if TYPE_CHECKING:
    from avrecog.fusion.weight_search import Trial

log = logging.getLogger(__name__)

ONE = np.ones(1)  # the weight of a single model
STACKING_MOST = 500_000_000  # clips x models x classes x classes: some minutes for its sixty regressions


@dataclass(frozen=True)
class Fitted:
    """A method fitted on all of val."""

    fusion: Fusion
    trials: "Sequence[Trial]"  # what the search of its weights has tried; empty where there is none
    value: float  # of the objective on the clips it was fitted on; more is better
    held_out: float | None  # of the objective on clips it was not fitted on; None where that was not asked for
    held_out_log_loss: float | None  # nats


def worth(probabilities: np.ndarray, labels: np.ndarray, objective: Objective) -> float:
    """The objective's value of (N, K) probabilities; more is better (the log-loss is negated)."""
    return _worth_of_clips(*_judged(probabilities, labels), labels, objective)


def _judged(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) booleans, whether the top class is the true one, and (N,) probabilities of the true class."""
    return correct_clips(probabilities, labels), probabilities[np.arange(len(labels)), labels]


def _worth_of_clips(correct: np.ndarray, own: np.ndarray, labels: np.ndarray, objective: Objective) -> float:
    if objective == "log_loss":
        return round(-mean_negative_log(own), 12)  # so that the last bits of a sum decide nothing
    return share_of(correct, clip_weights(labels, objective))


def validation_folds(clip_ids: Sequence[str], labels: np.ndarray, n_folds: int) -> np.ndarray:
    """(N,) fold of each clip, stratified by class, the same whatever the order of clips and classes."""
    first_of_class: dict[int, str] = {}
    for label, clip_id in zip(labels.tolist(), clip_ids, strict=True):
        first_of_class[label] = min(clip_id, first_of_class.get(label, clip_id))
    order = sorted(range(len(clip_ids)), key=lambda row: (first_of_class[int(labels[row])], clip_ids[row]))
    folds = np.empty(len(clip_ids), dtype=np.int64)
    folds[order] = np.arange(len(clip_ids)) % n_folds
    return folds


def fit_methods(
    probabilities: np.ndarray,
    labels: np.ndarray,
    clip_ids: Sequence[str],
    models: Sequence[str],
    config: FuseConfig,
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
    voices = distinct_voices(stack, truth)
    folds = validation_folds(ids, truth, min(config.n_folds, len(truth)))
    methods: dict[str, Fitted] = {}
    for method in _wanted(config.methods, len(voices.index), *stack.shape[1:]):
        journal = studies / f"{method}.log" if studies is not None else None
        fusion, trials = _fit(method, stack, truth, ids, models, voices, config, journal)
        value = worth(fusion(stack), truth, config.objective)
        methods[method] = Fitted(
            fusion, trials, value, *_held_out(method, stack, truth, ids, folds, models, voices, config)
        )
    return methods


def _wanted(methods: Sequence[Method] | None, n_models: int, n_clips: int, n_classes: int) -> Sequence[Method]:
    if n_models == 1:  # but for copies and models that say nothing
        return ("equal",)
    if methods is not None:
        return [method for method in METHODS if method in methods]
    if n_clips * n_models * n_classes**2 <= STACKING_MOST:
        return METHODS
    log.warning(
        "stacking is left out: with %d clips of %d classes it would take long; name it in fuse.methods to have it",
        n_clips,
        n_classes,
    )
    return [method for method in METHODS if method != "stacking"]


def choose(methods: dict[str, Fitted]) -> str:
    """The method that is worth most on held-out clips, then has the lower log-loss there, then fits fewer numbers.

    One that is worth less than equal weights on the clips it was fitted on is not taken, where equal weights are among
    the methods.
    """
    bar = methods["equal"].value if "equal" in methods else -np.inf
    names = [name for name, fitted in methods.items() if fitted.value >= bar]

    def merit(name: str) -> tuple[float, float]:
        fitted = methods[name]
        if fitted.held_out is None or fitted.held_out_log_loss is None:
            return 0.0, 0.0
        return fitted.held_out, -fitted.held_out_log_loss

    return max(names, key=merit)  # the first of equals


def _held_out(
    method: Method,
    stack: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    folds: np.ndarray,
    models: Sequence[str],
    voices: Voices,
    config: FuseConfig,
) -> tuple[float | None, float | None]:
    """The objective's value and the log-loss, each clip fused by a fit on other folds; None for a single clip."""
    if len(labels) < 2:
        return None, None
    correct, own = np.empty(len(labels), bool), np.empty(len(labels))
    for fold in np.unique(folds):
        inside = folds != fold
        names = [name for name, kept in zip(ids, inside, strict=True) if kept]
        fusion, _ = _fit(method, stack[:, inside], labels[inside], names, models, voices, config, None)
        correct[~inside], own[~inside] = _judged(fusion(stack[:, ~inside]), labels[~inside])
    return _worth_of_clips(correct, own, labels, config.objective), round(mean_negative_log(own), 12)


def _fit(
    method: Method,
    stack: np.ndarray,
    labels: np.ndarray,
    ids: Sequence[str],
    models: Sequence[str],
    voices: Voices,
    config: FuseConfig,
    journal: Path | None,
) -> "tuple[Fusion, Sequence[Trial]]":
    """One method fitted on these clips, and the trials of its search."""
    n_models, n_classes = len(models), stack.shape[2]
    # (M', N, K), not a copy where all speak
    own = stack if voices.index == tuple(range(n_models)) else stack[list(voices.index)]
    n_own = len(own)
    equal = Fusion("equal", tuple(models), voices.spread(np.full(n_own, 1 / n_own), n_models), np.ones(n_models))
    if method == "equal":
        return equal, ()
    if method == "stacking":
        folds = validation_folds(ids, labels, min(3, len(labels)))
        matrix, intercept = fit_stacking(own, labels, folds, n_classes)
        spread = voices.spread(matrix.reshape(n_own, n_classes, n_classes), n_models)
        return replace(equal, method=method, matrix=spread.reshape(-1, n_classes), intercept=intercept), ()
    domain: Domain = "log" if method == "log_weights" else "probability"
    temperatures = np.ones(n_own)
    if method == "temperature":
        temperatures = np.array([fit_temperature(logarithms(table[None]), ONE, labels) for table in own])
        own = calibrated(own, temperatures)
    from avrecog.fusion.weight_search import tune_coefficients

    values = logarithms(own) if domain == "log" else own
    del own, stack  # a fold's copy takes much memory
    # numbered: Optuna goes through parameters by name, and a copy's name must not change the order
    names = [f"{number} {models[index]}" for number, index in enumerate(voices.index, start=1)]
    tuning = tune_coefficients(values, labels, names, config, journal, domain)
    weights = np.array([tuning.coefficients[name] for name in names])
    exponent = 1.0
    if domain == "log":
        exponent = 1 / fit_temperature(values, weights, labels)
    fusion = replace(
        equal,
        method=method,
        weights=voices.spread(weights, n_models),
        temperatures=voices.repeated(temperatures, n_models),
        exponent=exponent,
    )
    spread_trials = [
        replace(trial, coefficients=_spread(trial.coefficients, names, models, voices)) for trial in tuning.trials
    ]
    return fusion, spread_trials


def _spread(
    coefficients: dict[str, float], names: Sequence[str], models: Sequence[str], voices: Voices
) -> dict[str, float]:
    """The coefficients of the different models as those of all, in their order."""
    weights = voices.spread(np.array([coefficients[name] for name in names]), len(models))
    return dict(zip(models, weights.tolist(), strict=True))
