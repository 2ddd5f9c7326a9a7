"""The batches of a training: how an epoch is cut into them, and how each is made."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avrecog.datasets.augment import MixupDraw
from avrecog.datasets.base import ClipDataset
from avrecog.errors import ConfigError
from avrecog.runtime.device import to_device

UNREADABLE = (OSError, RuntimeError, ValueError, IndexError)  # what reading a clip may raise


@dataclass(frozen=True)
class Batch:
    """Clips to learn from, on the device; with mixup, what was mixed into them and how much of the first is left."""

    inputs: tuple[Tensor, ...]
    labels: Tensor
    other_labels: Tensor | None = None
    weight: Tensor | None = None


def cut(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The clips `order` in batches of `batch_size` at most that differ by one clip at most.

    None is left with a single clip, from which a batch norm may learn nothing, if `batch_size` is above 1: with 2 and
    an odd number of clips one batch has 3.
    """
    n_batches = math.ceil(len(order) / batch_size)
    if batch_size > 1 and len(order) // n_batches == 1:
        n_batches = max(1, n_batches - 1)
    return np.array_split(order, n_batches)


def check_single_clip(model: nn.Module, inputs: tuple[Tensor, ...], n_clips: int) -> None:
    """Refuse to train a model on batches of one clip where its batch norms would see a single value of a channel.

    Args:
        model: not changed.
        inputs: one clip of a training.
        n_clips: to train on.

    Raises:
        ConfigError: naming the first such batch norm.
    """
    cure = "there is one clip to train on: add some" if n_clips == 1 else "raise train.batch_size to 2 at least"
    trial = copy.deepcopy(model).train()

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, values: tuple[Tensor, ...]) -> None:
            shape = values[0].shape
            if math.prod(shape) > shape[1]:
                return
            raise ConfigError(
                f"params.yaml: in a batch of one clip batch norm {name} would see a single value of each channel (its "
                f"input is {' x '.join(map(str, shape))}), which has no variance; {cure}, or raise the model's input "
                f"(mel_frames, crop_height, crop_width)"
            )

        return hook

    for name, module in trial.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(look(name))
    with torch.no_grad():
        trial(*inputs)


@contextlib.contextmanager
def made_ahead(make: Callable[[int], Batch], n_steps: int, device: torch.device) -> Iterator[Callable[[int], Batch]]:
    """`make`, for steps in order, the next one in a thread while the caller works on the last."""

    def begin() -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)

    with ThreadPoolExecutor(1, initializer=begin) as thread:
        ahead: dict[int, Future[Batch]] = {}

        def take(step: int) -> Batch:
            batch = (ahead.pop(step, None) or thread.submit(make, step)).result()
            if step + 1 < n_steps:
                ahead[step + 1] = thread.submit(make, step + 1)
            return batch

        yield take


def make_batch(
    train: ClipDataset[Any], indices: np.ndarray, draw: Any, mixup: MixupDraw | None, device: torch.device
) -> Batch:
    """A training batch of the clips `indices`, mixed with others where `mixup` is drawn."""
    inputs = _inputs(train, indices, draw, device)
    labels = to_device(train.labels[indices], device)
    if mixup is None:
        return Batch(inputs, labels)
    partner = mixup.partner[indices]
    weight = to_device(mixup.weight[indices], device)
    others = _inputs(train, partner, draw, device)
    mixed = tuple(_mixed(mine, other, weight) for mine, other in zip(inputs, others, strict=True))
    return Batch(mixed, labels, to_device(train.labels[partner], device), weight)


def _inputs(train: ClipDataset[Any], indices: np.ndarray, draw: Any, device: torch.device) -> tuple[Tensor, ...]:
    """What the model sees of the clips.

    Raises:
        RuntimeError, ValueError, IndexError, OSError: as they came, with a note that names the clip.
    """
    try:
        return train.training_batch(indices, draw, device)
    except UNREADABLE as error:
        if not isinstance(error, torch.OutOfMemoryError):
            error.add_note(f"while making a training batch of clip {_blamed(train, indices, draw, device)}")
        raise


def _blamed(train: ClipDataset[Any], indices: np.ndarray, draw: Any, device: torch.device) -> str:
    """The id of the first clip that fails alone too, or all ids."""
    for index in indices:
        try:
            train.training_batch(np.array([index]), draw, device)
        except UNREADABLE:
            return train.clip_ids[index]
    return ", ".join(train.clip_ids[index] for index in indices)


def _mixed(mine: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    weight = weight.reshape(-1, *[1] * (mine.ndim - 1))
    return weight * mine + (1 - weight) * other
