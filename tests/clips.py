"""Synthetic media for tests, each with the truth about it: which tone, which frame, which class."""

import csv
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_CODECS = {".wav": "pcm_s16le", ".flac": "flac", ".ogg": "libopus", ".m4a": "aac"}
_LAYOUTS = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1"}


@dataclass(frozen=True)
class Tone:
    """A sound file that holds one sine; channel c has amplitude `amplitudes[c]`, to tell a mix-down from a channel."""

    path: Path
    frequency_hz: float
    duration_s: float
    sample_rate: int  # Hz, as the file holds it: 48000 in .ogg (Opus), whatever was asked for
    n_samples: int
    amplitudes: tuple[float, ...]

    def mono(self) -> np.ndarray:
        """The mean of the channels: (S,) float32; lossy codecs come near it."""
        times_s = np.arange(self.n_samples) / self.sample_rate
        return (np.mean(self.amplitudes) * np.sin(2 * np.pi * self.frequency_hz * times_s)).astype(np.float32)


@dataclass(frozen=True)
class Video:
    """A video file whose frames carry their numbers; `frame_number` reads them. Width and height are as displayed."""

    path: Path
    n_frames: int
    fps: float
    width: int
    height: int
    frequency_hz: float | None  # of the tone, at amplitude 0.5; None: no sound
    sample_rate: int | None
    rotation: int  # degrees that a player turns the stored picture by, counterclockwise

    @property
    def duration_s(self) -> float:
        """Number of frames over frames per second."""
        return self.n_frames / self.fps


@dataclass(frozen=True)
class LabelledClip:
    """A file of a class folder."""

    path: Path
    label: str
    frequency_hz: float


@dataclass(frozen=True)
class Kinetics:
    """A folder in the shape of Kinetics."""

    lists: Path  # the folder data.annotation
    section: dict[str, str | None]  # data.kinetics


def make_tone(
    path: Path, frequency_hz: float = 440.0, duration_s: float = 1.0, sample_rate: int = 16_000, n_channels: int = 1
) -> Tone:
    """Write a sine as .wav, .flac, .ogg (Opus) or .m4a (AAC); channel c has amplitude 0.5 / (c + 1).

    Raises:
        KeyError: if the file name's ending or the number of channels has no codec here.
    """
    amplitudes = tuple(0.5 / (channel + 1) for channel in range(n_channels))
    n_samples = round(duration_s * sample_rate)
    wave = np.outer(amplitudes, np.sin(2 * np.pi * frequency_hz * np.arange(n_samples) / sample_rate))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(_CODECS[path.suffix], rate=sample_rate, layout=_LAYOUTS[n_channels])
        _mux_sound(container, stream, wave.astype(np.float32), sample_rate)
    held_rate = 48_000 if path.suffix == ".ogg" else sample_rate
    return Tone(path, frequency_hz, duration_s, held_rate, round(duration_s * held_rate), amplitudes)


