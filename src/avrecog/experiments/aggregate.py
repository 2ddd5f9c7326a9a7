"""Folds and seeds gathered: from the rows of many runs to one line a model, with what spreads and how sure it is.

A fold and a seed make a cell; the newest run of a cell counts. Runs are of one group if nothing but fold and seed
differs in their parameters.
"""

import hashlib
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from avrecog.errors import ScoreError
from avrecog.experiments.tracked_rows import TrackedRun
from avrecog.metrics import bootstrap_difference, mcnemar_exact
from avrecog.scores.predictions import Predictions, shares_correct
from avrecog.tracking.provenance import PROCESS_TAG

FUSION = "fusion"
FOLD = "data.test_fold"
SEED = re.compile(r"(models\..+\.)?train\.seed")
FOUND = ("coefficients.", "fusion.")  # parameters that follow from results
MAX_SHOWN = 12  # parameters in a group's heading


class Cell(NamedTuple):
    """A fold of the data (None where the splits aren't folds) and a seed of the training."""

    fold: int | None
    seed: str


@dataclass(frozen=True)
class Experiment:
    """The rows that one execution of stage report wrote."""

    rows: Mapping[str, TrackedRun]  # by model
    params: Mapping[str, str]  # of all its models
    cell: Cell


@dataclass(frozen=True)
class Group:
    """Experiments that differ in fold and seed only."""

    params: Mapping[str, str]  # shared by all
    cells: Mapping[Cell, Experiment]  # sorted

    @property
    def models(self) -> list[str]:
        """The single models in alphabetical order, then the fusion."""
        return sorted({model for cell in self.cells.values() for model in cell.rows}, key=lambda m: (m == FUSION, m))

    def rows(self, model: str) -> dict[Cell, TrackedRun]:
        """A model's rows by cell."""
        return {cell: found.rows[model] for cell, found in self.cells.items() if model in found.rows}

    @property
    def digest(self) -> str:
        """Of what makes the group; more folds and seeds don't change it."""
        whole = [sorted(self.params.items()), any(cell.fold is not None for cell in self.cells)]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Gain:
    """What the fusion gains over the better single model on the pooled clips that both have."""

    over: str
    top1: float
    low: float
    high: float
    p_value: float | None  # McNemar's; None with several seeds


@dataclass(frozen=True)
class Summary:
    """One model of one group."""

    model: str
    folds: list[int | None]
    seeds: list[str]
    n_clips: int
    top1: float  # mean over folds of the mean over seeds
    sd_folds: float | None  # of the seeds' means; None with one fold
    sd_seeds: float | None  # of the means over the folds that every seed has; None with one seed or no such fold
    interval: tuple[float, float] | None  # None where predictions are missing
    mean_class_accuracy: float
    gain: Gain | None
    pooled: Mapping[str, Predictions]  # by seed; empty where predictions are missing


def own_parameters(row: TrackedRun) -> dict[str, str]:
    """A row's parameters without what follows from results, a single model's `train` under the model's name."""
    prefix = "" if row.model == FUSION else f"models.{row.model}."
    named = {f"{prefix}{key}" if key.startswith("train.") else key: value for key, value in row.params.items()}
    return {key: value for key, value in named.items() if not key.startswith(FOUND)}


def make_groups(rows: Sequence[TrackedRun], annotation: str | None = None) -> tuple[list[Group], int]:
    """The groups of more than one cell, and how many experiments stand alone.

    Args:
        rows: of the experiment `avrecog`, in any order.
        annotation: text that `data.annotation` must hold.
    """
    by_process: dict[str, dict[str, TrackedRun]] = {}
    for row in sorted(rows, key=lambda row: (row.started_ms, row.run_id)):
        if not row.is_parent and (annotation or "") in row.params.get("data.annotation", ""):
            by_process.setdefault(row.tags.get(PROCESS_TAG, row.run_id), {})[row.model] = row
    found: dict[str, Group] = {}
    for of_process in by_process.values():  # newer ones take the place of older ones
        experiment = _experiment(of_process)
        if experiment is None:
            continue
        shared = {key: value for key, value in experiment.params.items() if key != FOLD and not SEED.fullmatch(key)}
        group = Group(shared, {experiment.cell: experiment})
        before = found.get(group.digest)
        found[group.digest] = Group(shared, {**before.cells, **group.cells}) if before else group
    many = [group for group in found.values() if len(group.cells) > 1]
    ordered = [Group(group.params, dict(sorted(group.cells.items(), key=_order))) for group in many]
    return sorted(ordered, key=lambda group: sorted(group.params.items())), len(found) - len(many)


