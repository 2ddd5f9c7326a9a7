"""Log-mel with NumPy alone, for what must start without PyTorch; and the mel filters of both.

These are computed in float64: torchaudio's own, in float32, are off by 1.9e-4.
"""

import math

import numpy as np

from avrecog.features.settings import LogMelConfig

BLOCK_ROWS = 4096  # whose spectra are in memory at once


def log_mel(waveform: np.ndarray, config: LogMelConfig) -> np.ndarray:
    """What `log_mel.LogMel` makes of a waveform, to the last digits of float32, where PyTorch takes seconds to load.

    Args:
        waveform: (n_samples,) float32 at `config.sample_rate`, full scale -1..1.
        config: of the front end.

    Returns: (mel_frames, n_mels) float32.
    """
    n_fft, hop = config.n_fft, config.hop_length
    if config.rms_level is not None:
        level = math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64)))) if len(waveform) else 0.0
        waveform = waveform * np.float32(config.rms_level / max(level, 1e-4))
    if config.center:
        waveform = np.pad(waveform, (n_fft // 2, -len(waveform) % hop + n_fft // 2))
    elif len(waveform) < n_fft:
        waveform = np.pad(waveform, (0, n_fft - len(waveform)))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, n_fft)[::hop]
    window, basis = _window(config).astype(np.float32), mel_basis(config).T.astype(np.float32)
    parts = []
    for begin in range(0, len(frames), BLOCK_ROWS):
        spectrum = np.fft.rfft(frames[begin : begin + BLOCK_ROWS] * window, axis=1)
        energy = np.square(spectrum.real) + np.square(spectrum.imag)
        parts.append(_logarithm((energy if config.power == 2 else np.sqrt(energy)) @ basis, config))
    return np.concatenate(parts)


def _logarithm(mel: np.ndarray, config: LogMelConfig) -> np.ndarray:
    """As `LogMel.logarithm`."""
    if config.log == "natural":
        return np.log(mel + np.float32(config.offset))
    least = np.float32(10 ** (-config.floor_db / 20 * config.power))
    decibel = np.float32(20 / config.power) * np.log10(np.maximum(mel, least))
    return np.clip((decibel - config.reference_db + config.floor_db) / config.floor_db, 0, 1).astype(np.float32)


def _window(config: LogMelConfig) -> np.ndarray:
    places = np.arange(config.n_fft)
    if config.window == "sine":
        return np.sin(math.pi * (places + 0.5) / config.n_fft)
    return 0.5 - 0.5 * np.cos(2 * math.pi * places / config.n_fft)


def mel_basis(config: LogMelConfig) -> np.ndarray:
    """Triangular mel filters.

    Returns: (n_mels, n_fft // 2 + 1) float64.
    Source: Slaney, "Auditory Toolbox", 1998, and the HTK book; equal to librosa.filters.mel.
    """
    bins_hz = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    low, high = _to_mel(np.array([config.f_min, config.stop_hz]), config.mel_scale).tolist()
    corners_hz = _to_hz(np.linspace(low, high, config.n_mels + 2), config.mel_scale)
    widths = np.diff(corners_hz)
    slopes = corners_hz[:, None] - bins_hz
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    basis = np.maximum(0, np.minimum(rising, falling))
    if config.mel_norm == "slaney":
        basis *= (2 / (corners_hz[2:] - corners_hz[:-2]))[:, None]
    return basis


# Slaney's scale: linear below 1 kHz (3 mels per 200 Hz), then 27 steps for each factor of 6.4
_BREAK_HZ, _BREAK_MEL, _STEP = 1000.0, 15.0, math.log(6.4) / 27


def _to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _STEP
    return np.where(hz < _BREAK_HZ, hz * 3 / 200, above)


def _to_hz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < _BREAK_MEL, mel * 200 / 3, _BREAK_HZ * np.exp(_STEP * (mel - _BREAK_MEL)))