def make_video(
    path: Path,
    n_frames: int = 25,
    fps: float = 25.0,
    width: int = 64,
    height: int = 48,
    with_audio: bool = True,
    rotation: int | None = None,
    frequency_hz: float = 440.0,
    sample_rate: int = 16_000,
    sound_begins_s: float = 0.0,
    sound_s: float | None = None,
) -> Video:
    """Write an MP4 (H.264, AAC) of at most 256 frames, each showing its number in two gray levels; the sound is a tone.

    The sound may begin later than the picture; it ends with it, or lasts `sound_s`.

    With a rotation (90, 180 or 270) the picture is stored turned and the file says so, as phones do: a reader that
    heeds it gets upright frames of the stated width and height.

    Raises:
        ValueError: if there are more than 256 frames or a side isn't even.
    """
    if n_frames > 256 or width % 2 or height % 2:
        raise ValueError(f"expected at most 256 frames and even sides, got {n_frames} and {width}x{height}")
    numbers = np.arange(n_frames)
    frames = np.empty((n_frames, height, width, 3), np.uint8)
    frames[:, : height // 2] = _level(numbers % 16)[:, None, None, None]
    frames[:, height // 2 :] = _level(numbers // 16)[:, None, None, None]
    n_samples = round((sound_s or n_frames / fps - sound_begins_s) * sample_rate)
    wave = 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(n_samples) / sample_rate) if with_audio else None
    stored = np.rot90(frames, -(rotation or 0) // 90, axes=(1, 2))
    _write_mp4(path, stored, fps, wave, sample_rate, sound_begins_s)
    if rotation:
        _mark_rotation(path, rotation)
    tone = (frequency_hz, sample_rate) if with_audio else (None, None)
    return Video(path, n_frames, fps, width, height, *tone, rotation=rotation or 0)


def frame_number(frame: np.ndarray) -> int:
    """The number that a frame of `make_video` carries; it may be mirrored, resized or cropped about its middle.

    `frame` is (H, W, 3) of 0 to 255, upright.
    """
    height = len(frame)
    upper, lower = frame[: height // 2 - height // 8], frame[height // 2 + height // 8 :]
    low, high = (round((float(np.mean(half)) - 20) / 14) for half in (upper, lower))
    return 16 * high + low


def make_labelled_folder(
    root: Path, classes: Sequence[str], n_per_class: int, fps: float = 12.5, size: int = 64, sample_rate: int = 16_000
) -> list[LabelledClip]:
    """Write 1 s clips `root/<class>/clip_00.mp4`; a tone's pitch and a square's place and colour tell the class.

    No two clips are equal: gain, brightness and place vary a little, the same on every call.
    """
    clips = []
    n_frames, n_samples = round(fps), sample_rate
    for class_index, label in enumerate(classes):
        generator = np.random.default_rng([7, class_index])
        frequency_hz = 300.0 * 2 ** (2 * class_index / max(3, len(classes) - 1))
        hue = 2 * np.pi * (class_index / len(classes) + np.arange(3) / 3)
        left = round((size - size // 3) * class_index / max(1, len(classes) - 1))
        for clip_index in range(n_per_class):
            frames = np.full((n_frames, size, size, 3), generator.integers(60, 100), np.uint8)
            top = generator.integers(0, size - size // 3)
            frames[:, top : top + size // 3, left : left + size // 3] = 150 + 100 * np.cos(hue)
            wave = generator.uniform(0.2, 0.6) * np.sin(2 * np.pi * frequency_hz * np.arange(n_samples) / sample_rate)
            wave += 0.02 * generator.standard_normal(n_samples)
            path = root / label / f"clip_{clip_index:02d}.mp4"
            _write_mp4(path, frames, fps, wave, sample_rate)
            clips.append(LabelledClip(path, label, frequency_hz))
    return clips


def make_kinetics(folder: Path, n_train: int = 10, n_test: int = 5) -> Kinetics:
    """Write `videos_train/<class>/*.mp4`, `videos_val/*.mp4` and `lists/` with both forms of lists; 1 s clips.

    Class 0, whistling, is high and class 1, air drumming, low; class 2, zumba, has no clip. Of the training clips the
    last one of class 1 has no sound; two more lines name a video that is missing and one that is broken.
    """
    names = ["whistling", "air drumming", "zumba"]
    lists, train, test = folder / "lists", [], []
    for index in range(n_train):
        for label, name in enumerate(names[:2]):
            times = "_000012_000022" if index == 0 else ""
            file = f"{name}/train_{label}_{index:02d}{times}.mp4"
            frequency_hz, with_audio = (1200.0, 300.0)[label] + 10 * index, (label, index) != (1, n_train - 1)
            make_video(folder / "videos_train" / file, 12, 12.0, with_audio=with_audio, frequency_hz=frequency_hz)
            train.append(f"{file} {label}")
    (folder / "videos_train/whistling/broken.mp4").write_text("not a film")
    train += ["air drumming/missing.mp4 1", "whistling/broken.mp4 0"]
    for index in range(n_test):
        for label in (0, 1):
            frequency_hz = (1200.0, 300.0)[label] + 10 * index + 5
            make_video(folder / f"videos_val/test_{label}_{index:02d}.mp4", 12, 12.0, frequency_hz=frequency_hz)
            test.append(f"test_{label}_{index:02d} 12 {label}")
    lists.mkdir()
    for file, lines in (("label_map.txt", names), ("kinetics_train_list.txt", train), ("kinetics_val_list.txt", test)):
        (lists / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    roots = {"train_root": str(folder / "videos_train"), "test_root": str(folder / "videos_val")}
    files = {"train": "kinetics_train_list.txt", "test": "kinetics_val_list.txt", "label_map": "label_map.txt"}
    return Kinetics(lists, {**files, **roots})


def write_annotation(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as CSV with a column for every key, in order of first sight; None and absent keys are empty cells."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _level(digit: np.ndarray) -> np.ndarray:
    return (20 + 14 * digit).astype(np.uint8)


def _write_mp4(
    path: Path,
    frames: np.ndarray,
    fps: float,
    wave: np.ndarray | None,
    sample_rate: int,
    sound_begins_s: float = 0.0,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1001),
            options={"preset": "ultrafast", "crf": "10", "threads": "1"},
        )
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=sample_rate, layout="mono") if wave is not None else None
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            picture.pts = index
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None and wave is not None:
            _mux_sound(container, audio, wave[None].astype(np.float32), sample_rate, sound_begins_s)


def _mux_sound(
    container: av.container.OutputContainer,
    stream: av.AudioStream,
    wave: np.ndarray,
    sample_rate: int,
    begins_s: float = 0.0,
) -> None:
    """Encode (C, S) float32."""
    sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout=_LAYOUTS[len(wave)])
    sound.sample_rate, sound.time_base = sample_rate, Fraction(1, sample_rate)
    sound.pts = round(begins_s * sample_rate)
    container.mux(stream.encode(sound))
    container.mux(stream.encode(None))


def _mark_rotation(path: Path, degrees: int) -> None:
    """Write a counterclockwise turn into the track header of the picture (the first track), which PyAV can't."""
    content = bytearray(path.read_bytes())
    box = content.index(b"tkhd")
    assert content[box + 4] == 0, "the offset below is for version 0 of the box"
    cos, sin = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[degrees]
    one, two = 1 << 16, 1 << 30  # 16.16 and 2.30 fixed point
    struct.pack_into(">9i", content, box + 44, cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, two)
    path.write_bytes(content)
