"""ResNet with one input channel on log-mel: the audio row of MMAction2's model zoo.

He et al., "Deep Residual Learning", 2016, as torchvision and MMAction2 build it (stride on the 3 x 3 convolution). With
depth 18, width 64 and 400 classes: 11,375,440 parameters. What differs: `width` scales all channels, and inputs are
standardised by numbers kept with the weights (MMAction2: none, mean 0 and std 1).

B batch, C channels, T mel frames (height), M mel bands (width), D features, K classes.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from avrecog.errors import ConfigError
from avrecog.models.base import with_width
from avrecog.models.input_norm import InputNorm


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, M) -> (B, channels, T / stride, M / stride)."""
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut."""

    expansion = 4
    last_norm = "bn3"

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, M) -> (B, 4 * channels, T / stride, M / stride)."""
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + self.downsample(x))


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


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
        """An `AudioResNet`."""
        assert depth is not None
        assert width is not None
        return AudioResNet(depth, n_classes, width=width, dropout=dropout)

    def describe(self, depth: int | None, width: int | None) -> str:
        """`ResNet18 (width 32)`."""
        return with_width(f"ResNet{depth}", width, 64)


def check_depth(depth: int | None, width: int | None, depths: Collection[int]) -> None:
    """Refuse a depth that isn't one of `depths`, and null for the width.

    Raises:
        ConfigError: naming the depths.
    """
    if depth not in depths or width is None:
        known = ", ".join(map(str, depths))
        raise ConfigError(f"depth: expected one of {known}, and a width, got {depth} and {width}")


class AudioResNet(nn.Module):
    """Log-mel crops (B, 1, T, M) -> logits (B, K)."""

    def __init__(self, depth: int, n_classes: int, *, width: int = 64, dropout: float = 0.5) -> None:
        """Build with random weights.

        Args:
            depth: a key of `DEPTHS`.
            n_classes: K.
            width: channels of the stem and the first stage (64 in the paper).
            dropout: before the classifier.
        """
        super().__init__()
        block, n_blocks = DEPTHS[depth]
        self.standardise = InputNorm([0.0], [1.0])
        self.conv1 = nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        first, second, third, fourth = n_blocks
        self.layer1 = _stage(block, width, width, first, stride=1)
        self.layer2 = _stage(block, width * block.expansion, 2 * width, second, stride=2)
        self.layer3 = _stage(block, 2 * width * block.expansion, 4 * width, third, stride=2)
        self.layer4 = _stage(block, 4 * width * block.expansion, 8 * width, fourth, stride=2)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * width * block.expansion, n_classes)
        self.apply(_initialise)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits of log-mel crops."""
        x = self.standardise(log_mel)  # (B, 1, T, M)
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))  # (B, width, T/4, M/4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, D, T/32, M/32)
        x = x.mean(dim=(2, 3))  # (B, D)
        logits: Tensor = self.fc(self.dropout(x))  # (B, K)
        return logits


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, n_blocks: int, stride: int
) -> nn.Sequential:
    """Blocks of equal width, the first of which changes the size."""
    first = block(in_channels, channels, stride)
    return nn.Sequential(first, *(block(channels * block.expansion, channels, 1) for _ in range(n_blocks - 1)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def _initialise(module: nn.Module) -> None:
    """Kaiming for convolutions, N(0, 0.01) for the classifier, as the reference."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
