"""The first layer of every model: inputs to zero mean and unit spread, by numbers that travel with the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class InputNorm(nn.Module):
    """(x - mean) / std along one axis of (B, C, H, W); one value, or one for each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Standardised (B, C, H, W)."""
        return (x - self.mean) / self.std
