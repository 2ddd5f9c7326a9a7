"""What a WAV file's header says of its size, and whether that can be."""

import os
import struct
from pathlib import Path
from typing import BinaryIO


def wav_size_is_right(path: Path) -> bool | None:
    """Whether the samples of a WAV file end where its header says, or the file before; None: it is no WAV.

    A header is wrong that was written before the recording ended: more samples follow, where a chunk should.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(12)
            if begin[:4] != b"RIFF" or begin[8:12] != b"WAVE":
                return None
            found = _data(file)
            if found is None:
                return True  # the decoder says what is wrong
            start, n_bytes = found
            rest = os.fstat(file.fileno()).st_size - start - n_bytes
            if n_bytes == 0:
                return rest <= 0
            file.seek(start + n_bytes)
            return rest < 8 or _is_chunk(file.read(9), rest, n_bytes)
    except OSError:
        return None  # FFmpeg's reader says what is wrong


def wav_seconds(path: Path, byte_rate: float) -> float:
    """How long the samples of a WAV file last if they go on to its end."""
    with path.open("rb") as file:
        file.seek(12)
        found = _data(file)
        return 0.0 if found is None else (os.fstat(file.fileno()).st_size - found[0]) / byte_rate


def wav_claims_more(path: Path) -> bool:
    """Whether the header says more than the file holds, as one that was never completed does."""
    with path.open("rb") as file:
        file.seek(12)
        found = _data(file)
        return found is not None and sum(found) > os.fstat(file.fileno()).st_size


def _data(file: BinaryIO) -> tuple[int, int] | None:
    """Where the samples begin, and how many bytes they are by the header."""
    while len(head := file.read(8)) == 8:
        name, n_bytes = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            return file.tell(), n_bytes
        file.seek(n_bytes + n_bytes % 2, os.SEEK_CUR)
    return None


def _is_chunk(content: bytes, rest: int, n_before: int) -> bool:
    """Whether what follows the samples is a chunk, or empty space."""
    if not any(content):
        return True
    head = content[n_before % 2 :] if len(content) > 8 and n_before % 2 else content
    return head[:4].isascii() and head[:4].decode("ascii").isprintable() and struct.unpack("<I", head[4:8])[0] <= rest
