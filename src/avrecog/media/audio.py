"""Media file -> mono waveform at one sample rate, by libsndfile or FFmpeg, block by block.

FFmpeg decodes, by way of PyAV; of WAV files libsndfile does, which is faster and gives the same samples. soxr
resamples. Time stamps rule: where sound is missing there is silence, and where two overlap the first one is heard.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from avrecog.errors import MediaError
from avrecog.media.joined import starts_anew
from avrecog.media.opening import MAX_BYTES
from avrecog.media.seeking import Reading, frames_from
from avrecog.media.wav import wav_size_is_right

BLOCK = 2**15  # samples that are mixed and resampled together; in larger blocks fresh memory costs more than it saves
RUN_UP_S = 0.5  # decoded before a clip begins
MIN_RUN_UP_S = 0.25  # where seeking leads to a later place, it is tried again further back
RUN_OUT_S = 0.1  # and after it ends, for the resampler's filter
GAP_S = 0.05  # time stamps that are off by more than this are right, and sound is missing or doubled; below it's jitter
CANCELLED = 1e-4  # of the channels' energy is left in their mean: -40 dB
AUDIBLE = 1e-7  # energy of a sample: -70 dB of full scale


def decode_audio(path: Path, sample_rate: int, start_s: float = 0.0, stop_s: float | None = None) -> np.ndarray:
    """The sound between `start_s` and `stop_s` as one channel: the mean of the file's channels, resampled.

    Args:
        path: any file FFmpeg reads.
        sample_rate: Hz of the result.
        start_s: from here, counted from the file's beginning.
        stop_s: up to here, exclusive; None: to the end.

    Returns: (n_samples,) float32, full scale -1..1. Shorter than asked where the track ends earlier; where it begins
        later than the picture, the silence that a player gives there.

    Raises:
        MediaError: if there is no sound, it can't be decoded, nothing lies in the span, a sample is not finite, or it
            is too much for memory.
    """
    blocks = list(audio_blocks(path, sample_rate, start_s, stop_s))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


@dataclass
class Heard:
    """What is to be told of a clip's sound, filled while it is decoded."""

    gaps: list[tuple[float, float]] = field(default_factory=list)  # s from the file's beginning; silence stands there
    overlaps: list[tuple[float, float]] = field(default_factory=list)  # s; what was sounding already went on
    channels: float = 0.0  # energy of the channels' mean square
    mean: float = 0.0  # energy of the channels' mean
    n_samples: int = 0  # that both are of

    @property
    def cancels(self) -> bool:
        """Whether the channels sound and their mean doesn't: they are in opposite phase."""
        return self.channels > AUDIBLE * self.n_samples and self.mean < CANCELLED * self.channels


