"""Media file -> mono waveform at one sample rate."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from avrecog.errors import MediaError
from avrecog.media.container import MOST_BYTES, audio_stream, open_media, origin_s, seek_before, stream_begin_s

BLOCK = 2**16  # samples of each channel that are mixed and resampled together


def decode_audio(path: Path, sample_rate: int, start_s: float = 0.0, stop_s: float | None = None) -> np.ndarray:
    """The sound between `start_s` and `stop_s` as one channel: the mean of the file's channels, resampled.

    Args:
        path: any file FFmpeg reads.
        sample_rate: Hz of the result (FFmpeg's resampler).
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
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{path}: no audio stream; drop the row or leave audio out of pipeline.models")
        begin_s, file_begin_s = stream_begin_s(container, stream), origin_s(container)
        seek_before(container, stream, start_s)
        frames = _frames(container, stream, file_begin_s, stop_s)
        first = next(frames, None)
        n_given = 0
        if first is not None:
            first_s = _time_s(first, file_begin_s)
            begin = max(0, round((start_s - first_s) * sample_rate))
            end = None if stop_s is None else max(0, round((stop_s - first_s) * sample_rate))
            silence = np.zeros(max(0, round((begin_s - start_s) * sample_rate)), np.float32)
            position = 0
            for block in _resampled(first, frames, sample_rate):
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
            raise MediaError(
                f"{path}: no sound between {start_s:g} s and {stop_s if stop_s is not None else 'the end'}"
            )


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream, file_begin_s: float, stop_s: float | None
) -> Iterator[av.AudioFrame]:
    """Decoded frames up to `stop_s`."""
    for frame in container.decode(stream):
        if stop_s is not None and _time_s(frame, file_begin_s) >= stop_s + 0.1:  # a run-out for the resampler's filter
            return
        yield frame


def _time_s(frame: av.AudioFrame, file_begin_s: float) -> float:
    """Counted from the file's beginning."""
    return (frame.time if frame.time is not None else file_begin_s) - file_begin_s


def _resampled(first: av.AudioFrame, others: Iterator[av.AudioFrame], sample_rate: int) -> Iterator[np.ndarray]:
    """Blocks of mono float32 at `sample_rate`.

    Frames of a few hundred samples are put together first: what is done with each in Python costs more than decoding.
    """
    frame: av.AudioFrame | None = first
    while frame is not None:  # another round where the file goes on in another form
        form, fifo = _form(frame), av.AudioFifo()
        resampler = None
        if frame.sample_rate != sample_rate:
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=sample_rate)
        rate = frame.sample_rate
        while frame is not None and _form(frame) == form:
            frame.pts = None  # a gap is no error: what comes after it follows at once
            fifo.write(frame)
            if fifo.samples >= BLOCK:
                yield from _at_rate(fifo.read(), rate, resampler)
            frame = next(others, None)
        if fifo.samples:
            yield from _at_rate(fifo.read(), rate, resampler)
        if resampler is not None:
            yield from (part.to_ndarray()[0] for part in resampler.resample(None))


def _form(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _at_rate(frame: av.AudioFrame | None, rate: int, resampler: av.AudioResampler | None) -> Iterator[np.ndarray]:
    assert frame is not None
    waveform = _mono(frame)
    if resampler is None:
        yield waveform
        return
    mono = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
    mono.sample_rate = rate
    yield from (part.to_ndarray()[0] for part in resampler.resample(mono))


_FULL_SCALE = {"i1": 2.0**7, "u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31}


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """(n_samples,) float32: the mean over channels of a decoded block."""
    samples = frame.to_ndarray()
    kind = samples.dtype.str[1:]
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono = samples.mean(axis=0, dtype=np.float32) if len(samples) > 1 else samples[0].astype(np.float32)
    if kind in _FULL_SCALE:
        mono = (mono - 128.0 if kind == "u1" else mono) / np.float32(_FULL_SCALE[kind])
    return mono.astype(np.float32, copy=False)
