"""What the media files hold and the digests of their content, each file read once until its size or its time changes.

What has been read is remembered in `.avrecog/media/files.sqlite` (state_folder.py): path, size and time of the last
change -> digest and what probing told. Several processes may use it at once; a damaged one is made anew.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from avrecog.errors import MediaError
from avrecog.manifests.clip import Clip, media_path
from avrecog.media import container
from avrecog.media.container import Probe, probe
from avrecog.state_folder import state_folder
from avrecog.workers import n_processors

log = logging.getLogger(__name__)

TICK_NS = 2 * 10**9  # the coarsest clock of a file system (FAT): within it a file may change and keep its time
ROWS_AT_ONCE = 1000  # written together, so that a kill costs no more than these
WAIT_S = 60.0  # for other processes that are writing

_PROBE = TypeAdapter(Probe)
_TABLE = (
    "CREATE TABLE IF NOT EXISTS files "
    "(path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, digest TEXT, prober TEXT, probe TEXT)"
)


@dataclass(frozen=True)
class MediaFile:
    """A media file that has been read."""

    probe: Probe
    digest: str  # SHA-256 of its content


Status = tuple[int, int]  # size in bytes, time of the last change in ns


def read_media(files: Sequence[Path], remember: bool = True) -> list[MediaFile | MediaError]:
    """What each file holds, or why it can't be read; each is opened once however often it is named.

    Args:
        files: the paths.
        remember: whether to keep what was read, and to use what was kept; not worth it for files made just before.
    """
    distinct = list(dict.fromkeys(files))
    found: dict[Path, MediaFile | MediaError] = {}
    with _record() if remember else contextlib.nullcontext(_Record(None)) as record:
        before: dict[Path, Status] = {}
        for file in distinct:
            status = _status(file)
            if status is not None:
                before[file] = status
                known = record.known(file, status)
                if known is not None and known.probe is not None:
                    found[file] = MediaFile(known.probe, known.digest)
        unread = [file for file in distinct if file not in found]
        now_ns = time.time_ns()
        with ThreadPoolExecutor(n_processors()) as pool:  # FFmpeg and SHA-256 work without Python's lock
            results = pool.map(_read, unread)
            for file, result in zip(unread, _progress(results, len(unread), len(found)), strict=True):
                found[file] = result
                if isinstance(result, MediaFile) and file in before and before[file][1] < now_ns - TICK_NS:
                    record.keep(file, before[file], result)
    return [found[file] for file in files]


def check_unchanged(clips: Sequence[Clip]) -> None:
    """Refuse media files whose content is no longer what stage prepare read; those that are gone are not its matter.

    Raises:
        MediaError: naming the first ones.
    """
    expected = {clip.path: clip.digest for clip in clips if clip.digest}
    files = {path: media_path(path) for path in expected}
    digests: dict[str, str | None] = {}
    with _record() as record:
        for path, file in files.items():
            status = _status(file)
            known = record.known(file, status) if status is not None else None
            if known is not None:
                digests[path] = known.digest
    unread = [path for path in files if path not in digests]
    with ThreadPoolExecutor(n_processors()) as pool:
        digests.update(zip(unread, pool.map(_digest_or_none, (files[path] for path in unread)), strict=True))
    changed = [path for path in expected if digests[path] not in (None, expected[path])]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise MediaError(
            f"{len(changed)} media files have changed since stage prepare read them: {', '.join(changed[:5])}{more}; "
            f"run `dvc repro -f -s prepare`, then `dvc repro`"
        )


def _read(file: Path) -> MediaFile | MediaError:
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # a pipe would be waited for
            raise MediaError(f"{file}: is no ordinary file; drop the row, or put the media file there")
        return MediaFile(probe(file), _digest(file))
    except MediaError as error:
        return error
    except OSError as error:
        return MediaError(f"{file}: can't be read ({error.strerror})")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest_or_none(file: Path) -> str | None:
    try:
        return _digest(file) if file.is_file() else None
    except OSError:  # decoding says so
        return None


def _status(file: Path) -> Status | None:
    try:
        status = file.stat()
    except (OSError, ValueError):  # reading says so
        return None
    return status.st_size, status.st_mtime_ns


def _progress(results: Iterator[MediaFile | MediaError], n_unread: int, n_known: int) -> "tqdm[MediaFile | MediaError]":
    total = n_unread + n_known
    return tqdm(results, total=total, initial=n_known, unit="file", desc="probe", mininterval=1)


@functools.cache
def _prober() -> str:
    """Of the code that probes: what another one told is not gone by."""
    digest = hashlib.sha256(importlib.metadata.version("av").encode())
    for source in sorted(Path(container.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Known:
    digest: str
    probe: Probe | None  # None where another prober told


class _Record:
    """The table of what has been read; without a database it knows nothing and keeps nothing."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection
        self._waiting: list[tuple[bytes, int, int, str, str, str]] = []

    def known(self, file: Path, status: Status) -> _Known | None:
        """What is kept of a file of this size and time."""
        if self._connection is None:
            return None
        query = "SELECT digest, prober, probe FROM files WHERE path = ? AND size = ? AND mtime_ns = ?"
        try:
            row = self._connection.execute(query, (_key(file), *status)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        if row is None or not re.fullmatch("[0-9a-f]{64}", str(row[0])):
            return None
        try:
            return _Known(row[0], _PROBE.validate_json(row[2], strict=True) if row[1] == _prober() else None)
        except ValidationError:
            return _Known(row[0], None)

    def keep(self, file: Path, status: Status, read: MediaFile) -> None:
        """Remember what was read, unless the file was being written meanwhile."""
        if self._connection is not None and _status(file) == status:
            told = json.dumps(dataclasses.asdict(read.probe))
            self._waiting.append((_key(file), *status, read.digest, _prober(), told))
            if len(self._waiting) >= ROWS_AT_ONCE:
                self.flush()

    def flush(self) -> None:
        """Write what waits, in one transaction."""
        if self._connection is not None and self._waiting:
            try:
                with self._connection:
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", self._waiting
                    )
            except sqlite3.Error as error:
                self._give_up(error)
        self._waiting.clear()

    def _give_up(self, error: sqlite3.Error) -> None:
        log.warning("%s: can't be used (%s); the files are read anew next time", _place(), error)
        if not isinstance(error, sqlite3.OperationalError):  # damaged
            _place().unlink(missing_ok=True)
        self._connection = None


def _place() -> Path:
    return state_folder("media") / "files.sqlite"


def _key(file: Path) -> bytes:
    return os.fsencode(os.path.abspath(file))


@contextlib.contextmanager
def _record() -> Iterator[_Record]:
    """The record, which is made where there is none or a damaged one; an empty one where that can't be."""
    try:
        connection: sqlite3.Connection | None = _opened(_place())
    except (sqlite3.Error, OSError) as error:
        log.warning("%s: can't be used (%s); the files are read anew next time", _place(), error)
        connection = None
    record = _Record(connection)
    try:
        yield record
    finally:
        record.flush()
        if connection is not None:
            connection.close()


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to the database.

    Raises:
        OSError: if its folder can't be made.
        sqlite3.DatabaseError: if it can't be opened or made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _with_table(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not str(error).startswith("no such column"):
            raise  # locked, full, not to be written: not damaged
        log.warning("%s: damaged (%s); made anew", path, error)
        path.unlink()
        return _with_table(path)


def _with_table(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=WAIT_S)
    try:
        connection.execute(_TABLE)
        connection.execute("SELECT path, size, mtime_ns, digest, prober, probe FROM files LIMIT 1").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