def audio_blocks(
    path: Path, sample_rate: int, start_s: float = 0.0, stop_s: float | None = None, heard: Heard | None = None
) -> Iterator[np.ndarray]:
    """What `decode_audio` returns, block by block, so that memory doesn't grow with the length.

    Args:
        path: as there.
        sample_rate: as there.
        start_s: as there.
        stop_s: as there.
        heard: takes what is to be told of the sound.

    Raises:
        MediaError: as there, when it comes to it.
    """
    heard = Heard() if heard is None else heard
    size_is_right = wav_size_is_right(path)  # None: it is no WAV
    reader = _sndfile if size_is_right else partial(_ffmpeg, ignores_length=size_is_right is False)
    n_given = 0
    with reader(path, sample_rate, start_s, stop_s, heard) as (blocks, first_s):
        begin = max(0, round((start_s - first_s) * sample_rate))
        end = None if stop_s is None else max(0, round((stop_s - first_s) * sample_rate))
        silence = np.zeros(min(max(0, round((first_s - start_s) * sample_rate)), MAX_BYTES // 4), np.float32)
        position = 0
        for block in _resampled(blocks, sample_rate):
            part = block[max(0, begin - position) : None if end is None else max(0, end - position)]
            position += len(block)
            if not len(part):
                continue
            if len(silence):
                part, silence = np.concatenate([silence, part]), silence[:0]
            if not np.isfinite(part).all():
                raise MediaError(f"{path}: the sound holds values that are not finite (NaN or infinity)")
            n_given += len(part)
            if 4 * n_given > MAX_BYTES:
                hours = MAX_BYTES / 4 / sample_rate / 3600
                raise MediaError(f"{path}: more than {hours:.0f} h of sound in one clip; cut it with start and end")
            yield part
    span = (start_s, math.inf if stop_s is None else stop_s)
    heard.gaps, heard.overlaps = _within(span, heard.gaps), _within(span, heard.overlaps)
    if not n_given:
        raise MediaError(f"{path}: no sound between {start_s:g} s and {stop_s if stop_s is not None else 'the end'}")


def _within(span: tuple[float, float], stretches: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """What lies in a span of some stretches, those that touch put together."""
    found: list[tuple[float, float]] = []
    for begin, end in stretches:
        begin, end = max(begin, span[0]), min(end, span[1])
        if found and begin - found[-1][1] < 1e-3:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > begin:
            found.append((begin, end))
    return found


def _resampled(blocks: Iterator[tuple[int, np.ndarray]], sample_rate: int) -> Iterator[np.ndarray]:
    """Blocks (rate, samples) at `sample_rate`; in a file that goes on at another rate each part by itself."""
    resampler, rate = None, 0
    for block_rate, block in blocks:
        if block_rate != rate:
            if resampler is not None:
                yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            rate = block_rate
            resampler = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
        yield block if resampler is None else resampler.resample_chunk(block)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


# What a reader gives: blocks (rate, samples of one channel), the time of the first sample
Blocks = tuple[Iterator[tuple[int, np.ndarray]], float]


@contextmanager
def _sndfile(path: Path, sample_rate: int, start_s: float, stop_s: float | None, heard: Heard) -> Iterator[Blocks]:
    """Decoded by libsndfile, or by FFmpeg where that can't open the file, or knows nothing of its length.

    Raises:
        MediaError: if it breaks off.
    """
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        file = None
    if file is None or not 0 < file.frames < 2**62:
        with _ffmpeg(path, sample_rate, start_s, stop_s, heard) as reading:
            yield reading
        return
    with file:
        rate = file.samplerate
        whole = _whole(rate, sample_rate)
        first = min(int(max(0.0, start_s - RUN_UP_S) * rate) // whole * whole, file.frames)
        stop = file.frames if stop_s is None else min(file.frames, math.ceil((stop_s + RUN_OUT_S) * rate))
        try:
            file.seek(first)
            yield _sndfile_blocks(file, stop - first, heard), first / rate
        except soundfile.LibsndfileError as error:
            raise MediaError(f"{path}: can't be decoded ({error})") from None


def _sndfile_blocks(file: soundfile.SoundFile, n_samples: int, heard: Heard) -> Iterator[tuple[int, np.ndarray]]:
    while n_samples > 0:
        samples = file.read(min(BLOCK, n_samples), dtype="float32", always_2d=True)
        if not len(samples):
            return
        n_samples -= len(samples)
        if samples.shape[1] == 1:
            mono = samples[:, 0]
        else:
            mono = samples.mean(axis=1, dtype=np.float32)
            _weigh(samples, mono, heard)
        yield file.samplerate, np.ascontiguousarray(mono)


def _whole(rate: int, sample_rate: int) -> int:
    """Samples that last a whole number of samples of the result: a part of a file begins at a multiple of them."""
    return rate // math.gcd(rate, sample_rate)


def _without(n_skipped: int, blocks: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """The blocks without their first samples."""
    for rate, block in blocks:
        yield rate, block[n_skipped:]
        n_skipped = max(0, n_skipped - len(block))


@contextmanager
def _ffmpeg(
    path: Path, sample_rate: int, start_s: float, stop_s: float | None, heard: Heard, *, ignores_length: bool = False
) -> Iterator[Blocks]:
    """Decoded by FFmpeg; of a WAV file whose header says too little, up to the file's end.

    Raises:
        MediaError: if there is no sound, or it can't be decoded.
    """
    options = {"ignore_length": "1"} if ignores_length else None
    end_s = math.inf if stop_s is None else stop_s + RUN_OUT_S
    with frames_from(path, "audio", start_s, start_s - MIN_RUN_UP_S, options) as reading:
        if reading is None or reading.begin_s >= end_s:
            yield iter(()), 0.0
            return
        first = next(reading.sounds)
        number, rate = round(reading.begin_s * first.sample_rate), first.sample_rate
        n_skipped = -number % _whole(rate, sample_rate)
        blocks = _ffmpeg_blocks(reading, itertools.chain([first], reading.sounds), end_s, heard)
        yield _without(n_skipped, blocks), (number + n_skipped) / rate


def _ffmpeg_blocks(
    reading: Reading, frames: Iterable[av.AudioFrame], end_s: float, heard: Heard
) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of a few hundred samples are put together: what is done with each in Python costs more than decoding."""
    n_channels, rate, fifo, n_held = 0, 0, av.AudioFifo(), 0
    tick_s, most = reading.tick_s, GAP_S / reading.tick_s
    first = following = (reading.begin_s + reading.origin_s) / tick_s  # the time stamp that the next frame should have
    end = (end_s + reading.origin_s) / tick_s
    for frame in frames:
        pts, n_samples, n_cut = frame.pts, frame.samples, 0
        late = 0.0 if pts is None else pts - following
        if not -most <= late <= most:
            if n_held:
                yield rate, _mono(fifo.read(), heard)
                n_held = 0
            begin_s = following * tick_s - reading.origin_s
            if starts_anew((following + late) * tick_s, following * tick_s, first * tick_s):
                first, following, end = following + late, following + late, end + late
            elif late > 0:
                heard.gaps.append((begin_s, begin_s + late * tick_s))
                yield from _silence(rate, min(late, end - following) * tick_s)
                following += late
            else:
                n_cut = min(n_samples, round(-late * tick_s * rate))
                heard.overlaps.append((begin_s + late * tick_s, begin_s + late * tick_s + n_cut / rate))
        if following >= end:
            break
        if frame.sample_rate != rate or frame.layout.nb_channels != n_channels:
            if n_held:  # the file goes on in another form
                yield rate, _mono(fifo.read(), heard)
            n_channels, rate, fifo, n_held = frame.layout.nb_channels, frame.sample_rate, av.AudioFifo(), 0
            ticks = 1 / rate / tick_s  # of a sample
        frame.pts = None  # the time has been seen to
        fifo.write(frame)
        if n_cut:
            fifo.read(n_cut)
            n_samples -= n_cut
        n_held += n_samples
        following += n_samples * ticks
        if n_held >= BLOCK:
            yield rate, _mono(fifo.read(), heard)
            n_held = 0
    if n_held:
        yield rate, _mono(fifo.read(), heard)


def _silence(rate: int, seconds: float) -> Iterator[tuple[int, np.ndarray]]:
    n_samples = round(seconds * rate)
    while n_samples > 0:
        block = np.zeros(min(BLOCK, n_samples), np.float32)
        n_samples -= len(block)
        yield rate, block


_FULL_SCALE = {"i1": 2.0**7, "u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31}


def _mono(frame: av.AudioFrame | None, heard: Heard) -> np.ndarray:
    """(n_samples,) float32: the mean over channels of a decoded block."""
    assert frame is not None
    samples = frame.to_ndarray()
    kind = samples.dtype.str[1:]
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono = samples.mean(axis=0, dtype=np.float32) if len(samples) > 1 else samples[0]
    if kind in _FULL_SCALE:
        mono = (mono - 128.0 if kind == "u1" else mono) / np.float32(_FULL_SCALE[kind])
    if len(samples) > 1:
        each = samples if kind not in _FULL_SCALE else (samples - 128.0 * (kind == "u1")) / _FULL_SCALE[kind]
        _weigh(each, mono, heard)
    return mono.astype(np.float32, copy=False)


def _weigh(samples: np.ndarray, mono: np.ndarray, heard: Heard) -> None:
    """Add a block's energies: of its channels, (C, S) or (S, C), on average, and of their mean."""
    flat = samples.ravel(order="K")
    heard.channels += float(np.vdot(flat, flat)) * len(mono) / len(flat)
    heard.mean += float(np.vdot(mono, mono))
    heard.n_samples += len(mono)
