"""Any timm network on log-mel: one input channel, its own classifier. B batch, T mel frames, M mel bands, K classes."""

from torch import Tensor, nn

from avrecog.models.input_norm import InputNorm
from avrecog.models.timm_backbone import timm_backbone


class TimmAudio(nn.Module):
    """Log-mel crops (B, 1, T, M) -> logits (B, K)."""

    def __init__(
        self,
        backbone: str,
        n_classes: int,
        *,
        dropout: float = 0.5,
        pretrained: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Build timm's `backbone`.

        Args:
            backbone: timm's name.
            n_classes: K.
            dropout: before the classifier.
            pretrained: begin with timm's weights, the first layer summed over colours.
            size: (T, M); None: timm's usual.
        """
        super().__init__()
        self.standardise = InputNorm([0.0], [1.0])
        self.backbone = timm_backbone(backbone, size, pretrained, in_chans=1, num_classes=n_classes, drop_rate=dropout)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits of log-mel crops."""
        logits: Tensor = self.backbone(self.standardise(log_mel))
        return logits