def _order(item: tuple[Cell, Experiment]) -> tuple[int, list[int]]:
    return -1 if item[0].fold is None else item[0].fold, _seed_order(item[0].seed)


def _seed_order(seed: str) -> list[int]:
    return [int(part) for part in seed.split("-")]


def _experiment(rows: Mapping[str, TrackedRun]) -> Experiment | None:
    """The experiment of rows by model; None if they don't say fold and seed."""
    params: dict[str, str] = {}
    for model in sorted(rows):
        params |= own_parameters(rows[model])
    fold = params.get(FOLD, "None")
    seeds = [params[key] for key in sorted(params) if SEED.fullmatch(key)]
    if not seeds or not all(re.fullmatch(r"\d{1,18}", number) for number in seeds):
        return None
    if fold != "None" and not re.fullmatch(r"\d{1,18}", fold):
        return None
    seed = seeds[0] if len(set(seeds)) == 1 else "-".join(seeds)
    return Experiment(rows, params, Cell(None if fold == "None" else int(fold), seed))


def summarise(group: Group, predictions: Mapping[str, Predictions]) -> list[Summary]:
    """A line for each model of the group.

    Args:
        group: the rows.
        predictions: run id -> what it said; a run whose predictions are missing isn't there.

    Raises:
        ScoreError: if a clip stands in two test folds, or has two labels.
    """
    shares = {model: _pooled_shares(group.rows(model), predictions) for model in group.models}
    return [_summary(group.rows(model), model, shares, predictions) for model in group.models]


def _summary(
    rows: Mapping[Cell, TrackedRun],
    model: str,
    shares: Mapping[str, dict[str, float]],
    predictions: Mapping[str, Predictions],
) -> Summary:
    folds = list(dict.fromkeys(cell.fold for cell in rows))
    seeds = sorted({cell.seed for cell in rows}, key=_seed_order)
    top1 = {cell: row.metrics["test.top1"] for cell, row in rows.items()}
    of_fold = _means_by_fold(top1)
    whole = [fold for fold in folds if all(Cell(fold, seed) in rows for seed in seeds)]
    of_seed = [statistics.fmean(top1[Cell(fold, seed)] for fold in whole) for seed in seeds] if whole else []
    pooled = shares[model]
    values = np.array(list(pooled.values()))
    n_clips = _means_by_fold({cell: row.metrics["test.n_clips"] for cell, row in rows.items()})
    classes = _means_by_fold({cell: row.metrics["test.mean_class_accuracy"] for cell, row in rows.items()})
    return Summary(
        model,
        folds,
        seeds,
        len(pooled) or round(sum(n_clips)),
        statistics.fmean(of_fold),
        statistics.stdev(of_fold) if len(folds) > 1 else None,
        statistics.stdev(of_seed) if len(of_seed) > 1 else None,
        bootstrap_difference(values, np.zeros_like(values)) if pooled else None,
        statistics.fmean(classes),
        _gain(shares, len(seeds)) if model == FUSION else None,
        {seed: _joined([predictions[rows[cell].run_id] for cell in rows if cell.seed == seed]) for seed in seeds}
        if pooled
        else {},
    )


def _means_by_fold(values: Mapping[Cell, float]) -> list[float]:
    """The mean over the seeds of each fold."""
    by_fold: dict[int | None, list[float]] = {}
    for cell, value in values.items():
        by_fold.setdefault(cell.fold, []).append(value)
    return [statistics.fmean(of_fold) for of_fold in by_fold.values()]


