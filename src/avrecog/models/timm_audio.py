"""Any timm network on log-mel: one input channel, its own classifier. B batch, T mel frames, M mel bands, K classes."""

from torch import Tensor, nn

from avrecog.models.standardise import Standardise


class TimmAudio(nn.Module):
    """Log-mel crops (B, 1, T, M) -> logits (B, K)."""

    def __init__(self, backbone: str, n_classes: int, dropout: float = 0.5, pretrained: bool = False) -> None:
        """Build timm's `backbone`; with `pretrained`, timm's weights with the first layer summed over colours."""
        import timm  # late: it takes 2 s

        super().__init__()
        self.standardise = Standardise([0.0], [1.0])
        self.backbone = timm.create_model(
            backbone, pretrained=pretrained, in_chans=1, num_classes=n_classes, drop_rate=dropout
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits of log-mel crops."""
        logits: Tensor = self.backbone(self.standardise(log_mel))
        return logits
