"""Media that tell the time: the picture's brightness says which second it is, and so does the tone's pitch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

N_SECONDS = 40
WHOLE = range(N_SECONDS)
KEY_FRAMES_S = 10
SIDE = 32

Step = tuple[float, list[av.Packet]]  # a time in seconds, and what was encoded then

_OPTIONS: Mapping[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "bf": "2", "sc_threshold": "0", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:scenecut=0:bframes=2"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "10", "svtav1-params": "lp=1"},
    "mpeg2video": {"bf": "2", "sc_threshold": "1000000000"},
    "mpeg4": {"bf": "2", "sc_threshold": "1000000000"},
}
_SIZES = {"h263": (176, 144), "libsvtav1": (64, 64)}  # others take any
_RATES = {"libopencore_amrnb": 8_000, "libopus": 48_000, "libx264": 10, "mpeg2video": 25}
_FORMATS = {".m2ts": "mpegts", ".mpg": "mpeg", ".3gp": "3gp"}


@dataclass(frozen=True)
class Kind:
    """A container and what is in it, by FFmpeg's names of the encoders."""

    ending: str
    video: str | None
    audio: str | None

    def __str__(self) -> str:
        return "-".join(part for part in (self.ending[1:], self.video, self.audio) if part)

    def missing(self) -> list[str]:
        """The encoders that this build of FFmpeg lacks."""
        return [name for name in (self.video, self.audio) if name is not None and not _can_encode(name)]


def tone(sample_rate: int, seconds: range = WHOLE) -> np.ndarray:
    """(S,) float32: second k sounds at 300 + 50 k Hz."""
    phase = 2 * np.pi * np.cumsum(300 + 50 * np.repeat(seconds, sample_rate)) / sample_rate
    return (0.4 * np.sin(phase)).astype(np.float32)


def heard(wave: np.ndarray, sample_rate: int) -> float:
    """Which second a piece of sound is of."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 4 * len(wave)))
    return (float(np.argmax(spectrum)) * sample_rate / (4 * len(wave)) - 300) / 50


def seen(frames: np.ndarray) -> np.ndarray:
    """(N,) which second each of (N, H, W, 3) frames is of."""
    return (frames.mean(axis=(1, 2, 3)) * 219 / 255 + 16 - 20) / 5


def make(
    path: Path, kind: Kind, picture_begins_s: float = 0.0, sound_begins_s: float = 0.0, seconds: range = WHOLE
) -> Path:
    """Write 40 s, or some of them, with key frames 10 s apart where the encoder heeds it.

    The tracks may begin at another time than 0.
    """
    with av.open(str(path), "w", format=_FORMATS.get(kind.ending)) as container:
        tracks: list[Iterator[Step]] = []
        if kind.video is not None:
            tracks.append(_pictures(container, kind.video, picture_begins_s, seconds))
        if kind.audio is not None:
            tracks.append(_sounds(container, kind.audio, sound_begins_s, seconds))
        due = [next(track) for track in tracks]  # makes the streams, before anything is written
        while due:
            index = min(range(len(due)), key=lambda number: due[number][0])
            container.mux(due[index][1])
            following = next(tracks[index], None)
            if following is None:
                del tracks[index], due[index]
            else:
                due[index] = following
    return path


def _can_encode(codec: str) -> bool:
    try:
        av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _pictures(container: av.container.OutputContainer, codec: str, begins_s: float, seconds: range) -> Iterator[Step]:
    fps = _RATES.get(codec, 10)
    stream = container.add_stream(codec, rate=fps)
    stream.width, stream.height = width, height = _SIZES.get(codec, (SIDE, SIDE))
    stream.pix_fmt = "yuv420p"
    stream.codec_context.options = {**_OPTIONS.get(codec, {}), "g": str(KEY_FRAMES_S * fps)}
    yield begins_s, []
    for index in range(len(seconds) * fps):
        planes = np.full((height * 3 // 2, width), 128, np.uint8)
        planes[:height] = 20 + 5 * seconds[index // fps]
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = index + round(begins_s * fps), Fraction(1, fps)
        yield index / fps + begins_s, stream.encode(frame)
    yield len(seconds) + begins_s, stream.encode(None)


def _sounds(container: av.container.OutputContainer, codec: str, begins_s: float, seconds: range) -> Iterator[Step]:
    rate = _RATES.get(codec, 44_100)
    stream = container.add_stream(codec, rate=rate, layout="mono")
    if codec == "wmav2":
        stream.bit_rate = 128_000  # it refuses less
    yield begins_s, []
    wave = np.round(tone(rate, seconds) * 32_767).astype(np.int16)
    for begin in range(0, len(wave), rate // 10):
        frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + rate // 10], format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), begin + round(begins_s * rate)
        yield begin / rate + begins_s, stream.encode(frame)
    yield len(seconds) + begins_s, stream.encode(None)
