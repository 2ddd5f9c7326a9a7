"""ResNetAudio on log-mel: a ResNet whose first stages see time and frequency apart.

Xiao et al., "Audiovisual SlowFast Networks for Video Recognition", 2020 (its audio pathway), as MMAction2 builds it
under this name. It differs from the ResNet of `audio_resnet.py`: the stem keeps the resolution, the first two stages
put a 3 x 1 and a 1 x 3 convolution side by side, and the last two have neither norm nor ReLU after the 3 x 3 one. What
differs from MMAction2: inputs are standardised by numbers kept with the weights (there: none, mean 0 and std 1).

With depth 50, width 32 and 400 classes: 6,315,728 parameters; a crop of 128 x 80 takes 3.32 G multiply-accumulates:

    stem     32 x 128 x 80
    layer1  128 x 128 x 80   factorised
    layer2  256 x  64 x 40   factorised
    layer3  512 x  32 x 20
    layer4 1024 x  16 x 10

B batch, C channels, T mel frames (height), M mel bands (width), D features, K classes.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from avrecog.models.audio_resnet import check_depth
from avrecog.models.base import with_width
from avrecog.models.input_norm import InputNorm

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4


class Factorised(nn.Module):
    """A convolution along time and one along frequency, side by side; each with its norm."""

    def __init__(self, in_channels: int, channels: int, length: int, stride: int) -> None:
        super().__init__()
        self.time = _conv_norm(in_channels, channels, (length, 1), stride)
        self.frequency = _conv_norm(in_channels, channels, (1, length), stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T, M) -> twice (B, channels, T / stride, M / stride)."""
        return torch.relu(self.time(x)), torch.relu(self.frequency(x))


class Stem(Factorised):
    """(B, 1, T, M) -> (B, channels, T, M): the two sides are summed."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, length=9, stride=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """One map of both sides."""
        time, frequency = super().forward(x)
        return torch.relu(self.bn(time + frequency))


class Block(nn.Module):
    """1 x 1, factorised or 3 x 3, and 1 x 1 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, factorised: bool) -> None:
        super().__init__()
        self.conv1 = _conv_norm(in_channels, channels, (1, 1))
        self.conv2: nn.Module
        if factorised:
            self.conv2 = Factorised(channels, channels, length=3, stride=stride)
        else:
            self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.conv3 = _conv_norm(2 * channels if factorised else channels, channels * EXPANSION, (1, 1))
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels * EXPANSION:
            self.downsample = _conv_norm(in_channels, channels * EXPANSION, (1, 1), stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, M) -> (B, 4 * channels, T / stride, M / stride)."""
        out = self.conv2(torch.relu(self.conv1(x)))
        if isinstance(out, tuple):
            out = torch.cat(out, dim=1)
        return torch.relu(self.conv3(out) + self.downsample(x))


class Backbone:
    """How `audio` builds it."""

    min_rows = 1

    def check(self, depth: int | None, width: int | None) -> None:
        """Refuse what is no key of `DEPTHS`, and no width.

        Raises:
            ConfigError: naming the depths.
        """
        check_depth(depth, width, DEPTHS)

    def build(self, n_classes: int, *, depth: int | None, width: int | None, dropout: float) -> nn.Module:
        """A `ResNetAudio`."""
        assert depth is not None
        assert width is not None
        return ResNetAudio(depth, n_classes, width=width, dropout=dropout)

    def describe(self, depth: int | None, width: int | None) -> str:
        """`ResNetAudio50`."""
        return with_width(f"ResNetAudio{depth}", width, 32)


class ResNetAudio(nn.Module):
    """Log-mel crops (B, 1, T, M) -> logits (B, K)."""

    def __init__(self, depth: int, n_classes: int, *, width: int = 32, dropout: float = 0.5) -> None:
        """Build with random weights; each block's last norm begins at zero, so that it begins as its shortcut.

        Args:
            depth: a key of `DEPTHS`.
            n_classes: K.
            width: channels of the stem (32 in MMAction2).
            dropout: before the classifier.
        """
        super().__init__()
        first, second, third, fourth = DEPTHS[depth]
        self.standardise = InputNorm([0.0], [1.0])
        self.stem = Stem(width)
        self.layer1 = _stage(width, width, first, stride=1, factorised=True)
        self.layer2 = _stage(width * EXPANSION, 2 * width, second, stride=2, factorised=True)
        self.layer3 = _stage(2 * width * EXPANSION, 4 * width, third, stride=2, factorised=False)
        self.layer4 = _stage(4 * width * EXPANSION, 8 * width, fourth, stride=2, factorised=False)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * width * EXPANSION, n_classes)
        self.apply(_initialise)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits of log-mel crops."""
        x = self.stem(self.standardise(log_mel))  # (B, width, T, M)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, D, T/8, M/8)
        x = x.mean(dim=(2, 3))  # (B, D)
        logits: Tensor = self.fc(self.dropout(x))  # (B, K)
        return logits


def _stage(in_channels: int, channels: int, n_blocks: int, stride: int, factorised: bool) -> nn.Sequential:
    """Blocks of equal width, the first of which changes the size."""
    first = Block(in_channels, channels, stride, factorised)
    return nn.Sequential(first, *(Block(channels * EXPANSION, channels, 1, factorised) for _ in range(n_blocks - 1)))


def _conv_norm(in_channels: int, channels: int, kernel: tuple[int, int], stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, but for the stride, and its batch norm."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(channels)))


def _initialise(module: nn.Module) -> None:
    """Kaiming for convolutions, zero for each block's last norm, N(0, 0.01) for the classifier, as the reference."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, Block):
        nn.init.zeros_(module.conv3.get_parameter("bn.weight"))
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
