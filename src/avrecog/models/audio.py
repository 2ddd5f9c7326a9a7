"""Networks on log-mel: a backbone of our own, or any of timm's. B batch, T mel frames, M mel bands, K classes."""

from typing import Any, Literal, Protocol

from pydantic import Field
from torch import nn

from avrecog.config import Count, Fraction, Text, section
from avrecog.errors import ConfigError
from avrecog.inputs import LogMelInput
from avrecog.models import audio_resnet, cnn10, resnet_audio
from avrecog.models.base import ModelConfig, with_width
from avrecog.models.timm_audio import TimmAudio


class AudioBackbone(Protocol):
    """A network of our own on log-mel."""

    min_rows: int  # mel frames and mel bands that it takes at least

    def check(self, depth: int | None, width: int | None) -> None:
        """Refuse a depth or a width that it can't have.

        Raises:
            ConfigError: saying what was expected.
        """

    def build(self, n_classes: int, *, depth: int | None, width: int | None, dropout: float) -> nn.Module:
        """The network with random weights: log-mel (B, 1, T, M) -> logits (B, K)."""

    def describe(self, depth: int | None, width: int | None) -> str:
        """Its name for a table."""


BACKBONES: dict[str | None, AudioBackbone] = {
    None: audio_resnet.Backbone(),
    "cnn10": cnn10.Backbone(),
    "resnetaudio": resnet_audio.Backbone(),
}


@section
class AudioModelConfig(ModelConfig):
    """A section below `models` with architecture `audio`."""

    architecture: Literal["audio"] = "audio"
    depth: Count | None = 18  # of the ResNet: 10, 18, 34, 50, 101; of resnetaudio: 50, 101, 152; else null
    width: Count | None = 64  # channels of the first stage of the networks of our own; null with a network of timm
    backbone: Text | None = None  # null: the ResNet; cnn10, resnetaudio: files beside this; else timm's, by its name
    mel_frames: Count = 128  # of a crop
    sampling: Literal["time", "mmaction2-0.x", "mmaction2-1.x"] = "time"  # where crops lie; else by video frame numbers
    dropout: Fraction = 0.5
    init_from: Text | None = None  # null, `imagenet` (timm's weights; needs backbone), or the path of a checkpoint
    train: dict[str, Any] = Field(default_factory=dict)  # what differs from section `train` for this model

    def __post_init__(self) -> None:
        own = BACKBONES.get(self.backbone)
        if own is None:
            if (self.depth, self.width) != (None, None):
                raise ConfigError(
                    f"depth: expected null, and width null, with backbone {self.backbone}, which has its own"
                )
            return
        own.check(self.depth, self.width)
        if self.mel_frames < own.min_rows:
            raise ConfigError(
                f"mel_frames: expected {own.min_rows} at least with {self.backbone}, got {self.mel_frames}"
            )
        if self.init_from == "imagenet":
            raise ConfigError("init_from: timm has no weights for this network; set backbone, e.g. to resnet18")

    def input(self) -> LogMelInput:
        """Crops of log-mel."""
        own = BACKBONES.get(self.backbone)
        return LogMelInput(
            mel_frames=self.mel_frames, sampling=self.sampling, min_mels=1 if own is None else own.min_rows
        )

    def build(self, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
        """The backbone, for `n_mels` bands where it is made for one size."""
        own = BACKBONES.get(self.backbone)
        if own is not None:
            return own.build(n_classes, depth=self.depth, width=self.width, dropout=self.dropout)
        assert self.backbone is not None
        size = None if n_mels is None else (self.mel_frames, n_mels)
        return TimmAudio(self.backbone, n_classes, dropout=self.dropout, pretrained=pretrained, size=size)

    def describe(self) -> str:
        """The backbone's name."""
        own = BACKBONES.get(self.backbone)
        return with_width(str(self.backbone), self.width, None) if own is None else own.describe(self.depth, self.width)

    @property
    def exports(self) -> bool:
        """Our own do."""
        return self.backbone in BACKBONES
