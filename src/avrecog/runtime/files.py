"""Writing a file or a folder whole or not at all, one writer a folder, and taking turns."""

import contextlib
import csv
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avrecog.errors import LockError

PARTIAL = ".partial-"  # how the names of temporary files begin


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends, and is removed if it raises.

    A kill at any moment leaves the old file or the new one, never a part of it under its name; the temporary file that
    it leaves is removed by the next `sole_writer` of the folder. The temporary name keeps the ending, which some
    writers go by.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        with naming(path):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the block an OSError that names no file (a full disk while writing) names this one.

    Raises:
        OSError: as it came, with its file.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def sync(path: Path) -> None:
    """Have the operating system write a file or folder to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` (or of a file) while the block runs.

    The lock file stands beside the folder while the lock is held, and names the holder's process id. The operating
    system frees it when the process ends, however it ends; after a kill the file stays until the next holder removes
    it. Temporary files that a killed writer left in the folder are removed first.

    Raises:
        LockError: if another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}.writer.lock")
    descriptor = _lock(path, folder)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        remove_leftovers(folder)
        for leftover in folder.parent.glob(f"{PARTIAL}*-{folder.name}"):  # where it is a file that is locked
            leftover.unlink()
        yield
    finally:
        try:
            path.unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
        finally:
            os.close(descriptor)


def _lock(path: Path, folder: Path) -> int:
    """The open lock file, held.

    Raises:
        LockError: if another process holds it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode()
            os.close(descriptor)
            end = f", or end it with `kill {holder}`" if holder else ""  # it has not yet written its number
            raise LockError(f"{folder}: process {holder or 'unknown'} is writing it; wait for it to end{end}") from None
        except FileNotFoundError:
            held = False
        except BaseException:
            os.close(descriptor)
            raise
        if held:
            return descriptor
        os.close(descriptor)  # its holder has removed it meanwhile: this one locks nothing


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` while the block runs; wait until no one else does, however its holder ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed writer of `folder` left in it; who calls this holds its lock."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        leftover.unlink()


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows, whose keys are those of the first one, as CSV; None becomes an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
