"""Two runs, or what is gathered of several, compared clip by clip: arithmetic and words, without MLflow."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avrecog.errors import ConfigError, ScoreError
from avrecog.experiments.aggregate import FOUND, FUSION, own_parameters
from avrecog.experiments.tracked_rows import GROUP_TAG, TrackedRun
from avrecog.metrics import bootstrap_difference, bootstrap_gain, mcnemar_exact
from avrecog.scores.predictions import Predictions, shares_correct
from avrecog.tracking.provenance import PROCESS_TAG

MIN_PREFIX = 6
EXPERIMENT_TAG = "dvc.exp_name"
POWER = 1.96 + 0.84  # standard errors that are seen at the 5 % level four times in five
MAX_CHANGES = 40  # parameters that are listed


@dataclass(frozen=True)
class Side:
    """What stands on one side of a comparison."""

    name: str
    tables: Mapping[str, Predictions]  # by seed; a single run has one, whatever its key
    row: TrackedRun | None = None  # None for a file, of which nothing else is known


@dataclass(frozen=True)
class Comparison:
    """B against A on the clips that both have."""

    top1: tuple[float, float]  # of A and B, each on all of its clips
    n_clips: tuple[int, int]
    n_common: int
    seeds: Sequence[str]  # of both sides where both have several; else none
    difference: float  # top-1 of B less that of A
    low: float
    high: float
    p_value: float | None  # McNemar's; None where a side has several seeds
    wins: tuple[int, int]  # clips that A, and that B, is right about (more often)
    detectable: float  # a difference of this size would be seen four times in five

    @property
    def is_more_than_luck(self) -> bool:
        """Whether the interval excludes 0, and the test agrees where there is one."""
        return not self.low <= 0 <= self.high and (self.p_value is None or self.p_value < 0.05)


def compare_sides(a: Side, b: Side) -> Comparison:
    """B against A, clip by clip.

    Raises:
        ScoreError: if they have no seed or no clip in common, or a clip has two labels.
    """
    tables_a, tables_b, seeds = _common_seeds(a, b)
    labels_a, shares_a = shares_correct(tables_a)
    labels_b, shares_b = shares_correct(tables_b)
    common = sorted(labels_a.keys() & labels_b.keys())
    if not common:
        clips = [f"{side.name} has {next(iter(labels))!r}" for side, labels in ((a, labels_a), (b, labels_b))]
        raise ScoreError(f"no clip is in both: {', '.join(clips)}; compare tests of the same data and split")
    for clip in common:
        if labels_a[clip] != labels_b[clip]:
            raise ScoreError(
                f"clip {clip!r} is {labels_a[clip]!r} for {a.name} and {labels_b[clip]!r} for {b.name}; they were made "
                "from different annotations"
            )
    of_a, of_b = (np.array([shares[clip] for clip in common]) for shares in (shares_a, shares_b))
    single = len(tables_a) == len(tables_b) == 1
    low, high = bootstrap_gain(of_b == 1, of_a == 1) if single else bootstrap_difference(of_b, of_a)
    difference = of_b - of_a
    spread = POWER * float(difference.std()) / math.sqrt(len(common))
    return Comparison(
        (float(np.mean(list(shares_a.values()))), float(np.mean(list(shares_b.values())))),
        (len(shares_a), len(shares_b)),
        len(common),
        seeds,
        float(difference.mean()),
        low,
        high,
        mcnemar_exact(of_b == 1, of_a == 1) if single else None,
        (int(np.count_nonzero(difference < -1e-9)), int(np.count_nonzero(difference > 1e-9))),
        min(1.0, max(spread, 6 / len(common))),  # fewer than 6 clips all one way never make p < 0.05
    )


def _common_seeds(a: Side, b: Side) -> tuple[list[Predictions], list[Predictions], list[str]]:
    """The tables to compare, and their seeds where both sides have several.

    Raises:
        ScoreError: if both have several and none in common.
    """
    if len(a.tables) < 2 or len(b.tables) < 2:
        return list(a.tables.values()), list(b.tables.values()), []
    seeds = [seed for seed in a.tables if seed in b.tables]
    if not seeds:
        raise ScoreError(
            f"no seed is in both: {a.name} has {', '.join(a.tables)}, {b.name} has {', '.join(b.tables)}; train one "
            "with a seed of the other and gather again"
        )
    return [a.tables[seed] for seed in seeds], [b.tables[seed] for seed in seeds], seeds


def format_comparison(a: Side, b: Side, found: Comparison) -> list[str]:
    """The comparison in words, a line each."""
    lines = []
    for letter, side, top1, n in zip("AB", (a, b), found.top1, found.n_clips, strict=True):
        seeds = "" if len(side.tables) < 2 else f", mean of seeds {', '.join(found.seeds or side.tables)}"
        lines.append(f"{letter}  {side.name}: top-1 {100 * top1:.2f} %, {n:,} clips{seeds}")
    only = [n - found.n_common for n in found.n_clips]
    lines.append(f"{found.n_common:,} clips are common, {only[0]:,} are only in A, {only[1]:,} only in B")
    p_value = "" if found.p_value is None else f", p = {found.p_value:.2g} (McNemar's exact test)"
    lines += [
        f"top-1 of B less A: {100 * found.difference:+.2f} points, 95 % interval {100 * found.low:+.2f} to "
        f"{100 * found.high:+.2f} (paired bootstrap over clips){p_value}",
        f"clips: {found.wins[0]:,} only A gets right, {found.wins[1]:,} only B"
        if found.p_value is not None
        else f"clips: A is right more often about {found.wins[0]:,}, B about {found.wins[1]:,}",
    ]
    if found.is_more_than_luck:
        lines.append(f"B is {'better' if found.difference > 0 else 'worse'} than A by more than luck with these clips.")
    else:
        lines.append("No difference that luck with these clips can't explain.")
    lines.append(
        f"What {found.n_common:,} clips can show: a difference of {100 * found.detectable:.1f} points or more would be "
        "seen four times in five; a smaller one needs more clips."
    )
    return lines


def find_row(text: str, rows: Sequence[TrackedRun], model: str | None) -> TrackedRun:
    """The row that a run id, the beginning of one, or the name of a DVC experiment stands for.

    Args:
        text: what the person typed.
        rows: of the experiment `avrecog`, newest first.
        model: whose row of that run; None: a run id's own, else the fusion's, else the only one.

    Raises:
        ConfigError: if nothing or several things are meant; says what there is.
    """
    named = [row for row in rows if row.tags.get(EXPERIMENT_TAG) == text and not row.is_parent]
    if named:
        return _of_model(text, _siblings(named[0], rows), model)
    if re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},32}}", text):
        begun = [row for row in rows if row.run_id.startswith(text)]
        if len(begun) > 1:
            shown = ", ".join(f"{row.run_id} ({row.model})" for row in begun[:5])
            raise ConfigError(f"{text}: {len(begun)} runs begin so: {shown}; give more of it")
        if begun:
            return begun[0] if model is None else _of_model(text, _siblings(begun[0], rows), model)
    names = list(dict.fromkeys(row.tags[EXPERIMENT_TAG] for row in rows if EXPERIMENT_TAG in row.tags))
    near = difflib.get_close_matches(text, [*names, *(row.run_id for row in rows)], 3, 0.5)
    what = f"did you mean {', '.join(near)}?" if near else f"experiments there: {', '.join(names[:10]) or 'none'}"
    raise ConfigError(
        f"{text}: neither a score file (.npz), a table of predictions (.csv), nor the id of a run (at least "
        f"{MIN_PREFIX} characters) or the name of a DVC experiment in MLflow's `avrecog`; {what}"
    )


def _siblings(row: TrackedRun, rows: Sequence[TrackedRun]) -> dict[str, TrackedRun]:
    """The rows that were written with this one, by model; the newest of each."""
    tag = GROUP_TAG if row.is_parent else PROCESS_TAG
    own = row.tags.get(tag, row.run_id)
    same = [other for other in rows if other.is_parent == row.is_parent and other.tags.get(tag, other.run_id) == own]
    return {other.model: other for other in [*reversed(same), row]}


def _of_model(text: str, rows: Mapping[str, TrackedRun], model: str | None) -> TrackedRun:
    """The row of the model, or the one that needs no name.

    Raises:
        ConfigError: if there is none of that name, or several without a fusion.
    """
    models = ", ".join(sorted(rows))
    wanted = model or (FUSION if FUSION in rows or len(rows) > 1 else models)
    if wanted in rows:
        return rows[wanted]
    if model is None:
        raise ConfigError(f"{text}: has rows of {models}; choose with --model")
    raise ConfigError(f"{text}: has no row of model {model}; there are {models}")


def changed(a: TrackedRun, b: TrackedRun, code: str | None) -> list[str]:
    """What differs between two rows, a line each.

    Args:
        a: before.
        b: after.
        code: `git diff --stat` between their commits; None where that can't be told.
    """
    of_a, of_b = (dict(a.params), dict(b.params)) if a.model == b.model else (own_parameters(a), own_parameters(b))
    keys = [key for key in sorted(of_a.keys() | of_b.keys()) if not key.startswith(FOUND)]
    differing = [key for key in keys if of_a.get(key) != of_b.get(key)]
    lines = [f"{key}: {of_a.get(key, '-')} -> {of_b.get(key, '-')}" for key in differing[:MAX_CHANGES]]
    if len(differing) > MAX_CHANGES:
        lines.append(f"and {len(differing) - MAX_CHANGES} more parameters")
    for tag in ("data.manifest", "data.splits", "hardware", "torch", "threads"):
        if a.tags.get(tag) != b.tags.get(tag):
            lines.append(f"{tag}: {a.tags.get(tag, '-')} -> {b.tags.get(tag, '-')}")
    if a.tags.get("data.splits") != b.tags.get("data.splits"):
        lines.append("the splits differ: they were not trained and tested on the same clips")
    commits = [row.tags.get("git.commit", "-") for row in (a, b)]
    if commits[0] != commits[1]:
        lines.append(f"git.commit: {commits[0]}..{commits[1]}")
        unknown = "  what changed between them can't be told here: this repository doesn't have both"
        lines += [unknown] if code is None else [f"  {line}" for line in code.splitlines()]
        lines += ["  no file of src or stages differs"] if code == "" else []
    for letter, row in (("A", a), ("B", b)):
        if "true" in row.tags.get("git.dirty", ""):
            lines.append(
                f"{letter} was made from a working tree with changes of more than parameters that no commit has"
            )
    return lines or ["nothing that is recorded"]
