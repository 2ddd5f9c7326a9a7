"""SlowFast: a Slow pathway that sees few frames with many channels, and a Fast one that sees all with few.

Feichtenhofer et al., "SlowFast Networks for Video Recognition", 2019. The table of `avslowfast.py` has the size of each
stage. After the stem, res2, res3 and res4 the Fast tensor goes through a convolution along time with stride `alpha` and
is concatenated to Slow; the classifier stands on the means of both.

What differs from the paper's code (facebookresearch/SlowFast), and why:
- The classifier sees global means. The reference classifies every 7 x 7 window of a larger picture and averages the
  probabilities, which is the same on 224 x 224.
- Inputs are standardised by numbers kept with the weights.

B batch, C channels, T frames, H W height and width, D features, K classes.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from avrecog.config import Count, Fraction, Text, WholeNumber, section
from avrecog.errors import ConfigError
from avrecog.inputs import SpanInput
from avrecog.models.base import ModelConfig, with_width
from avrecog.models.input_norm import InputNorm

DEPTHS: dict[int, tuple[int, int, int, int]] = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}

Place = Literal["stem", "res2", "res3", "res4"]
PLACES: tuple[Place, ...] = ("stem", "res2", "res3", "res4")  # after which Fast goes to Slow
STAGES = ("res2", "res3", "res4", "res5")
FAST_RATIO = 8  # the Fast pathway has an eighth of Slow's channels
LONG_RES4_BLOCKS = 6  # only the first so many of res4 have kernels in time, where ResNet-101 has 23


@section
class PathwaysConfig(ModelConfig):
    """The keys of a section below `models` that all networks with Slow and Fast have."""

    depth: Count = 50  # 14, 26, 50, 101
    width: Count = 64  # channels of Slow's stem
    frames: Count = 32  # that Fast sees
    frame_stride: Count = 1  # stored frames from one to the next
    alpha: Count = 8  # Slow sees every alpha-th of them
    lateral_kernel: Count = 5  # of the convolutions from Fast to Slow
    long_res4: WholeNumber = 6  # so many of res4's blocks have kernels in time; ResNet-101 has 23
    crop_height: Count = 224  # pixels of what the network sees, cut from the stored frames
    crop_width: Count = 224
    n_crops: Literal[1, 3] = 1  # of a view at test time: the middle, or three along the longer side
    init_from: Text | None = None  # null, or the path of a checkpoint
    train: dict[str, Any] = Field(default_factory=dict)  # what differs from section `train` for this model

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            known = ", ".join(map(str, DEPTHS))
            raise ConfigError(f"depth: expected one of {known}, got {self.depth}")
        if self.width % 8:
            raise ConfigError(f"width: expected a multiple of 8, got {self.width}")
        if self.frames % self.alpha:
            raise ConfigError(f"frames: expected a multiple of alpha ({self.alpha}), got {self.frames}")
        if self.lateral_kernel % 2 == 0:
            raise ConfigError(f"lateral_kernel: expected an odd number, got {self.lateral_kernel}")
        if self.init_from == "imagenet":
            raise ConfigError("init_from: expected null or the path of a checkpoint, got imagenet, which has none")

    @property
    def span(self) -> SpanInput:
        """The frames of a view."""
        return SpanInput(
            frames=self.frames,
            frame_stride=self.frame_stride,
            height=self.crop_height,
            width=self.crop_width,
            n_crops=self.n_crops,
        )

    @property
    def pathways(self) -> dict[str, Any]:
        """The arguments that every such network takes."""
        return {
            "depth": self.depth,
            "width": self.width,
            "frames": self.frames,
            "alpha": self.alpha,
            "lateral_kernel": self.lateral_kernel,
            "long_res4": self.long_res4,
        }

    def named(self, family: str) -> str:
        """`SlowFast-R50 8x8`: depth, Slow's frames and the stored frames from one of them to the next."""
        name = f"{family}-R{self.depth} {self.frames // self.alpha}x{self.alpha * self.frame_stride}"
        return with_width(name, self.width, 64)

    @property
    def exports(self) -> bool:
        """They all do."""
        return True


