"""MMAction2's result files: read into score tables, and written so that its tools read ours.

| form | file | rows | clips and labels |
| --- | --- | --- | --- |
| 0.x | .pkl, .json, .yaml of `tools/test.py --out` | K numbers each | in its datalist, by place |
| 1.x | .pkl of `tools/test.py --dump` | dicts: `pred_score`, `gt_label`, ... | labels inside; names in the datalist |

Neither says whether the numbers are logits or probabilities. N clips, K classes.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from avrecog.errors import ScoreError
from avrecog.interop.safe_pickle import read_pickle
from avrecog.scores.table import Kind, Split

PICKLES, YAMLS = (".pkl", ".pickle"), (".yaml", ".yml")
ENDINGS = (*PICKLES, ".json", *YAMLS)
MAX_BYTES = 2**30  # of a file
MAX_YAML_BYTES = 5_000_000  # 25 s to read
NAMES = ("filename", "audio_path", "frame_dir", "video_id", "img_key")  # keys of a 1.x row that may name its clip
TOO_DEEP = re.compile(r"(?:[\[{]\s*){100}")
MEDIA_ENDING = re.compile(r"\.\w{2,4}$")


@dataclass(frozen=True, eq=False)
class Results:
    """What a result file of MMAction2 holds."""

    scores: np.ndarray  # (N, K) in the file's precision, finite
    labels: np.ndarray | None  # (N,) int64 in [0, K); None: the file has none
    names: tuple[str, ...] | None  # N clips; None: the file doesn't name them


@dataclass(frozen=True, eq=False)
class Datalist:
    """What a list of clips holds."""

    clip_ids: tuple[str, ...]  # paths without their endings
    labels: np.ndarray  # (N,) int64, 0 or more


@dataclass(frozen=True)
class ResultFileOptions:
    """What a person says about a result file, which doesn't say it itself."""

    datalist: Path | None = None  # whose clips the rows are, in order; a 1.x file can do without
    labels: Path | None = None  # the class names, one a line; None: the numbers from 0
    kind: Kind | None = None  # of the scores; None: as they look
    split: Split | None = None  # None: test, which nothing may be tuned on


def is_result_file(path: Path) -> bool:
    """Whether a file's ending is one of MMAction2's result files."""
    return path.suffix.lower() in ENDINGS


def read_results(path: Path) -> Results:
    """The rows of a result file of either form.

    Raises:
        ScoreError: if it can't be read, or its rows aren't K finite numbers each; PickleError if it is a pickle that
            is damaged or asks for anything but values.
    """
    rows = _read(path)
    if not isinstance(rows, list) or not rows:
        raise ScoreError(f"{path}: expected a list with a row for each clip, got {_kind_name(rows)}")
    if isinstance(rows[0], dict):
        return _of_dicts(path, rows)
    return Results(_matrix(path, rows), None, None)


def read_datalist(path: Path) -> Datalist:
    """The clips and labels of a list with a line `path label` or `path frames label` for each clip.

    Raises:
        ScoreError: if it can't be read or a line is anything else.
    """
    clip_ids, labels = [], []
    for number, line in enumerate(read_lines(path, "datalist"), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() for part in parts[1:]):
            raise ScoreError(
                f"{path}, line {number}: expected `path label` or `path frames label`, got {line.strip()[:80]!r}; "
                "a path with spaces or several labels can't be told apart"
            )
        if len(parts[-1]) > 9:
            raise ScoreError(f"{path}, line {number}: expected a class number, got {parts[-1][:80]}")
        clip_ids.append(_without_ending(parts[0]))
        labels.append(int(parts[-1]))
    if not labels:
        raise ScoreError(f"{path}: expected a line for each clip, got none")
    return Datalist(tuple(clip_ids), np.array(labels, dtype=np.int64))


def labels_of(path: Path, results: Results, datalist: Path | None, listed: Datalist | None) -> np.ndarray:
    """(N,) int64: the true classes, of the list where there is one, else of the file.

    Raises:
        ScoreError: if neither has them, or they don't fit the scores or each other.
    """
    n_clips, n_classes = results.scores.shape
    if listed is None:
        if results.labels is None:
            raise ScoreError(f"{path}: holds scores without labels; give the list of its clips with --datalist")
        return results.labels
    if len(listed.labels) != n_clips:
        raise ScoreError(f"{path}: has {n_clips:,} rows, and {datalist} {len(listed.labels):,}; give the list it is of")
    if listed.labels.max() >= n_classes:
        row = int(listed.labels.argmax())
        raise ScoreError(
            f"{datalist}: expected labels from 0 to {n_classes - 1}, as {path} has {n_classes} classes, got "
            f"{listed.labels[row]} for clip {listed.clip_ids[row]!r}"
        )
    if results.labels is not None and (results.labels != listed.labels).any():
        row = int((results.labels != listed.labels).argmax())
        raise ScoreError(
            f"{path}: its row {row} is of class {results.labels[row]}, and {datalist} has {listed.labels[row]} for "
            f"{listed.clip_ids[row]!r}; give the list it is of"
        )
    return listed.labels


