"""Media file -> mono waveform at one sample rate.

FFmpeg decodes, by way of PyAV; of WAV and FLAC files libsndfile does, which is faster and gives the same samples. soxr
resamples.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from avrecog.errors import MediaError
from avrecog.media.container import MOST_BYTES, audio_stream, open_media, origin_s, seek_before, stream_begin_s

BLOCK = 2**15  # samples that are mixed and resampled together; in larger blocks fresh memory costs more than it saves
RUN_UP_S = 0.5  # decoded before a clip begins
RUN_OUT_S = 0.1  # and after it ends, for the resampler's filter


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


def audio_blocks(
    path: Path, sample_rate: int, start_s: float = 0.0, stop_s: float | None = None
) -> Iterator[np.ndarray]:
    """What `decode_audio` returns, block by block, so that memory doesn't grow with the length.

    Raises:
        MediaError: as there, when it comes to it.
    """
    reader = _sndfile if _is_for_sndfile(path) else _ffmpeg
    n_given = 0
    with reader(path, sample_rate, start_s, stop_s) as (blocks, first_s, begin_s):
        begin = max(0, round((start_s - first_s) * sample_rate))
        end = None if stop_s is None else max(0, round((stop_s - first_s) * sample_rate))
        silence = np.zeros(max(0, round((begin_s - start_s) * sample_rate)), np.float32)
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
            if 4 * n_given > MOST_BYTES:
                hours = MOST_BYTES / 4 / sample_rate / 3600
                raise MediaError(f"{path}: more than {hours:.0f} h of sound in one clip; cut it with start and end")
            yield part
    if not n_given:
        raise MediaError(f"{path}: no sound between {start_s:g} s and {stop_s if stop_s is not None else 'the end'}")


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


# What a reader gives: blocks (rate, samples of one channel), the time of the first sample, when the track begins
Reading = tuple[Iterator[tuple[int, np.ndarray]], float, float]


def _is_for_sndfile(path: Path) -> bool:
    """Whether the file is WAV or FLAC, by its first bytes."""
    try:
        with path.open("rb") as file:
            begin = file.read(12)
    except OSError:
        return False  # FFmpeg's reader says what is wrong
    return begin[:4] == b"fLaC" or begin[:4] == b"RIFF" and begin[8:12] == b"WAVE"


@contextmanager
def _sndfile(path: Path, sample_rate: int, start_s: float, stop_s: float | None) -> Iterator[Reading]:
    """Decoded by libsndfile, or by FFmpeg where that can't open the file, or knows nothing of its length.

    Raises:
        MediaError: if it breaks off.
    """
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        file = None
    if file is None or not 0 < file.frames < 2**62:
        with _ffmpeg(path, sample_rate, start_s, stop_s) as reading:
            yield reading
        return
    with file:
        rate = file.samplerate
        whole = _whole(rate, sample_rate)
        first = min(int(max(0.0, start_s - RUN_UP_S) * rate) // whole * whole, file.frames)
        stop = file.frames if stop_s is None else min(file.frames, math.ceil((stop_s + RUN_OUT_S) * rate))
        try:
            file.seek(first)
            yield _sndfile_blocks(file, stop - first), first / rate, 0.0
        except soundfile.LibsndfileError as error:
            raise MediaError(f"{path}: can't be decoded ({error})") from None


def _sndfile_blocks(file: soundfile.SoundFile, n_samples: int) -> Iterator[tuple[int, np.ndarray]]:
    while n_samples > 0:
        samples = file.read(min(BLOCK, n_samples), dtype="float32", always_2d=True)
        if not len(samples):
            return
        n_samples -= len(samples)
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
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
def _ffmpeg(path: Path, sample_rate: int, start_s: float, stop_s: float | None) -> Iterator[Reading]:
    """Decoded by FFmpeg.

    Raises:
        MediaError: if there is no sound, or it can't be decoded.
    """
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{path}: no audio stream; drop the row or leave audio out of pipeline.models")
        begin_s, file_begin_s = stream_begin_s(container, stream), origin_s(container)
        seek_before(container, stream, start_s)
        frames = container.decode(stream)
        first = next(frames, None)
        end_s = math.inf if stop_s is None else stop_s + RUN_OUT_S
        if first is None or _time_s(first, file_begin_s) >= end_s:
            yield iter(()), 0.0, begin_s
        else:
            number, rate = round(_time_s(first, file_begin_s) * first.sample_rate), first.sample_rate
            n_skipped = -number % _whole(rate, sample_rate)
            end_pts = (end_s + file_begin_s) / float(first.time_base or 1)
            blocks = _ffmpeg_blocks(itertools.chain([first], frames), end_pts)
            yield _without(n_skipped, blocks), (number + n_skipped) / rate, begin_s


def _time_s(frame: av.AudioFrame, file_begin_s: float) -> float:
    """Counted from the file's beginning."""
    return (frame.time if frame.time is not None else file_begin_s) - file_begin_s


def _ffmpeg_blocks(frames: Iterable[av.AudioFrame], end_pts: float) -> Iterator[tuple[int, np.ndarray]]:
    """Frames of a few hundred samples are put together: what is done with each in Python costs more than decoding."""
    n_channels, rate, fifo = 0, 0, av.AudioFifo()
    for frame in frames:
        if frame.pts is not None and frame.pts >= end_pts:
            break
        if frame.sample_rate != rate or frame.layout.nb_channels != n_channels:  # the file goes on in another form
            if fifo.samples:
                yield rate, _mono(fifo.read())
            n_channels, rate, fifo = frame.layout.nb_channels, frame.sample_rate, av.AudioFifo()
        frame.pts = None  # a gap is no error: what comes after it follows at once
        fifo.write(frame)
        if fifo.samples >= BLOCK:
            yield rate, _mono(fifo.read())
    if fifo.samples:
        yield rate, _mono(fifo.read())


_FULL_SCALE = {"i1": 2.0**7, "u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31}


def _mono(frame: av.AudioFrame | None) -> np.ndarray:
    """(n_samples,) float32: the mean over channels of a decoded block."""
    assert frame is not None
    samples = frame.to_ndarray()
    kind = samples.dtype.str[1:]
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono = samples.mean(axis=0, dtype=np.float32) if len(samples) > 1 else samples[0]
    if kind in _FULL_SCALE:
        mono = (mono - 128.0 if kind == "u1" else mono) / np.float32(_FULL_SCALE[kind])
    return mono.astype(np.float32, copy=False)