@section
class SlowFastConfig(PathwaysConfig):
    """A section below `models` with architecture `slowfast`: Slow and Fast pathways on frames."""

    architecture: Literal["slowfast"] = "slowfast"
    dropout: Fraction = 0.5

    def input(self) -> SpanInput:
        """A span of frames."""
        return self.span

    def build(self, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
        """A `SlowFast`."""
        return SlowFast(n_classes, dropout=self.dropout, **self.pathways)

    def describe(self) -> str:
        """`SlowFast-R50 8x8`."""
        return self.named("SlowFast")


class Bottleneck3d(nn.Module):
    """t x 1 x 1, 1 x 3 x 3 and 1 x 1 x 1 convolutions and a shortcut."""

    last_norm = "c_bn"

    def __init__(self, in_channels: int, channels: int, stride: int, temporal: int) -> None:
        super().__init__()
        out_channels = 4 * channels
        self.a = nn.Conv3d(in_channels, channels, (temporal, 1, 1), padding=(temporal // 2, 0, 0), bias=False)
        self.a_bn = nn.BatchNorm3d(channels)
        self.b = nn.Conv3d(channels, channels, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False)
        self.b_bn = nn.BatchNorm3d(channels)
        self.c = nn.Conv3d(channels, out_channels, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, 4 * channels, T, H / stride, W / stride)."""
        out = torch.relu(self.a_bn(self.a(x)))
        out = torch.relu(self.b_bn(self.b(out)))
        return torch.relu(self.c_bn(self.c(out)) + self.shortcut(x))


class Stem3d(nn.Module):
    """t x 7 x 7 convolution with stride 2 in space, and max pooling with stride 2."""

    def __init__(self, channels: int, temporal: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, channels, (temporal, 7, 7), (1, 2, 2), padding=(temporal // 2, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(channels)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), padding=(0, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, channels, T, H / 4, W / 4)."""
        pooled: Tensor = self.pool(torch.relu(self.bn(self._convolved(frames))))
        return pooled

    def _convolved(self, frames: Tensor) -> Tensor:
        channels, t = self.conv.out_channels, self.conv.kernel_size[0]
        if t == 1 or not self.training or self.conv.weight.device.type != "cpu":
            convolved: Tensor = self.conv(frames)
            return convolved
        # the same sums, a convolution for each tap in time: with all at once PyTorch is a tenth as fast on the CPU
        taps = self.conv.weight.movedim(2, 0).flatten(0, 1).unsqueeze(2)  # (t * channels, 3, 1, 7, 7)
        each = functional.conv3d(frames, taps, None, (1, 2, 2), (0, 3, 3)).unflatten(1, (t, channels))
        padded = functional.pad(each, (0, 0, 0, 0, t // 2, t // 2))  # (B, t, channels, T + t - 1, H / 2, W / 2)
        n_frames = frames.shape[2]
        return torch.stack([padded[:, k, :, k : k + n_frames] for k in range(t)]).sum(dim=0)


class FastToSlow(nn.Module):
    """A convolution along time brings Fast to Slow's length; it doubles the channels."""

    def __init__(self, channels: int, kernel: int, alpha: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(
            channels, 2 * channels, (kernel, 1, 1), (alpha, 1, 1), padding=(kernel // 2, 0, 0), bias=False
        )
        self.bn = nn.BatchNorm3d(2 * channels)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Slow (B, C, T / alpha, H, W) and the channels made from Fast behind it."""
        return torch.cat([slow, torch.relu(self.bn(self.conv(fast)))], dim=1)


class VisualPathways(nn.Module):
    """Slow and Fast, and the connections between them."""

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        frames: int,
        alpha: int,
        lateral_kernel: int,
        lateral_after: Sequence[str] = PLACES,
        long_res4: int = LONG_RES4_BLOCKS,
    ) -> None:
        super().__init__()
        self.slow_indices = slow_indices(frames, alpha)
        self.standardise = InputNorm([0.45] * 3, [0.225] * 3)
        fast_width = width // FAST_RATIO
        widths = {"stem": (width, fast_width)}  # channels of Slow and Fast after each stage
        widths |= {stage: (4 * width * 2**i, 4 * fast_width * 2**i) for i, stage in enumerate(STAGES)}
        self.fast_to_slow = nn.ModuleDict(
            {place: FastToSlow(widths[place][1], lateral_kernel, alpha) for place in lateral_after}
        )
        # of Slow once Fast has been concatenated to it
        self.joined_width = {
            place: slow + (2 * fast if place in self.fast_to_slow else 0) for place, (slow, fast) in widths.items()
        }
        self.fast_width = {place: fast for place, (_, fast) in widths.items()}
        slow: dict[str, nn.Module] = {"stem": Stem3d(width, 1)}
        fast: dict[str, nn.Module] = {"stem": Stem3d(fast_width, 5)}
        slow_in, fast_in = self.joined_width["stem"], fast_width
        for i, (stage, n_blocks) in enumerate(zip(STAGES, DEPTHS[depth], strict=True)):
            stride = 1 if i == 0 else 2
            long = [i >= 2 and not (i == 2 and block >= long_res4) for block in range(n_blocks)]
            slow[stage] = _stage3d(slow_in, width * 2**i, stride, [3 if is_long else 1 for is_long in long])
            always = [3 if i != 2 or is_long else 1 for is_long in long]
            fast[stage] = _stage3d(fast_in, fast_width * 2**i, stride, always)
            slow_in, fast_in = self.joined_width[stage], self.fast_width[stage]
        self.slow, self.fast = nn.ModuleDict(slow), nn.ModuleDict(fast)

    def stem(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, 3, H, W) in 0..1 -> Slow (B, C, T / alpha, H / 4, W / 4) and Fast (B, C, T, H / 4, W / 4)."""
        x = self.standardise(frames).transpose(1, 2)  # (B, 3, T, H, W)
        slow: Tensor = self.slow["stem"](x[:, :, self.slow_indices])
        return slow, self.fast["stem"](x)

    def stage(self, name: str, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """Both tensors through one of `STAGES`."""
        return self.slow[name](slow), self.fast[name](fast)

    def join(self, place: str, slow: Tensor, fast: Tensor) -> Tensor:
        """Slow with Fast concatenated, where they are connected after `place`."""
        if place not in self.fast_to_slow:
            return slow
        joined: Tensor = self.fast_to_slow[place](slow, fast)
        return joined


class SlowFast(nn.Module):
    """Frames (B, T, 3, H, W) in 0..1 -> logits (B, K)."""

    def __init__(
        self,
        n_classes: int,
        *,
        depth: int = 50,
        width: int = 64,
        frames: int = 32,
        alpha: int = 8,
        lateral_kernel: int = 5,
        dropout: float = 0.5,
        long_res4: int = LONG_RES4_BLOCKS,
    ) -> None:
        """Build with random weights.

        Args:
            n_classes: K.
            depth: a key of `DEPTHS`.
            width: channels of Slow's stem, a multiple of 8 (64 in the paper).
            frames: T, a multiple of alpha.
            alpha: Slow sees every alpha-th frame.
            lateral_kernel: of the convolutions from Fast to Slow.
            dropout: before the classifier.
            long_res4: so many of res4's blocks have kernels in time.
        """
        super().__init__()
        self.visual = VisualPathways(
            depth=depth, width=width, frames=frames, alpha=alpha, lateral_kernel=lateral_kernel, long_res4=long_res4
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(32 * width + 32 * (width // FAST_RATIO), n_classes)
        initialise(self)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits."""
        visual = self.visual
        slow, fast = visual.stem(frames)
        slow = visual.join("stem", slow, fast)
        for stage in STAGES:
            slow, fast = visual.stage(stage, slow, fast)
            slow = visual.join(stage, slow, fast)
        features = torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=1)  # (B, D)
        logits: Tensor = self.fc(self.dropout(features))  # (B, K)
        return logits


def slow_indices(n_frames: int, alpha: int) -> list[int]:
    """The frames that Slow sees: evenly from the first to the last.

    The reference rounds numpy's linspace down: 0, 10, 20 and 31 of 32 frames at alpha 8.
    """
    n = n_frames // alpha
    return [i * (n_frames - 1) // max(n - 1, 1) for i in range(n)]


def _stage3d(in_channels: int, channels: int, stride: int, temporal: Sequence[int]) -> nn.Sequential:
    """Blocks of equal width, one for each kernel length in `temporal`; the first changes the size."""
    first = Bottleneck3d(in_channels, channels, stride, temporal[0])
    return nn.Sequential(first, *(Bottleneck3d(4 * channels, channels, 1, length) for length in temporal[1:]))


def initialise(model: nn.Module) -> None:
    """Kaiming by fan-out for convolutions, N(0, 0.01) for the classifier, blocks that begin as their shortcuts."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        last_norm = getattr(module, "last_norm", None)
        if last_norm is not None:
            nn.init.zeros_(module.get_parameter(f"{last_norm}.weight"))
