"""Searching the weights of a late fusion with Optuna.

The sampler asks in memory, and every finished trial is appended to a journal file at once, whole: one write a trial
instead of one for each step of it, and a kill leaves no trial half done. Each trial's sampler is seeded by the seed
and the number of trials before it, so a search that was killed and resumed takes the same path as an unbroken one.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import TrialState

from avrecog.errors import ScoreError
from avrecog.fusion.objective import FusionObjective
from avrecog.fusion.settings import Domain, FuseConfig
from avrecog.fusion.weighted_sum import normalise
from avrecog.runtime.files import sole_writer

logger = logging.getLogger(__name__)

GRID = 100  # two models: weights 0, 1/100, ... 1
RESOLUTION = 1000  # more models: weights are whole thousandths, so that a printed weight is the exact one
# the code that decides a trial's value beside the scores: values from before a fix must not be resumed
SOURCES = tuple(
    Path(__file__).parents[1] / name
    for name in ("fusion/weight_search.py", "fusion/objective.py", "fusion/weighted_sum.py", "metrics.py")
)


@dataclass(frozen=True)
class WeightTrial:
    """One set of coefficients that was tried."""

    number: int
    coefficients: dict[str, float]  # model -> weight, sum 1
    value: float  # of the objective, more is better
    log_loss: float | None  # nats, of the trials that are worth most, among which it decides


@dataclass(frozen=True)
class SearchResult:
    """The best coefficients and all that were tried."""

    coefficients: dict[str, float]  # model -> weight, non-negative, sum 1
    value: float  # of the objective, more is better (the log-loss is negated)
    trials: list[WeightTrial]  # in the order they were tried


def search_weights(
    values: np.ndarray,
    labels: np.ndarray,
    models: Sequence[str],
    config: FuseConfig,
    *,
    study_path: Path | None = None,
    domain: Domain = "probability",
) -> SearchResult:
    """The coefficients that are worth most on these clips, which should be those of val.

    Equal weights and each model alone are always tried first, so the result is never worse here than any of them. Then,
    for two models, the points of a grid of 101 follow, coarse ones first, up to `n_trials` in all; for more, Optuna's
    seeded TPE over raw weights in [0, 1], which are normalised and rounded to thousandths.

    Where several are worth the same (accuracies come in steps of one clip), the lower log-loss wins, then the least
    squared distance from equal weights, then the earlier trial.

    Args:
        values: (M, N, K) float32: probabilities, rows sum to 1, or their logarithms.
        labels: (N,) int64 in [0, K).
        models: M names.
        config: objective, number of trials and seed.
        study_path: the journal to go on from and to add to; None keeps the search in memory. One made from other
            scores, models, objective or seed is begun anew.
        domain: of `values`.

    Raises:
        ScoreError: if there isn't one name for each model, all different.
    """
    if len(models) != len(values) or len(set(models)) != len(models):
        raise ScoreError(f"models: expected {len(values)} different names, got {', '.join(models) or 'none'}")
    objective = FusionObjective(values, labels, config.objective, domain)
    first = _first_points(len(models))
    n_trials = max(config.n_trials, len(models) + 1)  # equal weights and each model alone, whatever n_trials says
    n_trials = min(n_trials, len(first)) if len(models) <= 2 else n_trials
    with quiet(), contextlib.ExitStack() as stack:
        if study_path is None:
            journal = optuna.create_study(direction="maximize")
        else:
            stack.enter_context(sole_writer(study_path))
            journal = _open_study(study_path, _digest(values, labels, models, config))
        memory = optuna.create_study(direction="maximize")
        memory.add_trials(journal.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[:n_trials])
        for number in range(len(memory.trials), n_trials):
            trial = _run_trial(memory, number, first=first, models=models, objective=objective, seed=config.seed)
            journal.add_trial(trial)
        tried = memory.get_trials(deepcopy=False)
        highest = max(round(float(trial.values[0]), 12) for trial in tried)
        trials = [_read_trial(trial, models, objective, highest) for trial in tried]
    best = max(trials, key=_ranking_key)
    return SearchResult(best.coefficients, best.value, trials)


def _run_trial(
    memory: optuna.Study,
    number: int,
    *,
    first: list[np.ndarray],
    models: Sequence[str],
    objective: FusionObjective,
    seed: int,
) -> optuna.trial.FrozenTrial:
    """Try one set of coefficients and tell the study in memory."""
    distributions: dict[str, BaseDistribution] = {model: FloatDistribution(0, 1) for model in models}
    memory.sampler = optuna.samplers.TPESampler(seed=seed + number)
    if number < len(first):
        memory.enqueue_trial({model: float(weight) for model, weight in zip(models, first[number], strict=True)})
    trial = memory.ask(distributions)
    coefficients = _coefficients(np.array([trial.params[model] for model in models]))
    return memory.tell(trial, objective(coefficients))


def _read_trial(
    trial: optuna.trial.FrozenTrial, models: Sequence[str], objective: FusionObjective, highest: float
) -> WeightTrial:
    coefficients = _coefficients(np.array([trial.params[model] for model in models]))
    return WeightTrial(
        number=trial.number,
        coefficients=dict(zip(models, coefficients.tolist(), strict=True)),
        value=float(trial.values[0]),
        log_loss=objective.log_loss(coefficients) if round(float(trial.values[0]), 12) == highest else None,
    )


def _ranking_key(trial: WeightTrial) -> tuple[float, float, float]:
    weights = np.array(list(trial.coefficients.values()))
    # rounded, so that the last bits of a sum decide nothing
    log_loss = np.inf if trial.log_loss is None else round(trial.log_loss, 12)
    return round(trial.value, 12), -log_loss, -float(((weights - 1 / len(weights)) ** 2).sum())


def _first_points(n_models: int) -> list[np.ndarray]:
    """What is tried before any sampler is asked: equal weights, each model alone, for two models then the grid."""
    if n_models == 1:
        return [np.ones(1)]
    points = [np.full(n_models, 1.0), *np.eye(n_models)]
    if n_models == 2:
        inner = [i for i in range(1, GRID) if i != GRID // 2]
        for step in (10, 5, 1):
            chosen = [i for i in inner if i % step == 0]
            points += [np.array([i, GRID - i]) / GRID for i in chosen]
            inner = [i for i in inner if i % step]
    return points


def _coefficients(raw: np.ndarray) -> np.ndarray:
    """Raw weights as whole thousandths that sum to 1 (largest remainders); equal ones stay exactly equal."""
    if not raw.any() or (raw == raw[0]).all():
        return np.full(len(raw), 1 / len(raw))
    exact = normalise(raw) * RESOLUTION
    units = np.floor(exact + 1e-9).astype(np.int64)
    units[np.argsort(units - exact, kind="stable")[: RESOLUTION - units.sum()]] += 1
    return units / RESOLUTION


def _open_study(path: Path, digest: str) -> optuna.Study:
    """The study in the journal at `path`, or a new one if it is missing, damaged or was made from something else."""
    if path.exists():
        drop_cut_off_line(path)
        try:
            study = optuna.load_study(study_name="fuse", storage=journal_storage(path))
            if study.user_attrs.get("digest") == digest:
                return study
            logger.warning("%s: made from other scores, models, objective or seed; the search begins anew", path)
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # a damaged line; no study of this name
            logger.warning("%s: not a study that can be gone on with (%s); the search begins anew", path, error)
        path.unlink()
    study = optuna.create_study(study_name="fuse", storage=journal_storage(path), direction="maximize")
    study.set_user_attr("digest", digest)
    return study


def journal_storage(path: Path) -> JournalStorage:
    """Optuna's storage in the file at `path`; who writes it holds a lock of his own."""
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock(str(path))))


class _NoLock(JournalFileOpenLock):
    """No lock for each line: its writer holds one already, and a lock that a kill left would cost 30 s."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def drop_cut_off_line(path: Path) -> None:
    """Cut the journal after its last whole line: a kill while writing would else spoil the next one too."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _digest(values: np.ndarray, labels: np.ndarray, models: Sequence[str], config: FuseConfig) -> str:
    code = [path.read_bytes() for path in SOURCES]
    digest = hashlib.sha256(repr((code, list(models), values.shape, config.objective, config.seed)).encode())
    for array in (values, labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna says a line for every trial; here only warnings."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
