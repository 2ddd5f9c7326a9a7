"""Temporal segment network on RGB: a 2-D network on a snippet of each segment, and the mean of what it says.

Wang et al., "Temporal Segment Networks", 2016; MMAction2's TSN with AvgConsensus. What differs: a snippet may have
several frames, stacked as channels, which lets the first layer see motion; with `motion` it sees nothing else, since
the mean picture of the snippet is taken off; and `width` scales a ResNet's channels.

B batch, N segments, C channels (3 for each frame of a snippet), H W height and width, D features, K classes.
"""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from avrecog.config import Count, Flag, Fraction, Text, section
from avrecog.errors import ConfigError
from avrecog.inputs import SegmentInput
from avrecog.models.base import ModelConfig, with_width
from avrecog.models.input_norm import InputNorm
from avrecog.models.timm_backbone import timm_backbone


@section
class TsnConfig(ModelConfig):
    """A section below `models` with architecture `tsn`."""

    architecture: Literal["tsn"] = "tsn"
    backbone: Text = "resnet18"  # a network of timm, by its name there
    width: Count | None = None  # channels of its first stage, for timm's plain ResNets; null: the backbone's own
    n_segments: Count = 3
    snippet: Count = 1  # consecutive frames in each segment, stacked as channels
    motion: Flag = False  # show each frame less the mean picture of its snippet; needs a snippet of 2 at least
    crop_height: Count = 64  # pixels of what the network sees, cut from the stored frames
    crop_width: Count = 64
    dropout: Fraction = 0.4
    init_from: Text | None = None  # null, `imagenet` (timm's weights), or the path of a checkpoint
    train: dict[str, Any] = Field(default_factory=dict)  # what differs from section `train` for this model

    def __post_init__(self) -> None:
        if self.motion and self.snippet < 2:
            raise ConfigError("motion: expected false with a snippet of 1, in which nothing moves")
        if self.width is None:
            return
        if not self.backbone.startswith("resnet"):
            raise ConfigError(
                f"width: expected null, since only timm's resnet... have one, got backbone {self.backbone}"
            )
        if self.width % 8:
            raise ConfigError(f"width: expected a multiple of 8, got {self.width}")
        if self.init_from == "imagenet":
            raise ConfigError(
                "width: expected null with init_from imagenet, whose weights have the backbone's own width"
            )

    def input(self) -> SegmentInput:
        """A snippet of each segment."""
        return SegmentInput(
            n_segments=self.n_segments, snippet=self.snippet, height=self.crop_height, width=self.crop_width
        )

    def build(self, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
        """A `Tsn`."""
        return Tsn(
            self.backbone,
            n_classes,
            snippet=self.snippet,
            width=self.width,
            dropout=self.dropout,
            pretrained=pretrained,
            motion=self.motion,
            size=(self.crop_height, self.crop_width),
        )

    def describe(self) -> str:
        """The backbone's name."""
        return with_width(self.backbone, self.width, None)


class Tsn(nn.Module):
    """Frames (B, N, C, H, W) in 0..1 -> logits (B, K)."""

    def __init__(
        self,
        backbone: str,
        n_classes: int,
        *,
        snippet: int = 1,
        width: int | None = None,
        dropout: float = 0.4,
        pretrained: bool = False,
        motion: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Build timm's `backbone` without its classifier, and a classifier on its features.

        Args:
            backbone: timm's name.
            n_classes: K.
            snippet: frames of a snippet, C / 3.
            width: channels of a ResNet's first stage; None: the backbone's own.
            dropout: before the classifier.
            pretrained: begin with timm's ImageNet weights.
            motion: show each frame less the mean picture of its snippet.
            size: (H, W); None: timm's usual.
        """
        from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # late: timm takes 2 s

        super().__init__()
        self.motion = motion
        self.standardise = InputNorm(IMAGENET_DEFAULT_MEAN * snippet, IMAGENET_DEFAULT_STD * snippet)
        channels = (
            {}
            if width is None
            else {"channels": tuple(width * 2**stage for stage in range(4)), "stem_width": width // 2}
        )
        self.backbone = timm_backbone(backbone, size, pretrained, in_chans=3 * snippet, num_classes=0, **channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(_n_features(self.backbone), n_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits: the mean over segments (average consensus)."""
        n_segments = frames.shape[1]  # (B, N, C, H, W)
        snippets = frames.flatten(0, 1)  # (B*N, C, H, W)
        inputs = _motion(snippets) if self.motion else self.standardise(snippets)
        features = self.backbone(inputs)  # (B*N, D)
        logits = self.fc(self.dropout(features))  # (B*N, K)
        return logits.unflatten(0, (-1, n_segments)).mean(dim=1)  # (B, K)


def _n_features(backbone: nn.Module) -> int:
    """D, as the backbone says it."""
    n_features = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    assert isinstance(n_features, int)
    return n_features


def _motion(snippets: Tensor) -> Tensor:
    """Each frame less the mean picture of its snippet, (B*N, C, H, W), in tenths of the full range."""
    pictures = snippets.unflatten(1, (-1, 3))  # (B*N, C / 3, 3, H, W)
    return ((pictures - pictures.mean(dim=1, keepdim=True)) / 0.1).flatten(1, 2)
