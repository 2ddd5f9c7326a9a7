"""CNN10 on log-mel: blocks of two 3 x 3 convolutions and average pooling, then mean and maximum over time.

Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020. What differs:
`width` scales all channels (64 there); a 5 x 5 stem with stride 2 comes first, which takes a quarter of the time and
gives the blocks a wider view; the classifier stands on the pooled features, without the layer of 512 between; inputs
are standardised by numbers kept with the weights.

B batch, C channels, T mel frames (height), M mel bands (width), D features, K classes.
"""

from torch import Tensor, nn

from avrecog.errors import ConfigError
from avrecog.models.base import with_width
from avrecog.models.input_norm import InputNorm

N_BLOCKS = 4


class Backbone:
    """How `audio` builds it."""

    min_rows = 32  # which leave one place after the stem and the poolings

    def check(self, depth: int | None, width: int | None) -> None:
        """Refuse a depth, and no width.

        Raises:
            ConfigError: if there is a depth, or no width.
        """
        if depth is not None or width is None:
            raise ConfigError(f"depth: expected null, and a width, with backbone cnn10, got {depth} and {width}")

    def build(self, n_classes: int, *, depth: int | None, width: int | None, dropout: float) -> nn.Module:
        """An `AudioCnn`."""
        assert width is not None
        return AudioCnn(n_classes, width=width, dropout=dropout)

    def describe(self, depth: int | None, width: int | None) -> str:
        """`CNN10`."""
        return with_width("CNN10", width, 64)


class AudioCnn(nn.Module):
    """Log-mel crops (B, 1, T, M) -> logits (B, K); T and M at least `Backbone.min_rows` - 1."""

    def __init__(self, n_classes: int, *, width: int = 64, dropout: float = 0.5) -> None:
        """Build with random weights.

        Args:
            n_classes: K.
            width: channels of the stem and the first block, doubled by each block after.
            dropout: before the classifier.
        """
        super().__init__()
        self.standardise = InputNorm([0.0], [1.0])
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        channels = [width, *(width * 2**block for block in range(N_BLOCKS))]
        self.blocks = nn.Sequential(*(_block(channels[i], channels[i + 1]) for i in range(N_BLOCKS)))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels[-1], n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits of log-mel crops."""
        x = self.blocks(self.stem(self.standardise(log_mel)))  # (B, D, T/32, M/32)
        x = x.mean(dim=3)  # (B, D, T/32)
        x = x.mean(dim=2) + x.amax(dim=2)  # (B, D): what lasts, and what happens once
        logits: Tensor = self.fc(self.dropout(x))  # (B, K)
        return logits


def _block(in_channels: int, channels: int) -> nn.Sequential:
    """(B, in_channels, T, M) -> (B, channels, T / 2, M / 2)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AvgPool2d(2),
    )
