"""The command `avrecog compare`: finds what its two arguments mean, and says how they differ."""

from pathlib import Path

from avrecog.errors import ScoreError
from avrecog.experiments.comparison import EXPERIMENT_TAG, Side, changed, compare_sides, find_row, format_comparison
from avrecog.scores.npz import read_scores
from avrecog.scores.predictions import predictions_from, read_predictions
from avrecog.scores.table import probabilities
from avrecog.tracking.provenance import changed_files


def compare(a: str, b: str, model: str | None = None) -> str:
    """What to print about two results: whether they differ by more than luck, and in what they were made differently.

    Args:
        a: path of a score file (.npz) or a table of predictions (.csv), id of an MLflow run or its beginning, or name
            of a DVC experiment.
        b: likewise.
        model: whose row of a run; see `find_row`.
    """
    one, other = _side(a, model), _side(b, model)
    lines = format_comparison(one, other, compare_sides(one, other))
    if one.row is None or other.row is None:
        lines.append("changed from A to B: unknown; a file doesn't say how it was made")
    else:
        before, after = (row.tags.get("git.commit", "") for row in (one.row, other.row))
        lines += ["changed from A to B:"]
        lines += [f"  {line}" for line in changed(one.row, other.row, changed_files(before, after))]
    return "\n".join(lines)


def _side(text: str, model: str | None) -> Side:
    """What an argument means.

    Raises:
        ScoreError: if the run keeps no predictions.
    """
    path = Path(text)
    if path.suffix == ".npz":
        table = read_scores(path)
        return Side(text, {"": predictions_from(table.clip_ids, table.labels, probabilities(table), table.classes)})
    if path.suffix == ".csv":
        return Side(text, {"": read_predictions(path)})
    from avrecog.experiments.tracked_rows import finished_rows, read_run_predictions

    row = find_row(text, finished_rows(), model)
    tables = read_run_predictions([row])[row.run_id]
    if not tables:
        raise ScoreError(
            f"{text}: run {row.run_id} ({row.model}) keeps no predictions, so its clips can't be compared; run its "
            "experiment anew"
        )
    known = row.tags.get(EXPERIMENT_TAG)
    kind = "gathered " if row.is_parent else ""
    of = f" of {known}" if known and not row.is_parent else ""
    return Side(f"{kind}{row.model}{of} (run {row.run_id[:8]})", tables, row)
