"""Stored values as what a network computes with: PyTorch's tensors on a device, or NumPy's arrays without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Values = Any  # a tensor on the device that was asked for, or a NumPy array where none was


def as_floats(values: np.ndarray, device: torch.device | None) -> Values:
    """The values in float32, on the device, or None: in NumPy."""
    if device is None:
        return values.astype(np.float32)
    from avrecog.runtime.device import to_device  # late: PyTorch takes seconds

    return to_device(values, device).float()


def as_pictures(values: np.ndarray, device: torch.device | None, snippet: int | None = None) -> Values:
    """(..., H, W, 3) uint8 as (..., 3, H, W) float32 in 0..1, on the device, or None: in NumPy.

    Args:
        values: the pictures; with `snippet`, (..., snippet, H, W, 3).
        device: where to.
        snippet: so many pictures become one, (..., 3 * snippet, H, W).
    """
    order = (*range(values.ndim - 3), values.ndim - 1, values.ndim - 3, values.ndim - 2)
    shape = [values.shape[axis] for axis in order]
    if snippet is not None:
        shape[-4:-2] = [3 * snippet]
    if device is None:
        return values.transpose(order).reshape(shape).astype(np.float32) / np.float32(255)
    from avrecog.runtime.device import to_device

    return to_device(values, device).permute(order).reshape(shape).float() / 255


def stacked(values: Sequence[Values]) -> Values:
    """Values of one kind, one after the other along a new first axis."""
    if isinstance(values[0], np.ndarray):
        return np.stack(values)
    import torch

    return torch.stack(list(values))
