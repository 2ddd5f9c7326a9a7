"""What a media file's header and streams say."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av.container

from avrecog.errors import MediaError, NotMediaError
from avrecog.media import mmaction2_features
from avrecog.media.decoder import Decoder
from avrecog.media.kinds import MAY_STAND_STILL, claims_to_be_media, is_named_as_media
from avrecog.media.lengths import length
from avrecog.media.opening import format_error, open_media
from avrecog.media.tracks import NO_DECODER, taken_tracks


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
    """Duration, sample rate and frame rate of a media file, the beginning of each track really decoded.

    FFmpeg decides what is media, whatever the file is called. Still pictures, text, subtitles and playlists are none,
    although it opens them; nor is what it can't decode, unless the file claims to be media by its ending or its first
    bytes. An animated GIF or PNG is a moving picture. A feature file (.npy) counts as sound.

    Raises:
        NotMediaError: if it is no sound and no moving picture, and doesn't claim to be.
        MediaError: if the file is missing, can't be decoded, or has neither sound nor picture although it claims to.
    """
    if path.suffix == mmaction2_features.ENDING:
        n_rows = len(mmaction2_features.read_features(path))
        return Probe(round(n_rows / mmaction2_features.ROWS_PER_S, 6), mmaction2_features.SAMPLE_RATE, fps=0.0)
    try:
        return _probe(path)
    except NotMediaError:
        raise
    except MediaError as error:
        if not os.path.isfile(path) or claims_to_be_media(path) or not _is_readable(path):
            raise
        raise NotMediaError(str(error)) from None


def _probe(path: Path) -> Probe:
    with open_media(path) as container:
        tracks = taken_tracks(path, container)
        audio, video, notes = tracks.audio, tracks.video, list(tracks.notes)
        name = container.format.name
        problems = _undecodable(path, container, [each for each in (audio, video) if each is not None])
        if audio is not None and audio.index in problems:
            notes.append(f"sound: no decoder for it ({format_error(problems[audio.index])})")
            audio = None
        if video is not None and video.index in problems:
            notes.append(f"picture: no decoder for it ({format_error(problems[video.index])})")
            video = None
        if audio is None and video is None:
            raise MediaError(f"{path}: {'; '.join(['no sound and no moving picture', *notes])}")
        fps = float(video.average_rate or video.guessed_rate or 0) if video is not None else 0.0
        sample_rate = int(audio.sample_rate) if audio is not None else 0
        duration_s, is_guess = length(path, container, tracks)
    if video is not None and audio is None and name in MAY_STAND_STILL and _stands_still(path):
        cause = MediaError if is_named_as_media(path) else NotMediaError
        raise cause(f"{path}: a still picture, no sound and no moving picture")
    return Probe(round(duration_s, 6), sample_rate, round(fps, 6), is_guess, tuple(notes))


def _undecodable(
    path: Path, container: av.container.InputContainer, streams: Sequence[av.AudioStream | av.VideoStream]
) -> dict[int, Exception]:
    """The numbers of tracks that there is no decoder for; of the others the first frame is decoded.

    Raises:
        MediaError: if one has nothing in it.
    """
    waiting = {stream.index: Decoder(stream) for stream in streams}
    found: dict[int, Exception] = {}
    if not streams:
        return found
    for packet in container.demux(*streams):
        decode = waiting.get(packet.stream_index)
        if decode is None:
            continue
        try:
            if decode(packet):
                del waiting[packet.stream_index]
        except NO_DECODER as error:
            found[packet.stream_index] = error
            del waiting[packet.stream_index]
        if not waiting:
            return found
    first = next(stream for stream in streams if stream.index in waiting)
    raise MediaError(f"{path}: {first.type} stream has nothing in it")


def _stands_still(path: Path) -> bool:
    """Whether there is one picture only."""
    with open_media(path) as container:
        packets = container.demux(container.streams.video[0])
        return sum(1 for packet in itertools.islice(packets, 3) if packet.size) < 2


def _is_readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False
