"""Writing a store of features, each clip with its checksum; one that a kill left unfinished is gone on with."""

import csv
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.features.store import BLOCK_BYTES, index_lines, read_header
from avrecog.runtime.files import atomic_path, naming, remove_leftovers

log = logging.getLogger(__name__)
FLUSH_EVERY_S = 5.0  # at the latest, so that a kill costs no more than this


class StoreWriter:
    """Appends clips to a store that is being made, or goes on with one that a kill left unfinished."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], row_shape: Sequence[int], dtype: str) -> None:
        """Open `folder` for writing; a finished store there, or an unfinished one of other settings, is begun anew.

        Args:
            folder: of the store.
            settings: kept in the store, for its readers to check; they name what the rows are made from too.
            row_shape: of a row.
            dtype: of the values.
        """
        self.folder = folder
        self.header: dict[str, Any] = {"settings": dict(settings), "row_shape": list(row_shape), "dtype": dtype}
        self.stored: dict[str, int] = {}  # clip_id -> rows
        self._open, self._flushing = True, False
        remove_leftovers(folder)
        if (folder / "unfinished.json").exists() and read_header(folder / "unfinished.json") == self.header:
            self._resume()
        else:
            self._begin()
        self._n_rows = sum(self.stored.values())
        self._values = (folder / "values.bin").open("ab")
        self._index = (folder / "index.csv").open("a", newline="", encoding="utf-8")
        self._pending: list[tuple[str, np.ndarray]] = []
        self._pending_bytes = 0
        self._flushed_at = time.monotonic()

    @property
    def n_bytes(self) -> int:
        """The size of what is stored."""
        return (self.folder / "values.bin").stat().st_size

    def append(self, clip_id: str, rows: np.ndarray) -> None:
        """Add a clip's rows: (n, *row_shape), n at least 1."""
        assert list(rows.shape[1:]) == self.header["row_shape"], (rows.shape, self.header)
        assert len(rows), clip_id
        assert clip_id not in self.stored, clip_id
        self._pending.append((clip_id, np.ascontiguousarray(rows, dtype=self.header["dtype"])))
        self._pending_bytes += self._pending[-1][1].nbytes
        if self._pending_bytes >= BLOCK_BYTES or time.monotonic() - self._flushed_at >= FLUSH_EVERY_S:
            self.flush()

    def append_pieces(self, clip_id: str, pieces: Iterable[np.ndarray]) -> None:
        """Add a clip's rows in pieces (n, *row_shape), which go to the disk at once: for clips too long to be held."""
        assert clip_id not in self.stored, clip_id
        self.flush()
        self._flushing = True
        n_rows = checksum = 0
        with naming(self.folder / "values.bin"):
            for piece in pieces:
                content = np.ascontiguousarray(piece, dtype=self.header["dtype"]).tobytes()
                self._values.write(content)
                n_rows, checksum = n_rows + len(piece), zlib.crc32(content, checksum)
            self._values.flush()
            os.fsync(self._values.fileno())
        assert n_rows, clip_id
        self._put_lines([(clip_id, n_rows, checksum)])

    def flush(self) -> None:
        """Put the pending rows on the disk, then the lines that speak of them."""
        self._flushing = True
        with naming(self.folder / "values.bin"):
            self._values.writelines(rows.tobytes() for _, rows in self._pending)
            self._values.flush()
            os.fsync(self._values.fileno())
        self._put_lines([(clip_id, len(rows), zlib.crc32(rows.tobytes())) for clip_id, rows in self._pending])

    def _put_lines(self, clips: Sequence[tuple[str, int, int]]) -> None:
        """Put lines of clip id, number of rows and checksum on the disk, when their rows are there."""
        lines = []
        for clip_id, n_rows, checksum in clips:
            lines.append((clip_id, self._n_rows, n_rows, f"{checksum:08x}"))
            self.stored[clip_id] = n_rows
            self._n_rows += n_rows
        csv.writer(self._index, lineterminator="\n").writerows(lines)
        self._index.flush()
        os.fsync(self._index.fileno())
        self._pending, self._pending_bytes, self._flushed_at = [], 0, time.monotonic()
        self._flushing = False

    def close(self) -> None:
        """Put what is pending on the disk and leave the store unfinished, to be taken up later."""
        if not self._open:
            return
        self._open = False
        if not self._flushing:  # a flush that was interrupted half-way must not be begun again
            self.flush()
        self._values.close()
        self._index.close()

    def finish(self) -> None:
        """Put the last rows on the disk and declare the store whole."""
        self.close()
        with atomic_path(self.folder / "store.json") as temporary:
            temporary.write_text(json.dumps(self.header, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def seal(self) -> None:
        """Say, after `finish`, that there is nothing left to go on with: the next writer begins anew."""
        (self.folder / "unfinished.json").unlink()

    def _begin(self) -> None:
        if self.folder.exists() and any(self.folder.iterdir()):
            finished = (self.folder / "store.json").exists()
            reason = "it was finished" if finished else "it was begun with other settings or clips"
            log.info("%s: the store there is not gone on with: %s; begun anew", self.folder, reason)
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "values.bin").touch()
        with (self.folder / "index.csv").open("w", encoding="utf-8") as file:
            file.write("clip_id,start,n_rows,crc32\n")
        with atomic_path(self.folder / "unfinished.json") as temporary:  # last: it says that the others can be taken up
            temporary.write_text(json.dumps(self.header, sort_keys=True), encoding="utf-8")

    def _resume(self) -> None:
        """Keep the clips whose lines are whole; cut off what a kill left behind them."""
        (self.folder / "store.json").unlink(missing_ok=True)
        row_bytes = int(np.prod(self.header["row_shape"])) * np.dtype(self.header["dtype"]).itemsize
        n_rows = (self.folder / "values.bin").stat().st_size // row_bytes
        lines = [line for line in index_lines(self.folder, allow_cut=True) if int(line[1]) + int(line[2]) <= n_rows]
        self.stored = {line[0]: int(line[2]) for line in lines}
        os.truncate(self.folder / "values.bin", sum(self.stored.values()) * row_bytes)
        path = self.folder / "index.csv"
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([["clip_id", "start", "n_rows", "crc32"], *lines])
        log.info("%s: going on after %d clips", self.folder, len(lines))
