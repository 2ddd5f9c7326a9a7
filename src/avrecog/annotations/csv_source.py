"""Source `csv`: a table with one row a clip, its columns and what they may hold."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.base import Source
from avrecog.annotations.names import cleaned
from avrecog.annotations.settings import DataConfig
from avrecog.errors import ManifestError
from avrecog.manifest import media_path

REQUIRED = ("path", "label")
OPTIONAL = ("split", "fold", "group", "start", "end", "clip_id")


class CsvSource(Source):
    """`data.annotation` is the file."""

    has_folds = True

    def read(self, data: DataConfig, out: Path) -> list[AnnotatedClip]:
        """Its rows."""
        return read_csv(media_path(data.annotation), Path(data.annotation).parent)


def read_csv(annotation: Path, folder: Path) -> list[AnnotatedClip]:
    """The rows of a CSV with `path,label` and optional `split, fold, group, start, end, clip_id`.

    `start` and `end` are seconds. Other columns are passed over. Paths count from `folder`, the CSV's own.

    Raises:
        ManifestError: if the file can't be read, a column is missing, it has no rows, or rows are wrong (all listed).
    """
    try:
        text = annotation.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(
            f"{annotation}: can't be read ({error.strerror}); see data.annotation in params.yaml"
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{annotation}: expected a CSV in UTF-8 ({error}); save it as `CSV UTF-8`, as spreadsheets call it"
        ) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)  # an open quote would swallow rows
    try:
        return _rows(reader, annotation, folder)
    except csv.Error as error:
        raise ManifestError(f"{annotation}: not a CSV file: {error}; look for a quote that isn't closed") from None


def _rows(reader: "csv.DictReader[str]", annotation: Path, folder: Path) -> list[AnnotatedClip]:
    """The rows, all of them read and checked.

    Raises:
        ManifestError: if a column is missing, there are no rows, or rows are wrong.
    """
    fields = reader.fieldnames or []
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise ManifestError(
            f"{annotation}: column `{missing[0]}` is missing; expected {', '.join(REQUIRED)} and optionally "
            f"{', '.join(OPTIONAL)}; got {', '.join(fields) or 'an empty file'}"
            f"{'; separate the cells by commas, not semicolons' if ';' in ''.join(fields) else ''}"
        )
    clips, problems = [], []
    for row in reader:
        where = f"{annotation.name}, line {reader.line_num}"
        try:
            clips.append(_annotated(row, where, folder))
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if problems:
        shown = "\n  ".join(problems[:20])
        raise ManifestError(f"{annotation}: {len(problems)} rows are wrong:\n  {shown}")
    if not clips:
        raise ManifestError(f"{annotation}: has a header and no rows; expected one row a clip")
    return clips


def _annotated(row: Mapping[str | None, str | None], where: str, folder: Path) -> AnnotatedClip:
    if None in row or None in row.values():
        raise ValueError("expected as many cells as the header has")
    cells = {str(key): (value or "").strip() for key, value in row.items()}
    for name in REQUIRED:
        if not cells[name]:
            raise ValueError(f"`{name}` is empty")
    split = cleaned(cells.get("split", "")) or None
    if split not in (None, "train", "val", "test"):
        raise ValueError(f"expected split train, val or test, got {split!r}")
    start_s, stop_s = _seconds(cells, "start"), _seconds(cells, "end")
    if stop_s is not None and stop_s <= (start_s or 0.0):
        raise ValueError(f"expected start before end, got start {start_s or 0:g} and end {stop_s:g}")
    return AnnotatedClip(
        path=str(folder / str(row["path"])),
        label=cells["label"],
        where=where,
        split=split,
        fold=_fold(cells),
        group=cells.get("group") or None,
        start_s=start_s,
        stop_s=stop_s,
        clip_id=cells.get("clip_id") or None,
    )


def _seconds(cells: Mapping[str, str], name: str) -> float | None:
    text = cells.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"expected `{name}` in seconds, got {text!r}") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"expected `{name}` in seconds, 0 or more, got {text!r}")
    return value


def _fold(cells: Mapping[str, str]) -> int | None:
    text = cells.get("fold")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number as `fold`, got {text!r}") from None
