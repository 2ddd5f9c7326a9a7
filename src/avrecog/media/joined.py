"""Files that were put together of several: time stamps stand twice in them, and a header knows its own part only."""

import functools
import mmap
import re
from dataclasses import dataclass
from pathlib import Path

from avrecog.errors import MediaError
from avrecog.media.opening import open_media
from avrecog.media.tracks import taken_tracks, track_start_s

RESTART_S = 10.0  # a time stamp so far back is a new beginning, as FFmpeg's own tools take it

_WITHOUT_HEADER = frozenset({"mpeg", "mpegts"})  # only time stamps tell where another part begins
_BEGINS = {  # the first bytes of a file, and of each part
    "flac": (b"fLaC", re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")),
    "matroska,webm": (
        b"\x1aE\xdf\xa3",
        re.compile(rb"\x1aE\xdf\xa3[\x01\x80-\xff].{0,7}?\x42[\x82\x86\xf7]", re.DOTALL),
    ),
    "ogg": (b"OggS\x00\x02", re.compile(rb"OggS\x00\x02")),
}
_OGG_PAGE = re.compile(rb"OggS\x00[\x00\x01\x04\x05]")  # any but a track's first


@dataclass(frozen=True)
class Stamps:
    """What the time stamps of all packets say."""

    restart: bool  # they begin again: a time may stand more than once in the file
    end_s: float  # where the last packet ends, the parts one after another, counted from the file's beginning


def starts_anew(time_s: float, next_s: float, first_s: float) -> bool:
    """Whether time stamps begin again at `time_s`: far back, or where they began.

    `next_s` is where the last frame ended, `first_s` where the first one of its part stood. In Ogg the first page of a
    part, of a second at most, still counts on.
    """
    lasted_s = next_s - first_s
    return time_s < next_s - RESTART_S or (lasted_s > 1 and time_s < first_s + min(1.5, lasted_s / 4))


def has_parts(path: Path, format_name: str) -> bool:
    """Whether a file holds the headers of several: Ogg, FLAC or Matroska; False for other formats.

    Raises:
        MediaError: if the file can't be read.
    """
    return format_name in _BEGINS and _has_parts(path, format_name, *_version(path))


def restarts(path: Path, format_name: str) -> bool:
    """Whether a time may stand more than once in a file, so that seeking leads anywhere.

    All packets of a file in MPEG's containers are looked at, once in a process; nothing is decoded.

    Raises:
        MediaError: if the file can't be read.
    """
    if format_name in _WITHOUT_HEADER:
        return stamps(path).restart
    return has_parts(path, format_name)


def stamps(path: Path) -> Stamps:
    """The time stamps of all packets of the tracks that are taken.

    Raises:
        MediaError: if the file can't be read.
    """
    return _stamps(path, *_version(path))


def _version(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise MediaError(f"{path}: can't be read ({error.strerror})") from None
    return found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _has_parts(path: Path, format_name: str, size: int, changed_ns: int) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = 1
            if format_name == "ogg":  # whose tracks begin together, before anything else
                page = _OGG_PAGE.search(content)
                at = len(content) if page is None else page.end()
            first, whole = _BEGINS[format_name]
            while (at := content.find(first, at)) >= 0:
                if whole.match(content, at):
                    return True
                at += 1
            return False
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: can't be read ({error})") from None


@functools.lru_cache(maxsize=1024)
def _stamps(path: Path, size: int, changed_ns: int) -> Stamps:
    """As `stamps`; size and time are there so that a file is looked at again when it has changed."""
    restart, end_s = False, 0.0
    with open_media(path) as container:
        tracks = taken_tracks(path, container)
        taken = [stream for stream in (tracks.audio, tracks.video) if stream is not None]
        first_s: dict[int, float] = {}
        next_s = {stream.index: track_start_s(stream) for stream in taken}
        shift_s = dict.fromkeys(next_s, 0.0)
        for packet in container.demux(*taken):
            stamp = packet.pts if packet.dts is None else packet.dts
            if stamp is None or packet.time_base is None:
                continue
            index, tick_s = packet.stream_index, float(packet.time_base)
            time_s = stamp * tick_s
            first_s.setdefault(index, time_s)
            if starts_anew(time_s, next_s[index], first_s[index]):
                restart = True
                shift_s[index] += next_s[index] - time_s
                first_s[index], next_s[index] = time_s, time_s
            shown = time_s if packet.pts is None else packet.pts * tick_s
            next_s[index] = max(next_s[index], shown + (packet.duration or 0) * tick_s)
            end_s = max(end_s, next_s[index] + shift_s[index] - tracks.origin_s)
    return Stamps(restart, end_s)
