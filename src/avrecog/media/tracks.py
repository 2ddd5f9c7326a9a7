"""Which tracks of a file are taken: those that players choose, if they can be decoded; cover art is none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import av.container
import av.stream

from avrecog.media.decoder import Decoder
from avrecog.media.opening import format_error, open_media

# A track that this build of FFmpeg has no decoder for, or none for this form of it; unlike one that is damaged
NO_DECODER = (
    av.error.BugError,
    av.error.DecoderNotFoundError,
    av.error.ExperimentalError,
    av.error.PatchWelcomeError,
    NotImplementedError,
)
_STILL = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


@dataclass(frozen=True)
class Tracks:
    """The tracks of an open file that are taken; None where there is none."""

    audio: av.AudioStream | None
    video: av.VideoStream | None
    notes: tuple[str, ...]  # what was passed over, for people
    origin_s: float  # the time stamp at which the file begins: where its first track, sound or picture, does
    # clips count their times from there, in both tracks, so that what was simultaneous stays so


def taken_tracks(path: Path, container: av.container.InputContainer) -> Tracks:
    """Of each kind the track marked as the default, else the first; the next one where that can't be decoded.

    Raises:
        MediaError: if a track has to be tried, and the file can't be opened again.
    """
    audio_number, audio_notes = _taken(path, container, "audio")
    video_number, video_notes = _taken(path, container, "video")
    audio = None if audio_number is None else container.streams.audio[audio_number]
    video = None if video_number is None else container.streams.video[video_number]
    starts = [
        track_start_s(stream) for stream in (audio, video) if stream is not None and stream.start_time is not None
    ]
    return Tracks(audio, video, (*audio_notes, *video_notes), min(starts, default=0.0))


def track_start_s(stream: av.stream.Stream) -> float:
    """The time stamp at which a track begins; 0 where it isn't known."""
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return stream.start_time * stream.time_base.numerator / stream.time_base.denominator


def _taken(
    path: Path, container: av.container.InputContainer, kind: Literal["audio", "video"]
) -> tuple[int | None, list[str]]:
    """The number of a track among those of its kind, and why others were passed over."""
    streams: tuple[av.stream.Stream, ...] = getattr(container.streams, kind)
    numbers = list(range(len(streams)))
    if kind == "video":  # cover art is no moving picture
        numbers = [number for number in numbers if not streams[number].disposition & _STILL]
    notes = [_name(kind, each) + ": no decoder for it" for each in numbers if streams[each].codec_context is None]
    if len(numbers) > 1:
        numbers.sort(key=lambda number: not streams[number].disposition & av.stream.Disposition.default)
    is_only_one = len(numbers) == 1
    numbers = [number for number in numbers if streams[number].codec_context is not None]
    if is_only_one or not numbers:
        return (numbers[0] if numbers else None), notes
    damaged = None
    for number in numbers:
        error = _failure(path, kind, number)
        if error is None:
            return number, notes
        notes.append(f"{_name(kind, number)}: can't be decoded ({format_error(error)})")
        if damaged is None and not isinstance(error, NO_DECODER):
            damaged = number
    return damaged, notes  # decoding it says what is wrong


def _failure(path: Path, kind: str, number: int) -> Exception | None:
    """What goes wrong where a track's first frame is decoded; None: nothing."""
    with open_media(path) as container:
        stream = getattr(container.streams, kind)[number]
        decode = Decoder(stream)
        try:
            if any(decode(packet) for packet in container.demux(stream)):
                return None
        except av.FFmpegError as error:
            return error
    return EOFError("nothing in it")


def _name(kind: str, number: int) -> str:
    return f"{'sound' if kind == 'audio' else 'picture'} track {number + 1}"
