"""Tables of what was said about each clip: CSV that people, spreadsheets and `avrecog compare` read."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avrecog.errors import ScoreError
from avrecog.runtime.files import atomic_path

COLUMNS = ("clip_id", "label", "predicted", "confidence", "label_probability")
FILE = "predictions.csv"
MAX_BYTES = 2**30  # of a file: 10 million clips


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one model said about the clips of a test; N clips, each once."""

    clip_ids: np.ndarray  # (N,) str
    labels: np.ndarray  # (N,) str, names of classes
    predicted: np.ndarray  # (N,) str, names of classes
    confidence: np.ndarray  # (N,) float64 in [0, 1], probability of the predicted class
    label_probability: np.ndarray  # (N,) float64 in [0, 1]

    @property
    def correct(self) -> np.ndarray:
        """(N,) booleans: the predicted class is the true one."""
        return self.labels == self.predicted


def predictions_from(
    clip_ids: Sequence[str] | np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Predictions:
    """The table of scores, sorted by clip id.

    Args:
        clip_ids: (N,), each once.
        labels: (N,) whole numbers in [0, K).
        probabilities: (N, K).
        classes: K names.
    """
    ids = np.array(clip_ids, dtype=str)
    order = np.argsort(ids)
    names, labels, top = np.array(classes, dtype=str), labels[order], probabilities.argmax(axis=1)[order]
    return Predictions(
        ids[order],
        names[labels],
        names[top],
        probabilities[order, top].astype(np.float64),
        probabilities[order, labels].astype(np.float64),
    )


def write_predictions(
    path: Path,
    clip_ids: Sequence[str] | np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Write the table of scores as CSV, sorted by clip id, whole or not at all; see `predictions_from`."""
    text = predictions_text(predictions_from(clip_ids, labels, probabilities, classes))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def predictions_text(table: Predictions) -> str:
    """The table as CSV."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    columns = (table.clip_ids, table.labels, table.predicted, table.confidence, table.label_probability)
    for clip_id, label, predicted, confidence, own in zip(*(column.tolist() for column in columns), strict=True):
        writer.writerow((clip_id, label, predicted, f"{confidence:.6f}", f"{own:.6f}"))
    return buffer.getvalue()


def read_predictions(path: Path) -> Predictions:
    """The table in a file.

    Raises:
        ScoreError: if the file is missing, isn't such a table, or a row is wrong; the message says which line.
    """
    reader = csv.reader(io.StringIO(_read(path), newline=""), strict=True)
    rows: dict[str, tuple[str, str, float, float]] = {}
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            got = ", ".join(header)[:200] or "an empty file"
            raise ScoreError(f"{path}: expected columns {', '.join(COLUMNS)}, got {got}; make it with stage test")
        for cells in reader:
            try:
                clip_id, label, predicted, confidence, own = cells
                row = (label, predicted, _probability(confidence), _probability(own))
            except ValueError as error:
                raise ScoreError(f"{path}, line {reader.line_num}: {_reason(cells, error)}") from None
            if clip_id in rows:
                raise ScoreError(f"{path}, line {reader.line_num}: clip {clip_id!r} is there more than once")
            rows[clip_id] = row
    except csv.Error as error:
        raise ScoreError(f"{path}, line {reader.line_num}: not CSV: {error}; make it anew with stage test") from None
    if not rows:
        raise ScoreError(f"{path}: has a header and no rows; make it anew with stage test")
    labels, predicted_names, confidences, owns = zip(*rows.values(), strict=True)
    return Predictions(
        np.array(list(rows)), np.array(labels), np.array(predicted_names), np.array(confidences), np.array(owns)
    )


def shares_correct(tables: Sequence[Predictions]) -> tuple[dict[str, str], dict[str, float]]:
    """What each clip is, and the share of the tables that are right about it, of those that have it.

    Returns: clip id -> label, and clip id -> share in [0, 1], both sorted by clip id.

    Raises:
        ScoreError: if a clip has two labels.
    """
    labels: dict[str, str] = {}
    hits: dict[str, list[bool]] = {}
    for table in tables:
        rows = (table.clip_ids.tolist(), table.labels.tolist(), table.correct.tolist())
        for clip_id, label, correct in zip(*rows, strict=True):
            if labels.setdefault(clip_id, label) != label:
                raise ScoreError(f"clip {clip_id!r} is {labels[clip_id]!r} in one run and {label!r} in another")
            hits.setdefault(clip_id, []).append(correct)
    ids = sorted(hits)
    return {clip_id: labels[clip_id] for clip_id in ids}, {c: sum(hits[c]) / len(hits[c]) for c in ids}


def _read(path: Path) -> str:
    try:
        n_bytes = path.stat().st_size
        if n_bytes > MAX_BYTES:
            raise ScoreError(f"{path}: expected at most {MAX_BYTES:,} bytes, got {n_bytes:,}")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ScoreError(f"{path}: can't be read ({error.strerror}); make it with stage test") from None
    except UnicodeDecodeError as error:
        raise ScoreError(f"{path}: expected a CSV in UTF-8 ({error}); make it anew with stage test") from None


def _probability(text: str) -> float:
    """A number in [0, 1].

    Raises:
        ValueError: if it is none.
    """
    value = float(text)
    if not 0 <= value <= 1 + 1e-3:  # float32 means over views may end a little above 1
        raise ValueError(f"expected a probability, got {text}")
    return value


def _reason(cells: Sequence[str], error: ValueError) -> str:
    if len(cells) != len(COLUMNS):
        return f"expected {len(COLUMNS)} cells, got {len(cells)}"
    return str(error)[:200]
