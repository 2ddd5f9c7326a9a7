"""What every dataset gives: whole batches for training and for testing, and the labels in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from avrecog.datasets.numbers import Values

if TYPE_CHECKING:
    import torch
    from torch import Tensor

D = TypeVar("D")


class ClipDataset(Protocol[D]):
    """Clips of one split. A batch is a tuple of tensors, the arguments of the model."""

    clip_ids: list[str]
    labels: np.ndarray  # (N,) int64

    def __len__(self) -> int:
        """How many clips."""
        ...

    def draw(self, seed: int, epoch: int) -> D:
        """Random values for every clip of an epoch."""
        ...

    def training_batch(self, indices: np.ndarray, draw: D, device: torch.device) -> tuple[Tensor, ...]:
        """The clips `indices` (B,), cropped and augmented as `draw` says."""
        ...

    def views(self, n_views: int | None) -> np.ndarray:
        """All views of all clips: (V, 2 or more) int64, clip index and the view's place, in the order of the clips.

        With None, as many as it takes to cover each clip.
        """
        ...

    def view_batch(self, views: np.ndarray, device: torch.device | None) -> tuple[Values, ...]:
        """The views, rows of `views`, without augmentation."""
        ...


@runtime_checkable
class HasLogMel(Protocol):
    """A dataset whose clips have sound."""

    def views(self, n_views: int | None) -> np.ndarray:
        """As of every dataset."""
        ...

    def log_mel(self, views: np.ndarray) -> Tensor:
        """The log-mel of the views that have one, as it is stored, on the CPU."""
        ...


def epoch_generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """A generator of its own for one purpose (0 order, 1 augmentation, 2 mixup) of one epoch."""
    return np.random.default_rng([seed, epoch, purpose])
