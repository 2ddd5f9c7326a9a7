"""Augmentation: draw apart from apply.

`draw_*` takes a generator and gives random values for every clip of an epoch, row i for clip i, so that batch size,
workers and a restart change nothing. `apply_*` is a pure function of a batch and its rows.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from avrecog.config import Flag, Fraction, NonNegativeNumber, WholeNumber, section
from avrecog.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@section
class AudioAugmentConfig:
    """Part `audio` of train.augment: what happens to log-mel crops in training."""

    gain_db: NonNegativeNumber = 0.0  # level moved by up to this, either way
    roll: Flag = False  # crops begin anywhere and go on at the clip's begin where it ends (a circular shift)
    n_frequency_masks: WholeNumber = 0  # SpecAugment
    frequency_mask: Fraction = 0.15  # widest mask, as a part of the mel bands
    n_time_masks: WholeNumber = 0
    time_mask: Fraction = 0.15  # widest mask, as a part of the crop
    frequency_shift: Fraction = 0.0  # spectrum moved up or down by up to this part of the mel bands


@section
class VideoAugmentConfig:
    """Part `video` of train.augment: what happens to frames in training."""

    min_area: Fraction = 1.0  # random resized crop: smallest part of the picture; 1: a random crop, not resized
    max_aspect: NonNegativeNumber = 1.0  # how far its shape may be from the model's input's, either way
    flip: Flag = False  # left and right, every second clip
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0

    def __post_init__(self) -> None:
        if not self.min_area > 0:
            raise ConfigError(f"min_area: expected above 0 and at most 1, got {self.min_area:g}")
        if self.max_aspect < 1:
            raise ConfigError(f"max_aspect: expected at least 1, got {self.max_aspect:g}")
        if self.max_aspect > 1 and self.min_area == 1:
            raise ConfigError(f"max_aspect: expected 1 with min_area 1, which crops nothing, got {self.max_aspect:g}")


@section
class AugmentConfig:
    """Part `augment` of section `train`."""

    mixup_alpha: NonNegativeNumber = 0.0  # Beta(alpha, alpha) mixes each clip with another; 0: none
    audio: AudioAugmentConfig = Field(default_factory=AudioAugmentConfig)
    video: VideoAugmentConfig = Field(default_factory=VideoAugmentConfig)


@dataclass(frozen=True)
class MixupDraw:
    """(N,) partner index and weight of the clip itself, in [0.5, 1]."""

    partner: np.ndarray
    weight: np.ndarray


def draw_mixup(generator: np.random.Generator, n_clips: int, alpha: float) -> MixupDraw:
    """With whom, and how strongly, each clip of the epoch is mixed (Zhang et al., "mixup", 2018)."""
    weight = generator.beta(alpha, alpha, n_clips)
    return MixupDraw(generator.integers(0, n_clips, n_clips), np.maximum(weight, 1 - weight).astype(np.float32))


@dataclass(frozen=True)
class AudioDraw:
    """Uniform numbers in [0, 1) for every clip of an epoch."""

    start: np.ndarray  # (N,)
    gain: np.ndarray  # (N,)
    shift: np.ndarray  # (N,)
    frequency_masks: np.ndarray  # (N, masks, 2): width and place
    time_masks: np.ndarray  # (N, masks, 2)

    def rows(self, indices: np.ndarray) -> "AudioDraw":
        """The rows of a batch."""
        return AudioDraw(*(getattr(self, name)[indices] for name in self.__dataclass_fields__))


def draw_audio(generator: np.random.Generator, n_clips: int, config: AudioAugmentConfig) -> AudioDraw:
    """Random values for an epoch of log-mel crops."""
    numbers = generator.random((n_clips, 3))
    return AudioDraw(
        start=numbers[:, 0],
        gain=numbers[:, 1],
        shift=numbers[:, 2],
        frequency_masks=generator.random((n_clips, config.n_frequency_masks, 2)),
        time_masks=generator.random((n_clips, config.n_time_masks, 2)),
    )


def apply_audio(log_mel: "Tensor", draw: AudioDraw, config: AudioAugmentConfig, per_db: float) -> "Tensor":
    """Gain, shift along frequency, then masks filled with each crop's own mean.

    Args:
        log_mel: (B, 1, mel_frames, n_mels).
        draw: the batch's rows.
        config: how strong.
        per_db: by how much a decibel moves a value.

    Returns: a new tensor of the same shape.
    """
    import torch  # late: it takes seconds

    from avrecog.runtime.device import to_device

    _, _, mel_frames, n_mels = log_mel.shape
    device = log_mel.device
    result = log_mel
    if config.gain_db:
        gain = to_device((draw.gain * 2 - 1) * config.gain_db * per_db, device).to(log_mel.dtype)
        result = result + gain[:, None, None, None]
    if config.frequency_shift:
        steps = np.round((draw.shift * 2 - 1) * config.frequency_shift * n_mels).astype(np.int64)
        bands = torch.arange(n_mels, device=device)[None] - to_device(steps, device)[:, None]
        result = result.gather(3, bands.clamp(0, n_mels - 1)[:, None, None, :].expand_as(result))
    fill = result.mean(dim=(1, 2, 3), keepdim=True)
    if config.n_frequency_masks:
        mask = _masks(draw.frequency_masks, config.frequency_mask, n_mels, device)
        result = torch.where(mask[:, None, None, :], fill, result)
    if config.n_time_masks:
        mask = _masks(draw.time_masks, config.time_mask, mel_frames, device)
        result = torch.where(mask[:, None, :, None], fill, result)
    return result


def _masks(numbers: np.ndarray, widest: float, length: int, device: "torch.device") -> "Tensor":
    """(B, length) true where one of the masks lies; numbers (B, masks, 2) give width and place."""
    import torch

    from avrecog.runtime.device import to_device

    width = np.floor(numbers[..., 0] * (np.floor(widest * length) + 1))
    start = np.floor(numbers[..., 1] * (length - width + 1))
    place = torch.arange(length, device=device)
    begin = to_device(start, device)[..., None]
    end = to_device(start + width, device)[..., None]
    return ((place >= begin) & (place < end)).any(dim=1)


@dataclass(frozen=True)
class VideoDraw:
    """Uniform numbers in [0, 1) for every clip of an epoch."""

    position: np.ndarray  # (N, n_segments): where in its slice a snippet lies
    crop: np.ndarray  # (N, 4): area, aspect, top, left
    flip: np.ndarray  # (N,)
    colour: np.ndarray  # (N, 3): brightness, contrast, saturation

    def rows(self, indices: np.ndarray) -> "VideoDraw":
        """The rows of a batch."""
        return VideoDraw(*(getattr(self, name)[indices] for name in self.__dataclass_fields__))


def draw_video(generator: np.random.Generator, n_clips: int, n_segments: int) -> VideoDraw:
    """Random values for an epoch of frames; all frames of a clip share crop, flip and colour."""
    return VideoDraw(
        position=generator.random((n_clips, n_segments)),
        crop=generator.random((n_clips, 4)),
        flip=generator.random(n_clips),
        colour=generator.random((n_clips, 3)),
    )


def apply_video(frames: "Tensor", draw: VideoDraw, config: VideoAugmentConfig, size: tuple[int, int]) -> "Tensor":
    """Random resized crop, flip and colour.

    Args:
        frames: (B, N, C, H, W) in 0..1, C a multiple of 3.
        draw: the batch's rows.
        config: how strong.
        size: (height, width) of the result.

    Returns: (B, N, C, *size).
    """
    from torch.nn import functional

    from avrecog.runtime.device import to_device

    batch, n_frames, channels, height, width = frames.shape
    device = frames.device
    log_aspect = (draw.crop[:, 1] * 2 - 1) * math.log(config.max_aspect)
    # at min_area 1 the crop is the result's own size, moved at random
    if config.min_area < 1:
        area = config.min_area + draw.crop[:, 0] * (1 - config.min_area)
        # the largest part of the picture that has the result's shape is the whole that is cropped from
        largest = min(height / size[0], width / size[1])
        crop_height = np.minimum(1.0, np.sqrt(area / np.exp(log_aspect)) * largest * size[0] / height)
        crop_width = np.minimum(1.0, np.sqrt(area * np.exp(log_aspect)) * largest * size[1] / width)
    else:
        crop_height = np.full(batch, min(1.0, size[0] / height))
        crop_width = np.full(batch, min(1.0, size[1] / width))
    centre_y = (draw.crop[:, 2] * 2 - 1) * (1 - crop_height)  # in -1..1 coordinates
    centre_x = (draw.crop[:, 3] * 2 - 1) * (1 - crop_width)
    mirror = np.where(config.flip & (draw.flip < 0.5), -1.0, 1.0)
    theta = np.zeros((batch, 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 0, 2] = crop_width * mirror, centre_x
    theta[:, 1, 1], theta[:, 1, 2] = crop_height, centre_y
    stacked = frames.flatten(1, 2)  # (B, N*C, H, W): one grid for all frames of a clip
    grid = functional.affine_grid(
        to_device(theta, device).to(frames.dtype), [batch, n_frames * channels, *size], align_corners=False
    )
    result = functional.grid_sample(stacked, grid, padding_mode="reflection", align_corners=False)
    return _colour(result.unflatten(1, (n_frames, channels)), draw, config)


def _colour(frames: "Tensor", draw: VideoDraw, config: VideoAugmentConfig) -> "Tensor":
    import torch

    from avrecog.runtime.device import to_device

    strength = np.array([config.brightness, config.contrast, config.saturation])
    if not strength.any():
        return frames
    factors = to_device(1 + (draw.colour * 2 - 1) * strength, frames.device).to(frames.dtype)
    brightness, contrast, saturation = (factors[:, i, None, None, None, None] for i in range(3))
    rgb = frames.unflatten(2, (-1, 3))  # (B, N, snippet, 3, H, W)
    grey = rgb.mean(dim=3, keepdim=True)
    mean = grey.mean(dim=(1, 2, 3, 4, 5), keepdim=True)
    # saturation away from grey, then contrast away from the mean, then brightness, as one pass over the pixels
    of_rgb, of_grey = brightness * contrast * saturation, brightness * contrast * (1 - saturation)
    rest = grey * of_grey[..., None] + mean * (brightness * (1 - contrast))[..., None]
    return torch.addcmul(rest, rgb, of_rgb[..., None]).flatten(2, 3).clamp_(0, 1)
