"""How long a file lasts, and whether anything in it says so."""

import os
import struct
from pathlib import Path

import av
import av.container

from avrecog.errors import MediaError
from avrecog.media.joined import has_parts, stamps
from avrecog.media.opening import open_media
from avrecog.media.tracks import Tracks, taken_tracks, track_start_s
from avrecog.media.wav import wav_claims_more, wav_seconds, wav_size_is_right

# Formats whose files say how long they last; of others FFmpeg guesses by the bit rate, or by what it finds at the end
_STATED = frozenset({
    *("aiff", "ape", "asf", "au", "avi", "caf", "dsf", "flac", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"),
    *("mp3", "mpc", "mpc8", "mxf", "nut", "ogg", "rm", "tak", "tta", "w64", "wav", "wv"),
})  # fmt: skip
_APART = frozenset({"asf", "avi", "flac", "flv", "matroska,webm"})  # a header says it, apart from what an index lists
MAX_BEYOND_S = 0.5  # the last packets may end after the stated end; what ends later still belies the header


def length(path: Path, container: av.container.InputContainer, tracks: Tracks) -> tuple[float, bool]:
    """How long an open file lasts, in seconds above 0, and whether that is a guess.

    Raises:
        MediaError: if it lasts no time at all.
    """
    name = container.format.name
    seconds = _stated_s(container, tracks)
    if has_parts(path, name) or (name == "matroska,webm" and not _matroska_states_its_length(path)):
        return stamps(path).end_s or _measured_s(path), True
    if name == "matroska,webm" and seconds > 0 and tracks.origin_s > 1:  # some writers count from 0, some from there
        return max(_last_packet_s(container, tracks) - tracks.origin_s, 0.0) or seconds, False
    if name == "wav" and tracks.audio is not None:
        byte_rate = (tracks.audio.codec_context.bit_rate or 0) / 8
        if byte_rate > 0 and (wav_size_is_right(path) is False or wav_claims_more(path)):
            return wav_seconds(path, byte_rate), True
    if seconds <= 0:
        return _measured_s(path), True
    if name not in _STATED:  # of MPEG's containers FFmpeg looks at both ends only
        return (stamps(path).end_s if name in {"mpeg", "mpegts"} else 0.0) or seconds, True
    if name == "mp3":
        return _mp3_s(path, seconds)
    if name not in _APART:
        return seconds, False
    end_s = _last_packet_s(container, tracks) - tracks.origin_s
    if name == "flac" and end_s > 0 and abs(end_s - seconds) > 0.01:
        return end_s, True
    is_cut_off = name == "avi" and _avi_claims_more(path)  # then FFmpeg takes a share of what the header says
    if is_cut_off or end_s > seconds + MAX_BEYOND_S:
        return stamps(path).end_s or seconds, True
    return seconds, False


def _stated_s(container: av.container.InputContainer, tracks: Tracks) -> float:
    ends = [
        track_start_s(stream) - tracks.origin_s + float(stream.duration * stream.time_base)
        for stream in (tracks.audio, tracks.video)
        if stream is not None and stream.duration and stream.time_base
    ]
    if ends:
        return max(ends)
    return container.duration / av.time_base if container.duration else 0.0


def _last_packet_s(container: av.container.InputContainer, tracks: Tracks) -> float:
    """The time stamp at which the last packet ends; the file is not read up to there."""
    stream, end_s = tracks.audio or tracks.video, 0.0
    if stream is None or stream.time_base is None:
        return 0.0
    try:
        container.seek(2**40, stream=stream)
        for packet in container.demux(stream):
            if packet.pts is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * stream.time_base))
    except av.FFmpegError:
        return 0.0
    return end_s


def _measured_s(path: Path) -> float:
    """How long the file lasts when its header doesn't say, by the time stamps of all its packets.

    Raises:
        MediaError: if no packet has a time.
    """
    stop_s, n_packets = 0.0, 0
    with open_media(path) as container:
        tracks = taken_tracks(path, container)
        stream = tracks.audio or tracks.video
        assert stream is not None
        for packet in container.demux(stream):
            n_packets += packet.size > 0
            if packet.pts is not None and packet.time_base is not None:
                stop_s = max(stop_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - tracks.origin_s)
        if stop_s <= 0 and tracks.video is not None and n_packets:  # a raw stream of pictures
            stop_s = n_packets / float(tracks.video.average_rate or tracks.video.guessed_rate or 25)
    if stop_s <= 0:
        raise MediaError(f"{path}: lasts no time at all")
    return stop_s


def _mp3_s(path: Path, seconds: float) -> tuple[float, bool]:
    """How long an MP3 lasts that FFmpeg says lasts so many seconds, and whether that is a guess.

    Encoders of variable bit rates write the number of frames and of bytes into the first frame. Where more frames
    follow than that, as in files that were put together, all are counted.

    Raises:
        MediaError: if it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(10)
        begin_at = 0
        if head[:3] == b"ID3":  # the tag's size, seven bits a byte
            begin_at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(begin_at)
        begin = file.read(4096)
        found = [at for at in (begin.find(b"Xing"), begin.find(b"Info")) if at >= 0]
        if not found:
            return seconds, b"VBRI" not in begin
        flags, _, n_bytes = struct.unpack(">III", begin[found[0] + 4 : found[0] + 16].ljust(12, b"\0"))
        if not flags & 1:
            return seconds, True
        if not flags & 2:
            return seconds, False
        file.seek(begin_at + n_bytes)
        rest = file.read(2**16)
    if rest[:3] == b"TAG":  # says who sings, in 128 bytes
        rest = rest[128:]
    is_joined = len(rest) > 4096 and (rest[:3] == b"ID3" or (rest[0] == 0xFF and rest[1] >= 0xE0))
    return (stamps(path).end_s or seconds, True) if is_joined else (seconds, False)


def _matroska_states_its_length(path: Path) -> bool:
    """Whether there is a Duration in the part Info of a Matroska or WebM file; live recordings have none."""
    with path.open("rb") as file:
        begin = file.read(2**16)
    at = begin.find(b"\x15\x49\xa9\x66")
    if at < 0:
        return True  # it stands further back, which only what had a seekable end writes
    return any(begin.find(b"\x44\x89" + size, at, at + 2048) >= 0 for size in (b"\x84", b"\x88"))


def _avi_claims_more(path: Path) -> bool:
    """Whether the first chunk of an AVI should end behind the file's end."""
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(8)[4:], "little")
        return n_bytes + 8 > os.fstat(file.fileno()).st_size
