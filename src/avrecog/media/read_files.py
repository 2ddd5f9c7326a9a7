"""What the media files hold and the digests of their content, each file read once until its size or its time changes.

What has been read is remembered in `.avrecog/media/files.sqlite`: path, size and time of the last change -> digest and
what probing told. Several processes may use it at once; a damaged one is made anew.
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
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from avrecog.errors import MediaError
from avrecog.media import container
from avrecog.media.container import Probe, probe
from avrecog.runtime.state_folder import state_folder
from avrecog.runtime.worker_pool import n_processors

log = logging.getLogger(__name__)

TICK_NS = 2 * 10**9  # the coarsest clock of a file system (FAT): within it a file may change and keep its time
ROWS_AT_ONCE = 1000  # written together, so that a kill costs no more than these
PATHS_AT_ONCE = 500  # asked for together; SQLite takes 999 values at least
MAX_WAITING = 256  # files handed to the threads at a time
MAX_NUMBER = 2**31  # of seconds, hertz, pictures a second
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
Item = TypeVar("Item")
Result = TypeVar("Result")


def read_media(files: Sequence[Path], remember: bool = True) -> list[MediaFile | MediaError]:
    """What each file holds, or why it can't be read; each is opened once however often it is named.

    Args:
        files: the paths.
        remember: whether to keep what was read, and to use what was kept; not worth it for files made just before.
    """
    distinct = list(dict.fromkeys(files))
    found: dict[Path, MediaFile | MediaError] = {}
    with _record() if remember else contextlib.nullcontext(_Record(None)) as record:
        before = _statuses(distinct)
        for file, known in record.known(before):
            if known.probe is not None:
                found[file] = MediaFile(known.probe, known.digest)
        unread = [file for file in distinct if file not in found]
        now_ns = time.time_ns()
        for file, result in _progress(_side_by_side(_read, unread), len(unread), len(found), "probe"):
            found[file] = result
            if isinstance(result, MediaFile):
                record.keep(file, before.get(file), now_ns, result.digest, result.probe)
    return [found[file] for file in files]


def check_unchanged(expected: Mapping[str, tuple[Path, str]]) -> None:
    """Refuse media files whose content is no longer what stage prepare read; those that are gone are not its matter.

    Args:
        expected: path in the manifest -> the file, and the digest of its content then.

    Raises:
        MediaError: naming the first ones.
    """
    files = {path: file for path, (file, _) in expected.items()}
    digests: dict[Path, str | None] = {}
    with _record() as record:
        before = _statuses(list(dict.fromkeys(files.values())))
        digests.update((file, known.digest) for file, known in record.known(before))
        unread = [file for file in before if file not in digests]
        now_ns = time.time_ns()
        for file, digest in _progress(_side_by_side(_digest_or_none, unread), len(unread), len(digests), "digest"):
            digests[file] = digest
            if digest is not None:
                record.keep(file, before[file], now_ns, digest, None)
    changed = [path for path, file in files.items() if digests.get(file) not in (None, expected[path][1])]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise MediaError(
            f"{len(changed)} media files have changed since stage prepare read them: {', '.join(changed[:5])}{more}; "
            f"run `dvc repro -f -s prepare`, then `dvc repro`"
        )


def _side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """Each item and what `work` returns for it, in order, on all processors; only a few wait at a time."""
    pool = ThreadPoolExecutor(n_processors())  # FFmpeg, SHA-256 and file systems work without Python's lock
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) == MAX_WAITING:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _statuses(files: Sequence[Path]) -> dict[Path, Status]:
    """Size and time of the files that are there."""
    blocks = [files[begin : begin + ROWS_AT_ONCE] for begin in range(0, len(files), ROWS_AT_ONCE)]
    found = _side_by_side(lambda block: [_status(file) for file in block], blocks)
    pairs = (pair for block, statuses in found for pair in zip(block, statuses, strict=True))
    return {file: status for file, status in pairs if status is not None}


def _read(file: Path) -> MediaFile | MediaError:
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # a pipe would be waited for
            raise MediaError(f"{file}: is no ordinary file; drop the row, or put the media file there")
        return MediaFile(probe(file), _digest(file))
    except MediaError as error:
        error.__context__ = error.__cause__ = None  # the frames of a traceback hold what was read
        return error.with_traceback(None)
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


def _progress(
    results: Iterable[tuple[Path, Result]], n_unread: int, n_known: int, what: str
) -> "tqdm[tuple[Path, Result]]":
    total = n_unread + n_known
    return tqdm(results, total=total, initial=n_known, unit="file", desc=what, mininterval=1, disable=not n_unread)


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
    probe: Probe | None  # None where there is none, or another prober told


def _known(digest: object, prober: object, told: object) -> _Known | None:
    """What a row says, its text as bytes; whatever makes no sense is not known."""
    if not isinstance(digest, bytes) or not re.fullmatch(rb"[0-9a-f]{64}", digest):
        return None
    probe = None
    if prober == _prober().encode() and isinstance(told, bytes):
        with contextlib.suppress(ValidationError):
            probe = _PROBE.validate_json(told, strict=True)
    return _Known(digest.decode(), probe if probe is not None and _can_be(probe) else None)


def _can_be(probe: Probe) -> bool:
    """Whether a file may hold that: something, of a length and at rates that are numbers."""
    numbers = (probe.duration_s, probe.sample_rate, probe.fps)
    return all(0 <= number < MAX_NUMBER for number in numbers) and (probe.has_audio or probe.has_video)


class _Record:
    """The table of what has been read; without a database it knows nothing and keeps nothing."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection
        self._waiting: list[tuple[bytes, int, int, str, str | None, str | None]] = []

    def known(self, statuses: Mapping[Path, Status]) -> Iterator[tuple[Path, _Known]]:
        """What is kept of those of the files that still have this size and time."""
        files: dict[bytes, list[Path]] = defaultdict(list)  # a path may be written in several ways
        for file in statuses:
            files[_key(file)].append(file)
        keys = list(files)
        for begin in range(0, len(keys), PATHS_AT_ONCE):
            for key, size, mtime_ns, *told in self._rows(keys[begin : begin + PATHS_AT_ONCE]):
                known = _known(*told)
                if known is not None:
                    yield from ((file, known) for file in files[key] if statuses[file] == (size, mtime_ns))

    def _rows(self, keys: Sequence[bytes]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            return []
        places = ", ".join("?" * len(keys))
        query = f"SELECT path, size, mtime_ns, digest, prober, probe FROM files WHERE path IN ({places})"
        try:
            return self._connection.execute(query, keys).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def keep(self, file: Path, before: Status | None, begun_ns: int, digest: str, probe: Probe | None) -> None:
        """Remember what was read, unless the file may have been written meanwhile.

        Args:
            file: its path.
            before: its size and time before it was read; None where it wasn't there.
            begun_ns: the time then.
            digest: of its content.
            probe: what probing it told; None where it was only digested.
        """
        if self._connection is None or before is None or before[1] >= begun_ns - TICK_NS or _status(file) != before:
            return
        told = None if probe is None else json.dumps(dataclasses.asdict(probe))
        self._waiting.append((_key(file), *before, digest, None if told is None else _prober(), told))
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
    connection.text_factory = bytes  # damaged text may be no UTF-8
    try:
        connection.execute(_TABLE)
        connection.execute("SELECT path, size, mtime_ns, digest, prober, probe FROM files LIMIT 1").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
