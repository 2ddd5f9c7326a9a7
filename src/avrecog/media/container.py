"""Opening a media file, and what its header and streams say."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.container
import av.stream

from avrecog.errors import MediaError
from avrecog.media import features

av.logging.set_level(av.logging.FATAL)  # FFmpeg's warnings go to stderr otherwise; errors arrive as exceptions


MOST_BYTES = 4 * 2**30  # of a decoded clip, which is held in memory
MOST_PIXELS = 2**26  # of a frame: 8192 x 8192; decoding takes four times as many bytes and more


@dataclass(frozen=True)
class Probe:
    """What a media file holds."""

    duration_s: float
    sample_rate: int  # Hz; 0 without sound
    fps: float  # 0 without a picture
    duration_estimated: bool = False  # no index or time stamp says how long it lasts: the number is a guess
    notes: tuple[str, ...] = ()  # what was passed over, e.g. tracks without a decoder; for people

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound stream."""
        return self.sample_rate > 0

    @property
    def has_video(self) -> bool:
        """Whether there is a moving picture (cover art is none)."""
        return self.fps > 0


def probe(path: Path) -> Probe:
    """Duration, sample rate and frame rate of a media file, the beginning of each stream really decoded.

    A feature file (.npy) counts as sound.

    Raises:
        MediaError: if the file is missing, not a media file, has neither sound nor picture, or can't be decoded.
    """
    if path.suffix == features.ENDING:
        n_rows = len(features.read_features(path))
        return Probe(round(n_rows / features.ROWS_PER_S, 6), features.SAMPLE_RATE, fps=0.0)
    with open_media(path) as container:
        audio, video = audio_stream(container), video_stream(container)
        if audio is None and video is None:
            raise MediaError(f"{path}: no sound and no moving picture")
        fps = float(video.average_rate or video.guessed_rate or 0) if video is not None else 0.0
        sample_rate = int(audio.sample_rate) if audio is not None else 0
        for stream in (audio, video):
            if stream is not None and next(iter(container.decode(stream)), None) is None:
                raise MediaError(f"{path}: {stream.type} stream has nothing in it")
            container.seek(0)
        duration_s = _duration_s(container)
    if duration_s <= 0:
        duration_s = _decoded_duration_s(path)
    return Probe(duration_s=round(duration_s, 6), sample_rate=sample_rate, fps=round(fps, 6))


@contextlib.contextmanager
def open_media(path: Path) -> Iterator[av.container.InputContainer]:
    """An open container; what FFmpeg finds wrong while it is read becomes a MediaError that names the file.

    Raises:
        MediaError: if the file can't be opened or read.
    """
    if path.is_dir():
        raise MediaError(f"{path}: is a folder, expected a media file")
    try:
        # `file:`, and files only for what a playlist names: a path or a file is never an address to fetch from
        with av.open(f"file:{path}", metadata_errors="replace", options={"protocol_whitelist": "file"}) as container:
            for stream in container.streams.video:
                if stream.width * stream.height > MOST_PIXELS:
                    raise MediaError(
                        f"{path}: frames of {stream.width} x {stream.height}, expected at most {MOST_PIXELS:,} pixels"
                    )
            yield container
    except FileNotFoundError:
        raise MediaError(f"{path}: no such file; correct the path, or drop the row of the annotation") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{path}: can't be decoded ({reason})") from None


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The first sound stream, or None."""
    return container.streams.audio[0] if container.streams.audio else None


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first moving picture, or None: cover art is one still picture, not a video."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def seek_before(container: av.container.InputContainer, stream: av.stream.Stream, start_s: float) -> None:
    """Go to a key frame at or before `start_s`, with half a second to spare for decoders that need a run-up."""
    if start_s > 0:
        assert stream.time_base is not None
        target_s = max(start_s - 0.5 + origin_s(container), _stream_start_s(stream))
        container.seek(int(target_s / stream.time_base), stream=stream, backward=True)


def origin_s(container: av.container.InputContainer) -> float:
    """The time stamp at which the file begins: where its first track, sound or picture, does.

    Clips count their times from there, in both tracks, so that what was simultaneous stays so.
    """
    return min(
        (
            _stream_start_s(stream)
            for stream in (audio_stream(container), video_stream(container))
            if stream is not None
        ),
        default=0.0,
    )


def stream_begin_s(container: av.container.InputContainer, stream: av.stream.Stream) -> float:
    """How long after the file's beginning a track begins."""
    return _stream_start_s(stream) - origin_s(container)


def _stream_start_s(stream: av.stream.Stream) -> float:
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


def _duration_s(container: av.container.InputContainer) -> float:
    ends = [
        stream_begin_s(container, stream) + float(stream.duration * stream.time_base)
        for stream in (audio_stream(container), video_stream(container))
        if stream is not None and stream.duration and stream.time_base
    ]
    if ends:
        return max(ends)
    return container.duration / av.time_base if container.duration else 0.0


def _decoded_duration_s(path: Path) -> float:
    """How long the file lasts when its header doesn't say.

    Raises:
        MediaError: if no packet has a time.
    """
    stop_s = 0.0
    with open_media(path) as container:
        stream = audio_stream(container) or video_stream(container)
        assert stream is not None
        start_s = origin_s(container)
        for packet in container.demux(stream):
            if packet.pts is not None and packet.time_base is not None:
                stop_s = max(stop_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_s)
    if stop_s <= 0:
        raise MediaError(f"{path}: lasts no time at all")
    return stop_s
