"""Reading a store of features: clip id -> rows of one memory-mapped file; `extraction/store_writer.py` writes it.

A store is a folder: `values.bin` (rows of one shape and type), `index.csv` (one line a clip: where its rows lie, and
their checksum), `store.json` (the settings it was made with), which is written last: a folder without it is not yet a
store. A line of the index is written only when the rows it speaks of are on the disk, so a kill loses the clips since
the last line and nothing else.
"""

import csv
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avrecog.errors import StoreError
from avrecog.runtime.worker_pool import n_processors

DTYPES = ("float16", "uint8")  # log-mel, frames
BLOCK_BYTES = 32 * 2**20  # written and synced together


class ClipRows(Protocol):
    """What a dataset needs of a store."""

    values: np.ndarray  # (all rows, *row_shape)
    start: np.ndarray  # (n_clips,) int64
    n_rows: np.ndarray  # (n_clips,) int64

    def __contains__(self, clip_id: str) -> bool: ...

    def positions(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Where each clip stands in `start` and `n_rows`."""
        ...


class MemoryStore:
    """Arrays in memory that look like a store, for clips that are decoded to be predicted at once."""

    def __init__(self, arrays: Mapping[str, np.ndarray], no_rows: np.ndarray | None = None) -> None:
        """One array of rows for each clip id; without any, `no_rows` (0, *row_shape) says what they would be."""
        self.n_rows = np.array([len(rows) for rows in arrays.values()], dtype=np.int64)
        self.start = np.cumsum(self.n_rows) - self.n_rows
        self.values = np.concatenate([*arrays.values(), *([] if no_rows is None else [no_rows])])
        self._position = {clip_id: index for index, clip_id in enumerate(arrays)}

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._position

    def positions(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Where each clip stands in `start` and `n_rows`: (n,) int64."""
        return np.array([self._position[clip_id] for clip_id in clip_ids], dtype=np.int64)


class Store:
    """A finished store, open for reading.

    Attributes:
        values: (all rows, *row_shape), memory-mapped, read-only.
        clip_ids: the stored clips, in the order of their rows.
        start, n_rows: (n_clips,) int64: clip i lies in values[start[i] : start[i] + n_rows[i]].
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        """Open a store and check that it is whole and was made with `settings` (None: any).

        Raises:
            StoreError: if it is missing, unfinished, damaged, or was made with other settings.
        """
        if not (folder / "store.json").exists():
            raise StoreError(f"{folder}: no finished store here; run `dvc repro extract`")
        header = read_header(folder / "store.json")
        self.folder = folder
        self.settings: dict[str, Any] = header.get("settings", {})
        if settings is not None and self.settings.get("front_end") != settings:
            raise StoreError(
                f"{folder}: was made with other settings than params.yaml has "
                f"({_difference(self.settings.get('front_end'), settings)}); run `dvc repro extract`"
            )
        lines = index_lines(folder)
        self.clip_ids = [line[0] for line in lines]
        self.start = np.array([int(line[1]) for line in lines], dtype=np.int64)
        self.n_rows = np.array([int(line[2]) for line in lines], dtype=np.int64)
        self._crc32 = [line[3] for line in lines]
        self._position = {clip_id: index for index, clip_id in enumerate(self.clip_ids)}
        shape = (int(self.n_rows.sum()), *header["row_shape"])
        dtype = np.dtype(header["dtype"])
        size = (folder / "values.bin").stat().st_size if (folder / "values.bin").exists() else -1
        if size != int(np.prod(shape)) * dtype.itemsize:
            raise StoreError(
                f"{folder}/values.bin: expected {int(np.prod(shape)) * dtype.itemsize} bytes, got {size}; {_MEND}"
            )
        self.values: np.ndarray = (
            np.memmap(folder / "values.bin", dtype, "r", shape=shape) if size else np.zeros(shape, dtype)
        )

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._position

    def __getitem__(self, clip_id: str) -> np.ndarray:
        index = self._position[clip_id]
        return self.values[self.start[index] : self.start[index] + self.n_rows[index]]

    def positions(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Where each clip stands in `start` and `n_rows`: (n,) int64; every clip must be stored."""
        return np.array([self._position[clip_id] for clip_id in clip_ids], dtype=np.int64)

    def lengths(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Rows of each clip: (n,) int64."""
        return self.n_rows[self.positions(clip_ids)]

    def n_bytes(self, clip_ids: Sequence[str]) -> int:
        """The size of these clips' rows."""
        return int(self.lengths(clip_ids).sum()) * self.values[:1].nbytes

    def fingerprint(self, clip_ids: Sequence[str]) -> str:
        """A digest of what is stored of these clips."""
        digest = hashlib.sha256()
        for position in self.positions(clip_ids).tolist():
            digest.update(f"{self.clip_ids[position]!r} {self.n_rows[position]} {self._crc32[position]}\n".encode())
        return digest.hexdigest()

    def verify(self, clip_ids: Sequence[str] | None = None) -> None:
        """Read the rows of these clips (None: of all) and compare the checksums (1 GB in memory: 0.22 s on 2 cores).

        Raises:
            StoreError: naming the first clip whose rows have changed since they were written.
        """
        positions = range(len(self.clip_ids)) if clip_ids is None else self.positions(clip_ids).tolist()
        with ThreadPoolExecutor(n_processors()) as pool:
            blocks = [positions[begin : begin + 64] for begin in range(0, len(positions), 64)]  # a future costs 1.5 kB
            for damaged in pool.map(self._first_damaged, blocks):
                if damaged is not None:
                    clip_id = self.clip_ids[damaged]
                    raise StoreError(f"{self.folder}: the rows of clip {clip_id} differ from what was written; {_MEND}")

    def _first_damaged(self, positions: Sequence[int]) -> int | None:
        for position in positions:
            rows = self.values[self.start[position] : self.start[position] + self.n_rows[position]]
            if f"{zlib.crc32(rows.reshape(-1).view(np.uint8).data):08x}" != self._crc32[position]:
                return position
        return None


class PairedStores:
    """Pictures and sounds of the same clips; a clip may be in one of them only."""

    def __init__(self, video: Store, audio: Store, audio_per_video: float) -> None:
        """Two finished stores; `audio_per_video` rows of the one last as long as one of the other."""
        self.folder = video.folder.parent
        self.video, self.audio, self._ratio = video, audio, audio_per_video

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self.video or clip_id in self.audio

    def lengths(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Rows of each clip's picture, or how many would last as long as its sound: (n,) int64."""
        return np.array(
            [
                len(self.video[clip_id]) if clip_id in self.video else round(len(self.audio[clip_id]) / self._ratio)
                for clip_id in clip_ids
            ],
            dtype=np.int64,
        )

    def n_bytes(self, clip_ids: Sequence[str]) -> int:
        """The size of both."""
        return sum(store.n_bytes(self._in(store, clip_ids)) for store in (self.video, self.audio))

    def fingerprint(self, clip_ids: Sequence[str]) -> str:
        """A digest of what is stored of these clips."""
        parts = [store.fingerprint(self._in(store, clip_ids)) for store in (self.video, self.audio)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def verify(self, clip_ids: Sequence[str] | None = None) -> None:
        """Compare the checksums in both stores.

        Raises:
            StoreError: naming the first clip whose rows have changed since they were written.
        """
        for store in (self.video, self.audio):
            store.verify(None if clip_ids is None else self._in(store, clip_ids))

    @staticmethod
    def _in(store: Store, clip_ids: Sequence[str]) -> list[str]:
        return [clip_id for clip_id in clip_ids if clip_id in store]


_MEND = "the store is damaged: remove the folder and run `dvc repro extract`"


def read_header(path: Path) -> dict[str, Any]:
    """The settings, row shape and type that a store was made with.

    Raises:
        StoreError: if the file is damaged.
    """
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: can't be read ({error}); {_MEND}") from None
    if not isinstance(header, dict) or {"settings", "row_shape", "dtype"} - header.keys():
        raise StoreError(f"{path}: expected settings, row_shape and dtype; {_MEND}")
    shape = header["row_shape"]
    if (
        not isinstance(header["settings"], dict)
        or not isinstance(shape, list)
        or len(shape) > 4
        or not all(type(length) is int and 0 < length < 2**20 for length in shape)
        or header["dtype"] not in DTYPES
    ):
        raise StoreError(f"{path}: expected rows of {' or '.join(DTYPES)} of a plain shape; {_MEND}")
    return header


def index_lines(folder: Path, allow_cut: bool = False) -> list[list[str]]:
    """The lines of the index, checked to leave no gap; a cut-off last line is dropped if allowed.

    Raises:
        StoreError: if the index is missing or broken.
    """
    path = folder / "index.csv"
    try:
        content = path.read_bytes()
        text = (content[: content.rfind(b"\n") + 1] if allow_cut else content).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: can't be read ({error}); {_MEND}") from None
    try:
        lines = list(csv.reader(io.StringIO(text, newline="")))[1:]
    except csv.Error as error:
        raise StoreError(f"{path}: not a CSV file ({error}); {_MEND}") from None
    expected_start = 0
    for number, line in enumerate(lines, start=2):
        if len(line) != 4 or not _is_count(line[1]) or not _is_count(line[2]) or int(line[1]) != expected_start:
            raise StoreError(f"{path}, line {number}: expected clip_id,start,n_rows,crc32 in unbroken order; {_MEND}")
        expected_start += int(line[2])
    return lines


def _is_count(text: str) -> bool:
    return len(text) < 16 and text.isascii() and text.isdigit()


def _difference(made_with: Any, asked_for: Mapping[str, Any]) -> str:
    if not isinstance(made_with, Mapping):
        return "its settings are missing"
    keys = [key for key in asked_for if made_with.get(key) != asked_for[key]]
    return ", ".join(f"{key}: {made_with.get(key)} there, {asked_for[key]} here" for key in keys) or "keys differ"
