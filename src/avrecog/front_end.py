"""What the front end for sound is: its settings, its mel filters, and log-mel without PyTorch.

`FRONT_ENDS` has the settings that make the two reference implementations exact. The mel basis is computed in float64:
torchaudio's own, in float32, is off by 1.9e-4.
"""

import math
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from avrecog.config import Count, Flag, NonNegativeNumber, Number, PositiveNumber, section, suggest
from avrecog.errors import ConfigError

BLOCK_ROWS = 4096  # whose spectra are in memory at once


@section
class LogMelConfig:
    """Part `logmel` of section `audio` in params.yaml."""

    sample_rate: Count = 16_000  # Hz; waveforms are resampled to this on decoding
    n_fft: Count = 512  # samples; the window is as long
    hop_length: Count = 256  # samples
    n_mels: Count = 80
    f_min: NonNegativeNumber = 0.0  # Hz
    f_max: PositiveNumber | None = None  # Hz; null: half the sample rate
    window: Literal["hann", "sine"] = "hann"
    center: Flag = True  # frame i is centred on sample i * hop_length, zeros beyond the ends
    power: Literal[1, 2] = 2  # 1: magnitude, 2: power
    mel_scale: Literal["htk", "slaney"] = "htk"
    mel_norm: Literal["slaney"] | None = "slaney"  # slaney: every filter has area one
    log: Literal["natural", "decibel"] = "natural"  # natural: log(x + offset); decibel: scaled and clipped to 0..1
    offset: PositiveNumber = 1e-6  # of the natural log
    floor_db: PositiveNumber = 100.0  # decibel: this far below reference_db is 0
    reference_db: Number = 20.0  # decibel: this is 1
    rms_level: PositiveNumber | None = (
        None  # scale every waveform to this root mean square first; null: leave its level
    )

    def __post_init__(self) -> None:
        if self.hop_length > self.n_fft:
            raise ConfigError(f"hop_length: expected at most n_fft ({self.n_fft}), got {self.hop_length}")
        if self.stop_hz > self.sample_rate / 2:
            raise ConfigError(
                f"f_max: expected at most half the sample rate ({self.sample_rate / 2:g}), got {self.f_max}"
            )
        if self.f_min >= self.stop_hz:
            raise ConfigError(f"f_min: expected less than f_max ({self.stop_hz:g}), got {self.f_min:g}")

    @property
    def stop_hz(self) -> float:
        """The upper end of the highest mel band."""
        return self.f_max if self.f_max is not None else self.sample_rate / 2

    @property
    def silence(self) -> float:
        """The front end's value where the waveform is zero."""
        if self.log == "natural":
            return math.log(self.offset)
        return min(1.0, max(0.0, -self.reference_db / self.floor_db))

    @property
    def per_db(self) -> float:
        """By how much a gain of one decibel moves a value (above the floor)."""
        return 1 / self.floor_db if self.log == "decibel" else self.power * math.log(10) / 20

    @property
    def frames_per_s(self) -> float:
        """Mel frames in a second."""
        return self.sample_rate / self.hop_length


@section
class AudioConfig:
    """Section `audio` in params.yaml: the front end."""

    logmel: LogMelConfig  # or the name of one in FRONT_ENDS

    @field_validator("logmel", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in FRONT_ENDS:
            known = " or ".join(FRONT_ENDS)
            raise ValueError(f"expected a mapping, or {known}, got {value!r}{suggest(value, FRONT_ENDS)}")
        return FRONT_ENDS[value]


FRONT_ENDS = {
    "slowfast": LogMelConfig(center=False, offset=1e-8, f_max=8000.0),
    "mmaction2": LogMelConfig(
        f_min=125.0, f_max=7600.0, window="sine", power=1, mel_scale="slaney", log="decibel", rms_level=0.1
    ),
}


def log_mel(waveform: np.ndarray, config: LogMelConfig) -> np.ndarray:
    """What `logmel.LogMel` makes of a waveform, to the last digits of float32, where PyTorch takes seconds to load.

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