def _pooled_shares(rows: Mapping[Cell, TrackedRun], predictions: Mapping[str, Predictions]) -> dict[str, float]:
    """Clip id -> share of the seeds that were right, over all folds; empty if a run's predictions are missing.

    Raises:
        ScoreError: if a clip stands in two test folds.
    """
    if any(row.run_id not in predictions for row in rows.values()):
        return {}
    pooled: dict[str, float] = {}
    fold_of: dict[str, int | None] = {}
    for fold in dict.fromkeys(cell.fold for cell in rows):
        of_fold = [row.run_id for cell, row in rows.items() if cell.fold == fold]
        shares = shares_correct([predictions[run_id] for run_id in of_fold])[1]
        doubled = sorted(pooled.keys() & shares.keys())
        if doubled:
            other = fold_of[doubled[0]]
            runs = [row.run_id for cell, row in rows.items() if cell.fold == other]
            raise ScoreError(
                f"clip {doubled[0]!r} is in the test of fold {other} (run {runs[0]}) and of fold {fold} (run "
                f"{of_fold[0]}), as are {len(doubled) - 1} more; they were made from other annotations: delete the old "
                "ones in MLflow, or leave them out with --annotation"
            )
        pooled |= shares
        fold_of |= dict.fromkeys(shares, fold)
    return dict(sorted(pooled.items()))


def _joined(tables: Sequence[Predictions]) -> Predictions:
    """The tables below each other, sorted by clip id."""
    columns = ("clip_ids", "labels", "predicted", "confidence", "label_probability")
    joined = [np.concatenate([getattr(table, name) for table in tables]) for name in columns]
    order = np.argsort(joined[0])
    return Predictions(*(column[order] for column in joined))


def _gain(shares: Mapping[str, dict[str, float]], n_seeds: int) -> Gain | None:
    """What the fusion gains; None where there is no single model, or predictions are missing."""
    fused = shares[FUSION]
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for model, single in shares.items():
        common = sorted(fused.keys() & single.keys())
        if model != FUSION and common:
            pairs[model] = (np.array([single[clip] for clip in common]), np.array([fused[clip] for clip in common]))
    if not pairs or not all(shares.values()):
        return None
    over = max(pairs, key=lambda model: pairs[model][0].mean())
    of_single, of_fusion = pairs[over]
    low, high = bootstrap_difference(of_fusion, of_single)
    p_value = mcnemar_exact(of_fusion == 1, of_single == 1) if n_seeds == 1 else None
    return Gain(over, float((of_fusion - of_single).mean()), low, high, p_value)


def lacking(group: Group) -> list[str]:
    """The cells that others of the grid have and this one hasn't, in words."""
    folds = list(dict.fromkeys(cell.fold for cell in group.cells))
    seeds = sorted({cell.seed for cell in group.cells}, key=_seed_order)
    words = []
    for cell in (Cell(fold, seed) for fold in folds for seed in seeds):
        models = [model for model in group.models if cell not in group.rows(model)]
        if models:
            of = "" if models == group.models else f" ({', '.join(models)})"
            words.append(f"fold {'-' if cell.fold is None else cell.fold} with seed {cell.seed}{of}")
    return words


def differing_tags(group: Group, tag: str) -> list[str]:
    """The values of a tag over the group's rows, each once, in order."""
    return sorted({row.tags[tag] for cell in group.cells.values() for row in cell.rows.values() if tag in row.tags})


def heading(group: Group, groups: Sequence[Group]) -> str:
    """What distinguishes the group: its annotation, and parameters that differ from the other groups of that one."""
    annotation = group.params.get("data.annotation", "")
    others = [other for other in groups if other.params.get("data.annotation", "") == annotation]
    models = set.intersection(*(set(other.models) for other in others))
    words = []
    for key in sorted({key for other in others for key in other.params}):
        of_model = re.match(r"models\.([^.]+)\.", key)
        values = {other.params.get(key) for other in others}
        if len(values) > 1 and not (of_model and of_model[1] not in models):
            words.append(f"{key} {group.params.get(key, 'absent')}")
    more = [f"and {len(words) - MAX_SHOWN} more"] if len(words) > MAX_SHOWN else []
    return "; ".join([annotation, *words[:MAX_SHOWN], *more])


def shared_params(rows: Sequence[TrackedRun]) -> dict[str, str]:
    """The parameters that all rows have with one value, without what follows from results."""
    first, *others = (row.params for row in rows)
    return {
        key: value
        for key, value in first.items()
        if not key.startswith(FOUND) and all(other.get(key) == value for other in others)
    }
