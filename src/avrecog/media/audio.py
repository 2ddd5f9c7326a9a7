"""Media file -> mono waveform at one sample rate."""

from pathlib import Path

import av
import numpy as np

from avrecog.errors import MediaError
from avrecog.media.container import MOST_BYTES, audio_stream, open_media, origin_s, seek_before, stream_begin_s


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
        MediaError: if there is no sound, it can't be decoded, nothing lies in the span, or a sample is not finite.
    """
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{path}: no audio stream; drop the row or leave audio out of pipeline.models")
        begin_s = stream_begin_s(container, stream)
        seek_before(container, stream, start_s)
        blocks, first_s = _mono_blocks(container, stream, origin_s(container), stop_s)
        rate = stream.sample_rate
        if not blocks:
            raise MediaError(
                f"{path}: no sound between {start_s:g} s and {stop_s if stop_s is not None else 'the end'}"
            )
        waveform = _resample(np.concatenate(blocks), rate, sample_rate)
    begin = max(0, round((start_s - first_s) * sample_rate))
    end = None if stop_s is None else max(0, round((stop_s - first_s) * sample_rate))
    waveform = waveform[begin:end]
    n_before = round((begin_s - start_s) * sample_rate)
    if 4 * (len(waveform) + max(0, n_before)) > MOST_BYTES:
        raise MediaError(f"{path}: more than {MOST_BYTES / 4 / sample_rate / 3600:.0f} h of sound in one clip; {_CUT}")
    if len(waveform) and n_before > 0:
        waveform = np.concatenate([np.zeros(n_before, np.float32), waveform])
    if not len(waveform):
        raise MediaError(f"{path}: no sound between {start_s:g} s and {stop_s if stop_s is not None else 'the end'}")
    if not np.isfinite(waveform).all():
        raise MediaError(f"{path}: the sound holds values that are not finite (NaN or infinity)")
    return waveform


def _mono_blocks(
    container: av.container.InputContainer, stream: av.AudioStream, file_begin_s: float, stop_s: float | None
) -> tuple[list[np.ndarray], float]:
    """Mono float32 blocks in stream order up to `stop_s`, and the time of the first sample.

    Raises:
        MediaError: if they are too many for memory.
    """
    blocks: list[np.ndarray] = []
    first_s, n_samples = 0.0, 0
    for frame in container.decode(stream):
        time_s = (frame.time if frame.time is not None else file_begin_s) - file_begin_s
        if stop_s is not None and time_s >= stop_s + 0.1:  # a run-out for the resampler's filter
            break
        n_samples += frame.samples
        if 4 * n_samples > MOST_BYTES:
            raise MediaError(f"{container.name}: more than {n_samples:,} samples in one clip; {_CUT}")
        if not blocks:
            first_s = time_s
        blocks.append(_mono(frame))
    return blocks, first_s


_CUT = "cut it with start and end"
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


def _resample(waveform: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    if rate == sample_rate:
        return waveform
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=sample_rate)
    frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
