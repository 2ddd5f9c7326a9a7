"""What stage extract tells of single clips, as CSV."""

import contextlib
import csv
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from avrecog.manifest import Clip
from avrecog.runtime.files import atomic_path, naming


class ClipTable:
    """A table of what is told of clips, kept on disk as it grows, so that a kill loses nothing of the stored ones."""

    def __init__(self, path: Path, columns: Sequence[str], stored: Container[str]) -> None:
        """Goes on with the rows in `path` of the clips that are stored already."""
        self.path, self.columns = path, ["clip_id", "path", *columns]
        self.rows: dict[str, list[Sequence[str]]] = {}
        with contextlib.suppress(OSError), path.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.reader(file):
                if len(row) == len(self.columns) and row[0] in stored:
                    self.rows.setdefault(row[0], []).append(row)
        with atomic_path(path) as temporary:  # the old file may be DVC's, which nothing must write into
            _write_rows(temporary, "w", (row for rows in self.rows.values() for row in rows))

    def add(self, clip: Clip, *cells: Sequence[str]) -> None:
        """Rows of a clip, before it is stored."""
        if cells:
            self.rows[clip.clip_id] = [(clip.clip_id, clip.path, *each) for each in cells]
            with naming(self.path):
                _write_rows(self.path, "a", self.rows[clip.clip_id])

    def finish(self, clips: Sequence[Clip]) -> list[Sequence[str]]:
        """Write all rows in the order of the clips."""
        rows = [row for clip in clips for row in self.rows.get(clip.clip_id, ())]
        with atomic_path(self.path) as temporary:
            _write_rows(temporary, "w", [self.columns, *rows])
        return rows


def _write_rows(path: Path, mode: str, rows: Iterable[Sequence[str]]) -> None:
    with path.open(mode, newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_table(path: Path, column: str, rows: Sequence[tuple[Clip, str]]) -> None:
    """Write a row for each clip, in their order, whole or not at all."""
    with atomic_path(path) as temporary:
        _write_rows(
            temporary, "w", [("clip_id", "path", column), *((clip.clip_id, clip.path, text) for clip, text in rows)]
        )


def shorter_tracks(
    clips: Sequence[Clip], stored: Mapping[str, Mapping[str, int]], rates: Mapping[str, float]
) -> list[tuple[Clip, str]]:
    """The stored tracks that last less than nine tenths of their clip, and how long they are: a cut-off file.

    Args:
        clips: of the manifest.
        stored: modality -> clip_id -> rows.
        rates: modality -> rows a second.
    """
    found = []
    for clip in clips:
        if clip.stop_s is None and clip.duration_estimated:
            continue  # nobody said how long it is
        for modality, n_rows in stored.items():
            stored_s = n_rows.get(clip.clip_id, math.inf) / rates[modality]
            if stored_s + 2 / rates[modality] < 0.9 * clip.duration_s:
                found.append((clip, f"{modality}: {stored_s:.2f} of {clip.duration_s:.2f} s"))
    return found
