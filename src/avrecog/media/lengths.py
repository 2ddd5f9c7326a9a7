"""How long a file lasts, and whether anything in it says so."""

from pathlib import Path

import av
import av.container

from avrecog.errors import MediaError
from avrecog.media.opening import open_media
from avrecog.media.tracks import Tracks, taken_tracks, track_start_s
from avrecog.media.wav import wav_claims_more, wav_seconds, wav_size_is_right

# Formats whose files say how long they last; of others FFmpeg guesses by the bit rate, or by what it finds at the end
_STATED = frozenset({
    *("aiff", "ape", "asf", "au", "avi", "caf", "dsf", "flac", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"),
    *("mp3", "mpc", "mpc8", "mxf", "nut", "ogg", "rm", "tak", "tta", "w64", "wav", "wv"),
})  # fmt: skip


def length(path: Path, container: av.container.InputContainer, tracks: Tracks) -> tuple[float, bool]:
    """How long an open file lasts, in seconds above 0, and whether that is a guess.

    Raises:
        MediaError: if it lasts no time at all.
    """
    name = container.format.name
    seconds = _stated_s(container, tracks)
    if name == "flac":
        end_s = _last_packet_s(container, tracks)
        return (end_s, True) if end_s > 0 and abs(end_s - seconds) > 0.01 else (seconds, False)
    if name == "matroska,webm" and seconds > 0 and tracks.origin_s > 1:  # some writers count from 0, some from there
        return max(_last_packet_s(container, tracks) - tracks.origin_s, 0.0) or seconds, False
    if name == "wav" and tracks.audio is not None:
        byte_rate = (tracks.audio.codec_context.bit_rate or 0) / 8
        if byte_rate > 0 and (wav_size_is_right(path) is False or wav_claims_more(path)):
            return wav_seconds(path, byte_rate), True
    if seconds <= 0:
        return _measured_s(path), True
    return seconds, name not in _STATED or (name == "mp3" and not _mp3_states_its_length(path))


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


def _mp3_states_its_length(path: Path) -> bool:
    """Whether the first frame of an MP3 holds the number of frames, as encoders of variable bit rates write it."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":  # the tag's size, seven bits a byte
            size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            file.seek(10 + size)
        else:
            file.seek(0)
        begin = file.read(4096)
    for name in (b"Xing", b"Info"):
        at = begin.find(name)
        if at >= 0:
            return len(begin) > at + 7 and bool(begin[at + 7] & 1)
    return b"VBRI" in begin
