"""The command `avrecog gather`: the groups as Markdown, and a parent for each of their models in MLflow."""

import hashlib
from collections.abc import Sequence

from avrecog.errors import ScoreError
from avrecog.experiments.aggregate import (
    Gain,
    Group,
    Summary,
    differing_tags,
    heading,
    lacking,
    make_groups,
    shared_params,
    summarise,
)
from avrecog.experiments.tracked_rows import (
    CONTENT_TAG,
    GROUP_TAG,
    Parent,
    finished_rows,
    read_run_predictions,
    write_parents,
)

COLUMNS = (
    *("model", "folds", "seeds", "clips", "top-1", "sd over folds", "sd over seeds", "95 % interval"),
    *("mean class accuracy", "gain over the better single model"),
)
LEGEND = (
    "Per cent, on test. top-1: mean over folds of the mean over seeds. sd over folds: of the seeds' means; over seeds: "
    "of the folds' means. Intervals: bootstrap over the pooled clips, each clip's share of right seeds; they hold the "
    "luck of the clips, not that of another training."
)
KEPT_TAGS = ("git.commit", "git.dirty", "hardware", "torch", "threads", "data.manifest", "data.splits")


def gather(annotation: str | None = None) -> str:
    """Gather the rows of folds and seeds: the Markdown to print; the parents are written to MLflow.

    Args:
        annotation: text that `data.annotation` of the rows must hold; None takes all.

    Raises:
        ScoreError: if there is nothing to gather, or rows don't fit together.
    """
    groups, n_alone = make_groups(finished_rows(), annotation)
    if not groups:
        what = f" of an annotation with {annotation!r}" if annotation else ""
        raise ScoreError(
            f"nothing to gather: no two finished experiments{what} differ in fold or seed alone ({n_alone} stand "
            "alone); run some: dvc exp run --queue -S data.test_fold=1,2,3, or -S train.seed=1,2,3"
        )
    parts, parents = [], []
    for group in groups:
        rows = [row for cell in group.cells.values() for row in cell.rows.values()]
        read = read_run_predictions(rows)
        summaries = summarise(group, {run_id: tables[""] for run_id, tables in read.items() if "" in tables})
        parts.append(page(group, groups, summaries))
        parents += [parent(group, summary) for summary in summaries]
    write_parents(parents)
    alone = [f"{n_alone} experiments stand alone (no other fold or seed) and are left out."] if n_alone else []
    return "\n\n".join([*parts, LEGEND, *alone])


def page(group: Group, groups: Sequence[Group], summaries: Sequence[Summary]) -> str:
    """A group's heading, what is to be said about it, and its table."""
    notes = []
    for tag, what in (("git.commit", "code"), ("data.manifest", "manifests")):
        values = differing_tags(group, tag)
        if len(values) > 1:
            notes.append(f"Not all of the same {what}: {tag} is {', '.join(value[:10] for value in values)}.")
    if "true" in differing_tags(group, "git.dirty"):
        notes.append("Some were made from a working tree with changes of more than parameters that no commit has.")
    if words := lacking(group):
        notes.append(f"Incomplete: missing are {', '.join(words)}.")
    without = [summary.model for summary in summaries if not summary.pooled]
    if without:
        notes.append(
            f"No interval for {', '.join(without)}: some rows keep no predictions; run their experiments anew."
        )
    lines = [
        f"### {heading(group, groups)}",
        *(line for note in notes for line in ("", note)),
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| {' | '.join('---' for _ in COLUMNS)} |",
        *(f"| {' | '.join(_cells(summary))} |" for summary in summaries),
    ]
    return "\n".join(lines)


def _cells(summary: Summary) -> tuple[str, ...]:
    return (
        summary.model,
        ", ".join("-" if fold is None else str(fold) for fold in summary.folds),
        ", ".join(summary.seeds),
        f"{summary.n_clips:,}",
        f"{100 * summary.top1:.2f}",
        _percent(summary.sd_folds),
        _percent(summary.sd_seeds),
        "-" if summary.interval is None else "{:.2f} to {:.2f}".format(*(100 * end for end in summary.interval)),
        f"{100 * summary.mean_class_accuracy:.2f}",
        "-" if summary.gain is None else _format_gain(summary.gain),
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _format_gain(gain: Gain) -> str:
    p_value = "" if gain.p_value is None else f", p = {gain.p_value:.2g}"
    ends = f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
    return f"{100 * gain.top1:+.2f} over {gain.over} ({ends}{p_value})"


def parent(group: Group, summary: Summary) -> Parent:
    """The MLflow run that stands for a model of a group."""
    rows = list(group.rows(summary.model).values())
    numbers = {
        "test.top1": summary.top1,
        "test.top1_sd_folds": summary.sd_folds,
        "test.top1_sd_seeds": summary.sd_seeds,
        "test.top1_low": summary.interval and summary.interval[0],
        "test.top1_high": summary.interval and summary.interval[1],
        "test.mean_class_accuracy": summary.mean_class_accuracy,
        "n_clips": float(summary.n_clips),
    }
    if summary.gain is not None:
        gain = summary.gain
        numbers |= {"gain.top1": gain.top1, "gain.top1_low": gain.low, "gain.top1_high": gain.high}
        numbers |= {"gain.p_value": gain.p_value}
    metrics = {key: value for key, value in numbers.items() if value is not None}
    params = shared_params(rows)
    tags = {"model": summary.model, "stage": "gather", GROUP_TAG: group.digest}
    for tag in KEPT_TAGS:
        tags[tag] = ", ".join(sorted({row.tags[tag] for row in rows if tag in row.tags})) or "unknown"
    children = sorted(row.run_id for row in rows)
    content = hashlib.sha256(repr((children, sorted(metrics.items()), sorted(params.items()), tags)).encode())
    tags[CONTENT_TAG] = content.hexdigest()[:16]
    return Parent(summary.model, params, tags, metrics, summary.pooled, children)