def _read(path: Path) -> Any:
    ending = path.suffix.lower()
    if ending in PICKLES:
        return read_pickle(path)
    text = "\n".join(read_lines(path, "result file", MAX_YAML_BYTES if ending in YAMLS else MAX_BYTES))
    try:
        if ending not in YAMLS:
            return json.loads(text)
        if TOO_DEEP.search(text):  # the parser would take seconds to find out
            raise ScoreError(f"{path}: is nested too deeply")
        return YAML(typ="safe", pure=True).load(text)
    except RecursionError:
        raise ScoreError(f"{path}: is nested too deeply") from None
    except (YAMLError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ScoreError(f"{path}: not valid {'YAML' if ending in YAMLS else 'JSON'}: {error}") from None


def read_lines(path: Path, what: str, most_bytes: int = MAX_BYTES) -> list[str]:
    """The lines of a text file.

    Raises:
        ScoreError: if it is missing, too large or no text.
    """
    try:
        n_bytes = path.stat().st_size
        if n_bytes > most_bytes:
            raise ScoreError(f"{path}: expected a {what} of at most {most_bytes:,} bytes, got {n_bytes:,}; give a .pkl")
        return path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ScoreError(f"{path}: {what} can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ScoreError(f"{path}: expected a {what} in UTF-8") from None


def _matrix(path: Path, rows: Sequence[Any]) -> np.ndarray:
    """Rows of numbers as (N, K).

    Raises:
        ScoreError: if they are ragged, anything but numbers, not finite, or more than the file can hold.
    """
    first = _vector(rows[0])
    if first is None:
        raise ScoreError(f"{path}: expected a row of scores for each clip, got {_kind_name(rows[0])} in row 0")
    if len(first) * len(rows) > max(path.stat().st_size, 2**20):  # a number takes a byte or more
        raise ScoreError(f"{path}: holds references that unfold to {len(rows):,} x {len(first):,} numbers; not read")
    vectors = []
    for index, row in enumerate(rows):
        vector = _vector(row)
        if vector is None or len(vector) != len(first):
            what = _kind_name(row) if vector is None else f"{len(vector)}"
            raise ScoreError(f"{path}: expected {len(first)} scores, as in row 0, got {what} in row {index}")
        if not np.isfinite(vector).all():
            raise ScoreError(f"{path}: expected finite numbers, got NaN or infinity in row {index}")
        vectors.append(vector)
    return np.stack(vectors)


def _vector(row: Any) -> np.ndarray | None:
    """A row as a vector of one number or more; None if it is none."""
    if isinstance(row, list | tuple):
        if not all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in row):
            return None
        try:
            row = np.array(row, dtype=np.float64)
        except OverflowError:
            return None
    if not isinstance(row, np.ndarray) or row.ndim != 1 or row.dtype.kind not in "fiu" or not len(row):
        return None
    return row if row.dtype.kind == "f" else row.astype(np.float64)


def _of_dicts(path: Path, rows: list[Any]) -> Results:
    """The rows of a 1.x dump.

    Raises:
        ScoreError: if they aren't dicts of the same keys with a score and one label each.
    """
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or "pred_score" not in row:
            keys = f"keys {', '.join(map(str, row))[:80] or 'none'}" if isinstance(row, dict) else _kind_name(row)
            raise ScoreError(f"{path}: expected a dict with pred_score in row {index}, got {keys}")
    scores = _matrix(path, [row["pred_score"] for row in rows])
    n_classes = scores.shape[1]
    labels = None
    if any("gt_label" in row for row in rows):
        labels = np.array([_label(path, index, row.get("gt_label"), n_classes) for index, row in enumerate(rows)])
    for index, row in enumerate(rows):
        if type(row.get("num_classes", n_classes)) is not int or row.get("num_classes", n_classes) != n_classes:
            raise ScoreError(f"{path}: row {index} has {n_classes} scores, and its num_classes is another")
    for key in NAMES:
        names = [row.get(key) for row in rows]
        if all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names):
            return Results(scores, labels, tuple(_without_ending(str(name)) for name in names))
    return Results(scores, labels, None)


def _label(path: Path, index: int, value: Any, n_classes: int) -> int:
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    values = np.array(value) if type(value) is int else value
    if not isinstance(values, np.ndarray | np.integer) or values.dtype.kind not in "iu" or values.size != 1:
        what = "several" if isinstance(values, np.ndarray) and values.size > 1 else _kind_name(value)
        raise ScoreError(f"{path}: expected one label (gt_label) in row {index}, got {what}")
    label = int(values.reshape(-1)[0])
    if not 0 <= label < n_classes:
        raise ScoreError(f"{path}: expected labels from 0 to {n_classes - 1}, got {label} in row {index}")
    return label


def _without_ending(name: str) -> str:
    return MEDIA_ENDING.sub("", name) or name


def _kind_name(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    if isinstance(value, list | tuple | dict) and not value:
        return f"an empty {type(value).__name__}"
    return "nothing" if value is None else f"a {type(value).__name__}"
