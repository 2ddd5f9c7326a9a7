"""Decoded frames from a time on, each with its true time, whatever the container's seeking is worth.

Many containers find a place by guessing (MPEG's, Ogg), know no key frames or have no index, so that a seek may land
too late: then it is tried further back, and at last the file is read from its beginning. So is one that was put
together of several, where a time stands more than once.
"""

import contextlib
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import av.container
import av.frame
import av.packet

from avrecog.errors import MediaError
from avrecog.media.decoder import Decoder, comes_before, is_empty, is_tag
from avrecog.media.joined import restarts, starts_anew
from avrecog.media.opening import open_media
from avrecog.media.tracks import Tracks, taken_tracks, track_start_s

BACK_S = (0.5, 2.0, 8.0, 32.0, 128.0, 512.0)  # before what is wanted, one after another
JITTER_S = 0.05
SOUNDS_TO_TELL = 8  # whose time stamps tell where the first one stands
MAX_UNTIMED = 100  # sounds without a time stamp before the first one with it
NEED_ALL = frozenset({"libspeex", "speex"})  # decoders that go astray unless they begin at the beginning

Kind = Literal["audio", "video"]
Decoded = Iterator[tuple[av.packet.Packet, list[Any] | None]]


@dataclass(frozen=True)
class Reading:
    """A track from a time on, in seconds."""

    begin_s: float  # of the first frame, counted from the file's beginning
    origin_s: float  # the time stamp at which the file begins
    tick_s: float  # that a time stamp of a sound counts
    sounds: Iterator[av.AudioFrame]
    frame_s: float  # that a picture lasts
    pictures: Iterator[tuple[float, av.VideoFrame | None]]  # with their time stamps; None where the last one stays


@contextlib.contextmanager
def frames_from(
    path: Path, kind: Kind, start_s: float, needed_s: float, options: Mapping[str, str] | None = None
) -> Iterator[Reading | None]:
    """The frames of the file's sound or picture, the first of them at `needed_s` or before, or the track's first.

    Args:
        path: any file FFmpeg reads.
        kind: of the track.
        start_s: what is wanted begins here, counted from the file's beginning.
        needed_s: and needs a frame as early as this.
        options: of the demuxer.

    Returns: None where nothing is in the track.

    Raises:
        MediaError: if there is no such track, or it can't be decoded.
    """
    with ExitStack() as stack:
        container = stack.enter_context(open_media(path, options))
        tracks = taken_tracks(path, container)
        stream = _stream(path, tracks, kind)
        begin_s, was_sought = max(0.0, track_start_s(stream) - tracks.origin_s), False
        for back_s in BACK_S:
            if start_s - back_s <= begin_s or stream.codec_context.name in NEED_ALL:
                break
            if not was_sought and restarts(path, container.format.name):
                break
            was_sought = True
            reading = _sought(container, stream, tracks.origin_s, start_s - back_s, needed_s)
            if reading is not None:
                yield reading
                return
        if was_sought:  # rewinding fails in some containers, and keeps others' wrong time stamps
            stack.close()
            container = stack.enter_context(open_media(path, options))
            tracks = taken_tracks(path, container)
            stream = _stream(path, tracks, kind)
        yield _reading(container, stream, tracks.origin_s)


def _stream(path: Path, tracks: Tracks, kind: Kind) -> av.AudioStream | av.VideoStream:
    stream = tracks.audio if kind == "audio" else tracks.video
    if stream is None:
        what = "no audio stream; drop the row or leave audio out of pipeline.models"
        if kind == "video":
            what = "no moving picture; drop the row or leave rgb out of pipeline.models"
        raise MediaError(f"{path}: {'; '.join([what, *tracks.notes])}")
    return stream


def _sought(
    container: av.container.InputContainer,
    stream: av.AudioStream | av.VideoStream,
    origin_s: float,
    target_s: float,
    needed_s: float,
) -> Reading | None:
    """The frames from a seek to `target_s` on, or None where the first good one is later than `needed_s`."""
    assert stream.time_base is not None
    try:
        container.seek(int((target_s + origin_s) / stream.time_base), stream=stream, backward=True)
        reading = _reading(container, stream, origin_s, needed_s + origin_s)
    except av.FFmpegError:
        return None
    return reading if reading is not None and reading.begin_s <= needed_s else None


def _reading(
    container: av.container.InputContainer,
    stream: av.AudioStream | av.VideoStream,
    origin_s: float,
    needed_s: float | None = None,
) -> Reading | None:
    """The frames from where the container stands: at its beginning, or after a seek for the time stamp `needed_s`.

    None where there is none, or nothing tells where it stands.
    """
    packets = container.demux(stream)
    decoded = _decoded(packets, Decoder(stream, needed_s), needed_s)
    tick_s = float(stream.time_base or 1)
    begin_s = None if needed_s is not None else track_start_s(stream)
    if isinstance(stream, av.AudioStream):
        run_up = _run_up(decoded, needed_s, tick_s)
        told_s = _begin_s(run_up, tick_s)
        begin_s = begin_s if told_s is None else told_s
        if not run_up or begin_s is None:
            return None
        sounds = itertools.chain(run_up, _rest(packets))
        return Reading(begin_s - origin_s, origin_s, tick_s, sounds, frame_s=0.0, pictures=iter(()))
    clock = _DecodingOrder() if container.format.name == "avi" else _BestEffort()
    frame_s = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    pictures = _timed_pictures(decoded, clock, tick_s, frame_s, begin_s)
    first = next(pictures, None)
    if first is None:
        return None
    return Reading(first[0] - origin_s, origin_s, tick_s, iter(()), frame_s, itertools.chain([first], pictures))


