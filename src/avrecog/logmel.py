"""Waveform -> log-mel spectrogram.

One front end with the settings that make the two reference implementations exact: `FRONT_ENDS["slowfast"]` (AVSlowFast)
and `FRONT_ENDS["mmaction2"]` (its audio features). The mel basis is computed in float64: torchaudio's own, in float32,
is off by 1.9e-4.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
import torchaudio
from pydantic import field_validator
from torch import Tensor, nn

from avrecog.config import Count, Flag, NonNegativeNumber, Number, PositiveNumber, section, suggest
from avrecog.errors import ConfigError


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


class LogMel(nn.Module):
    """Waveforms (..., n_samples) -> log-mel (..., mel_frames, n_mels), in the waveform's own precision.

    With `center`, n_samples is completed with zeros to whole hops, which gives 1 + ceil(n_samples / hop_length) frames;
    without it, 1 + (n_samples - n_fft) // hop_length.
    """

    def __init__(self, config: LogMelConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.spectrum = torchaudio.transforms.Spectrogram(
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            window_fn=_sine_window if config.window == "sine" else _hann_window,
            power=None,  # complex: torchaudio's own magnitudes take twice as long as the transform
            center=config.center,
            pad_mode="constant",
        )
        self.mel = torchaudio.transforms.MelScale(config.n_mels, config.sample_rate, n_stft=config.n_fft // 2 + 1)
        self.mel.fb = torch.from_numpy(mel_basis(config).T.copy())
        self.to(dtype)

    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel of waveforms at `config.sample_rate`, full scale -1..1."""
        config = self.config
        if config.rms_level is not None:
            level = waveform.square().mean(dim=-1, keepdim=True).sqrt()
            waveform = waveform * (config.rms_level / level.clamp(min=1e-4))
        if config.center:
            waveform = nn.functional.pad(waveform, (0, -waveform.shape[-1] % config.hop_length))
        elif waveform.shape[-1] < config.n_fft:
            waveform = nn.functional.pad(waveform, (0, config.n_fft - waveform.shape[-1]))
        real, imaginary = torch.view_as_real(self.spectrum(waveform)).unbind(-1)
        energy = torch.addcmul(real * real, imaginary, imaginary)
        spectrum = energy if config.power == 2 else energy.sqrt()
        return self.logarithm(self.mel(spectrum).transpose(-1, -2), config)

    @staticmethod
    def logarithm(mel: Tensor, config: LogMelConfig) -> Tensor:
        """Of the energies of the mel bands, as the settings say."""
        if config.log == "natural":
            return torch.log(mel + config.offset)
        # 20 log10 of a magnitude, 10 log10 of a power: decibels either way
        decibel = (20 / config.power) * torch.log10(mel.clamp(min=10 ** (-config.floor_db / 20 * config.power)))
        return ((decibel - config.reference_db + config.floor_db) / config.floor_db).clamp(0, 1)


def log_mel_blocks(
    config: LogMelConfig, blocks: Callable[[], Iterable[np.ndarray]], device: torch.device
) -> Iterator[Tensor]:
    """What `LogMel` makes of one waveform, in blocks of rows, so that memory doesn't grow with its length.

    Args:
        config: of the front end.
        blocks: gives the waveform from its beginning in blocks (n,) float32; asked twice where the level is to be set.
        device: that computes.

    Yields: (rows, n_mels) float32 on the device.
    """
    level = _level(blocks()) if config.rms_level is not None else None
    gain = 1.0 if level is None or config.rms_level is None else config.rms_level / max(level, 1e-4)
    front_end = LogMel(dataclasses.replace(config, center=False, rms_level=None)).to(device)
    held = torch.zeros(config.n_fft // 2 if config.center else 0, device=device)
    for block in _completed(blocks(), config):
        held = torch.cat([held, gain * torch.from_numpy(block).to(device)])
        n_rows = 1 + (len(held) - config.n_fft) // config.hop_length
        if n_rows > 0:
            yield front_end(held[: (n_rows - 1) * config.hop_length + config.n_fft])
            held = held[n_rows * config.hop_length :]


def _completed(blocks: Iterable[np.ndarray], config: LogMelConfig) -> Iterator[np.ndarray]:
    """The blocks, and with `center` the zeros after the last one."""
    n_samples = 0
    for block in blocks:
        n_samples += len(block)
        yield block
    if config.center:
        yield np.zeros(-n_samples % config.hop_length + config.n_fft // 2, np.float32)


def _level(blocks: Iterable[np.ndarray]) -> float:
    """The root mean square."""
    n_samples, energy = 0, 0.0
    for block in blocks:
        n_samples += len(block)
        energy += float(np.dot(block.astype(np.float64), block))
    return math.sqrt(energy / max(1, n_samples))


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


def _hann_window(length: int) -> Tensor:
    return torch.hann_window(length, periodic=True, dtype=torch.float64)


def _sine_window(length: int) -> Tensor:
    """Square root of the half-sample-symmetric Hann window."""
    return torch.sin(math.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length)
