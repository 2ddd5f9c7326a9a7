"""Waveform -> log-mel spectrogram.

One front end for everything; its settings stand in `settings.py`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn

from avrecog.features.numpy_log_mel import mel_basis
from avrecog.features.settings import FRONT_ENDS, AudioConfig, LogMelConfig

__all__ = ["FRONT_ENDS", "AudioConfig", "LogMel", "LogMelConfig", "log_mel_blocks", "mel_basis"]


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


def _hann_window(length: int) -> Tensor:
    return torch.hann_window(length, periodic=True, dtype=torch.float64)


def _sine_window(length: int) -> Tensor:
    """Square root of the half-sample-symmetric Hann window."""
    return torch.sin(math.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length)
