"""Models by the name of their architecture: what makes each."""

from collections.abc import Callable
from typing import Any

from torch import nn

from avrecog.errors import ConfigError
from avrecog.models.audio_resnet import AudioResNet
from avrecog.models.avslowfast import AVSlowFast
from avrecog.models.avsync import AVSync
from avrecog.models.cnn10 import AudioCnn
from avrecog.models.resnet_audio import ResNetAudio
from avrecog.models.settings import (
    OWN_WIDTHS,
    AudioModelConfig,
    AVSlowFastConfig,
    AVSyncConfig,
    ModelConfig,
    ModelSection,
    SlowFastConfig,
    TsnConfig,
    describe,
    is_of_timm,
)
from avrecog.models.slowfast import SlowFast
from avrecog.models.timm_audio import TimmAudio
from avrecog.models.tsn import Tsn
from avrecog.pipeline import PipelineConfig, SelfSupervisedConfig

__all__ = [
    "ARCHITECTURES",
    "AVSlowFastConfig",
    "AVSyncConfig",
    "AudioModelConfig",
    "ModelConfig",
    "ModelSection",
    "PipelineConfig",
    "SelfSupervisedConfig",
    "SlowFastConfig",
    "TsnConfig",
    "build_model",
    "describe",
    "is_of_timm",
]


def _audio(config: AudioModelConfig, n_classes: int, pretrained: bool, n_mels: int | None) -> nn.Module:
    if config.backbone == "cnn10":
        assert config.width is not None
        return AudioCnn(n_classes, config.width, config.dropout)
    if config.backbone not in OWN_WIDTHS:
        assert config.backbone is not None
        size = None if n_mels is None else (config.mel_frames, n_mels)
        return TimmAudio(config.backbone, n_classes, config.dropout, pretrained, size)
    assert config.depth is not None
    assert config.width is not None
    if config.backbone == "resnetaudio":
        return ResNetAudio(config.depth, n_classes, config.width, config.dropout)
    return AudioResNet(config.depth, n_classes, config.width, config.dropout)


def _tsn(config: TsnConfig, n_classes: int, pretrained: bool, _: int | None) -> nn.Module:
    size = (config.crop_height, config.crop_width)
    return Tsn(
        config.backbone, n_classes, config.snippet, config.width, config.dropout, pretrained, config.motion, size
    )


def _slowfast(config: SlowFastConfig, n_classes: int, _: bool, __: int | None) -> nn.Module:
    return SlowFast(
        n_classes,
        config.depth,
        config.width,
        config.frames,
        config.alpha,
        config.lateral_kernel,
        config.dropout,
        config.long_res4,
    )


def _avslowfast(config: AVSlowFastConfig, n_classes: int, _: bool, __: int | None) -> nn.Module:
    return AVSlowFast(
        n_classes,
        config.depth,
        config.width,
        config.frames,
        config.alpha,
        config.lateral_kernel,
        config.mel_frames,
        config.dropout,
        config.drop_pathway,
        config.drop_scope,
        config.drop_per_clip,
        synchronise=config.sync_weight > 0,
        sync_weight=config.sync_weight,
        lateral_after=config.lateral_after,
        long_res4=config.long_res4,
    )


def _avsync(config: AVSyncConfig, _: int, __: bool, ___: int | None) -> nn.Module:
    return AVSync(
        depth=config.depth,
        width=config.width,
        frames=config.frames,
        alpha=config.alpha,
        lateral_kernel=config.lateral_kernel,
        mel_frames=config.mel_frames,
        sync_by_step=config.sync_by_step,
        lateral_after=config.lateral_after,
        long_res4=config.long_res4,
    )


ARCHITECTURES: dict[str, Callable[[Any, int, bool, int | None], nn.Module]] = {
    "audio": _audio,
    "tsn": _tsn,
    "slowfast": _slowfast,
    "avslowfast": _avslowfast,
    "avsync": _avsync,
}


def build_model(config: ModelConfig, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
    """A model with random weights, or timm's own with `pretrained`.

    Args:
        config: its section below `models`.
        n_classes: that it tells apart.
        pretrained: begin with timm's weights.
        n_mels: mel bands that it hears, for networks of timm that are made for one size; None: timm's usual.

    Raises:
        ConfigError: if timm knows no such backbone, it can't take inputs of that size, or its weights can't be had.
        RuntimeError: whatever else timm finds wrong.
    """
    try:
        return ARCHITECTURES[config.architecture](config, n_classes, pretrained, n_mels)
    except RuntimeError as error:
        if any(text in str(error) for text in ("Unknown model", "No pretrained weights", "Invalid pretrained tag")):
            raise ConfigError(f"backbone: {error}; timm.list_models() gives the names") from None
        raise
    except OSError as error:  # huggingface_hub's errors are OSErrors
        raise ConfigError(f"init_from: timm's weights for {describe(config)} can't be downloaded: {error}") from None