def _decoded(packets: Iterator[av.packet.Packet], decode: Decoder, needed_s: float | None) -> Decoded:
    """Each packet with the frames that it gave; None where what came before doesn't count.

    After a seek nothing where no good one comes before the time stamp `needed_s`.
    """
    for packet in packets:
        if needed_s is not None and not decode.begun and not comes_before(packet, needed_s):
            return
        was_begun = decode.begun
        frames = decode(packet)
        yield packet, None if was_begun and not decode.begun else frames


def _rest(packets: Iterator[av.packet.Packet]) -> Iterator[av.AudioFrame]:
    """The sounds of what is left, where nothing is forgiven any more.

    Raises:
        FFmpegError: if a packet can't be decoded.
    """
    for packet in packets:
        if packet.size or packet.dts is None:
            try:
                sounds: list[Any] = packet.decode()
            except av.FFmpegError:
                if not is_tag(packet):
                    raise
                continue
            yield from sounds


def _run_up(decoded: Decoded, needed_s: float | None, tick_s: float) -> list[av.AudioFrame]:
    """The first sounds up to `needed_s`, so many at least that they tell where they stand."""
    run_up: list[av.AudioFrame] = []
    for _, sounds in decoded:
        is_early = False
        if sounds is None:
            run_up.clear()
            continue
        for sound in sounds:
            is_early = needed_s is not None and sound.pts is not None and sound.pts * tick_s < needed_s
            if is_early and run_up and _is_another_kind(sound, run_up[-1]):
                run_up.clear()  # what a decoder made of a sound that the seek has cut in two
            run_up.append(sound)
        is_told = len(run_up) >= MAX_UNTIMED or (len(run_up) >= SOUNDS_TO_TELL and run_up[-1].pts is not None)
        if is_told and not is_early:
            break
    return run_up


def _begin_s(sounds: Sequence[av.AudioFrame], tick_s: float) -> float | None:
    """The time stamp of the first of some sounds, by all of theirs: single ones are missing, rounded or another's."""
    begins, before_s = [], 0.0
    for sound in sounds:
        if sound.pts is not None:
            begins.append(sound.pts * tick_s - before_s)
        before_s += sound.samples / sound.sample_rate
    if not begins:
        return None
    return statistics.median_low(begins) if max(begins) - min(begins) < JITTER_S else begins[0]


def _is_another_kind(frame: av.AudioFrame, last: av.AudioFrame) -> bool:
    return frame.sample_rate != last.sample_rate or frame.layout.nb_channels != last.layout.nb_channels


def _timed_pictures(
    decoded: Decoded, clock: "_BestEffort | _DecodingOrder", tick_s: float, frame_s: float, next_s: float | None
) -> Iterator[tuple[float, av.VideoFrame | None]]:
    """Pictures and their time stamps; no picture where the last one stays on screen."""
    first_s, shift_s = next_s, 0.0
    for packet, pictures in decoded:
        clock.see(packet)
        for picture in [None] if is_empty(packet) else pictures or ():
            stamp = packet.dts if picture is None else clock.stamp(picture)
            if stamp is not None:
                time_s = stamp * tick_s + shift_s
                if next_s is not None and first_s is not None and starts_anew(time_s, next_s, first_s):
                    shift_s += next_s - time_s
                    first_s = time_s = next_s
            elif next_s is not None:
                time_s = next_s
            else:
                return  # nothing tells where the seek has led to
            first_s = time_s if first_s is None else first_s
            next_s = time_s + frame_s
            yield time_s, picture


class _BestEffort:
    """Presentation time stamps, or decoding ones where those are missing or jump about: FFmpeg's own choice."""

    def __init__(self) -> None:
        self.last_pts = self.last_dts = -(2**63)
        self.n_faulty_pts = self.n_faulty_dts = 0

    def see(self, packet: av.packet.Packet) -> None:
        """Nothing in a packet is needed."""

    def stamp(self, frame: av.frame.Frame) -> int | None:
        pts, dts = frame.pts, frame.dts
        if dts is not None:
            self.n_faulty_dts += dts <= self.last_dts
            self.last_dts = dts
        if pts is not None:
            self.n_faulty_pts += pts <= self.last_pts
            self.last_pts = pts
        if pts is not None and (self.n_faulty_pts <= self.n_faulty_dts or dts is None):
            return pts
        return dts


class _DecodingOrder:
    """Time stamps of a container that has none for presentation: the first frame shows when its packet is due."""

    def __init__(self) -> None:
        self.due: int | None = None
        self.lag: int | None = None

    def see(self, packet: av.packet.Packet) -> None:
        if self.lag is None and packet.dts is not None and (self.due is None or packet.is_keyframe):
            self.due = packet.dts

    def stamp(self, frame: av.frame.Frame) -> int | None:
        if frame.dts is None:
            return None
        if self.lag is None:
            self.lag = frame.dts - (frame.dts if self.due is None else self.due)
        return frame.dts - self.lag
