"""Score files: a table of scores as .npz, read without unpickling anything."""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np

from avrecog.errors import ScoreError
from avrecog.runtime.files import atomic_path
from avrecog.scores.table import Kind, ScoreTable, Split

ENTRIES = ("clip_id", "label", "scores", "classes", "kind", "model", "split")  # and `left_out`, which may be missing
MAX_BYTES = 8 * 2**30  # of a score file, unpacked: 3 million clips of 700 classes
MAX_UNPACKED = 100  # times the file's own size: what deflate makes of real scores is far from it

UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)  # what zipfile and numpy raise over files that are none


def write_scores(path: Path, table: ScoreTable) -> None:
    """Write a score file (.npz), whole or not at all; equal tables give equal bytes."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            clip_id=table.clip_ids,
            label=table.labels,
            scores=table.scores,
            classes=np.array(table.classes),
            kind=np.array(table.kind),
            model=np.array(table.model),
            split=np.array(table.split),
            left_out=table.left_out,
        )


def read_scores(path: Path) -> ScoreTable:
    """The table in a score file. Never unpickles anything.

    Raises:
        ScoreError: if the file is missing, damaged or isn't a valid score file.
    """
    entries = read_entries(path, "score file", "make it with stage test")
    absent = [name for name in ENTRIES if name not in entries]
    if absent:
        raise ScoreError(
            f"{path}: expected a score file, entries missing: {', '.join(absent)}; got {', '.join(entries) or 'none'}; "
            "make it with stage test"
        )
    try:
        return ScoreTable(
            clip_ids=entries["clip_id"],
            labels=entries["label"],
            scores=entries["scores"],
            classes=tuple(str(name) for name in np.atleast_1d(entries["classes"])),
            kind=cast(Kind, str(entries["kind"])),
            model=str(entries["model"]),
            split=cast(Split, str(entries["split"])),
            left_out=entries.get("left_out", np.zeros(0, "U1")),
        )
    except ScoreError as error:
        raise ScoreError(f"{path}: {error}; make it anew with stage test") from None


def read_entries(path: Path, what: str, advice: str) -> dict[str, Any]:
    """The arrays of an .npz, each checked to be as large as the file says before it is read. Never unpickles anything.

    Args:
        path: the file.
        what: it should be, for messages.
        advice: what to do if it is not.

    Raises:
        ScoreError: if the file is missing, damaged, not an .npz, or claims more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if total > MAX_BYTES or total > max(MAX_UNPACKED * path.stat().st_size, 2**20):
                raise ScoreError(f"{path}: unpacks to {total:,} bytes, too many for a {what}")
            for entry in entries:
                _check_size(archive, entry)
        with np.load(path, allow_pickle=False) as loaded:
            return dict(loaded)
    except FileNotFoundError:
        raise ScoreError(f"{path}: there is no such {what}; {advice}") from None
    except UNREADABLE as error:
        raise ScoreError(
            f"{path}: expected a {what} (.npz without pickled objects), can't be read: {error}; {advice}"
        ) from None


def _check_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Compare what an array's header says with what there is: numpy takes memory by the header alone.

    Raises:
        ValueError: if they differ, or it is no array.
    """
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{entry.filename} has format {version}")
        shape, _, dtype = read_header[version](file)
        claimed, there = math.prod(shape) * dtype.itemsize, entry.file_size - file.tell()
    if claimed != there and not dtype.hasobject:  # numpy refuses objects by itself
        raise ValueError(f"{entry.filename} has {there:,} bytes, and its header says {claimed:,}")
