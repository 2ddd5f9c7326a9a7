"""Random inputs of a network's shapes, for counting, timing, folding and exporting."""

from collections.abc import Sequence

import torch
from torch import Tensor

from avrecog.inputs import InputTensor


def example_batch(tensors: Sequence[InputTensor], n: int, device: torch.device) -> tuple[Tensor, ...]:
    """A batch of `n` views, seeded: uniform in 0..1, ones where an input holds flags."""
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.ones(n, *each.shape) if each.flags else torch.rand((n, *each.shape), generator=generator)
        for each in tensors
    ]
    return tuple(values.to(device) for values in made)
