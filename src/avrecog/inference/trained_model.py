"""A trained model made ready to predict: from its checkpoint, folded, on its device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avrecog.config import plain
from avrecog.errors import CheckpointError, ConfigError
from avrecog.features.front_end import FrontEnd
from avrecog.inference.export_cache import digest_of
from avrecog.inputs import ModelInput, plain_input
from avrecog.models.base import ModelConfig
from avrecog.models.checkpoint import check_weights, load_checkpoint, load_weights
from avrecog.models.example import example_batch
from avrecog.models.registry import build_model, read_section
from avrecog.models.shapes import shapes_alone


@dataclass(frozen=True)
class TrainedModel:
    """A model with its weights, and all that its checkpoint says of it."""

    name: str
    network: nn.Module  # evaluation mode, on the CPU
    config: ModelConfig
    front_end: FrontEnd
    classes: list[str]
    typical_rows: int  # store rows of a training clip, the median
    epoch: int
    digest: str | None = None  # of the checkpoint

    @property
    def input(self) -> ModelInput:
        """What the network eats."""
        return self.config.input()

    @property
    def description(self) -> dict[str, Any]:
        """What an export says of it, as plain values."""
        return {
            "model": self.name,
            "input": plain_input(self.input),
            "front_end": self.plain_front_end,
            "classes": self.classes,
        }

    @property
    def plain_front_end(self) -> dict[str, Any]:
        """The front end as plain values."""
        return {"audio": plain(self.front_end.audio), "video": plain(self.front_end.video)}

    def example(self, n_views: int, device: torch.device) -> tuple[Tensor, ...]:
        """Random inputs of the network's shape, seeded."""
        return example_batch(self.input.tensors(self.front_end), n_views, device)


def load_model(path: Path, expected_name: str | None = None) -> TrainedModel:
    """The model in a checkpoint, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, not ours, of a model that isn't called `expected_name`, or
            contradicts itself.
    """
    checkpoint = load_checkpoint(path)
    name = str(checkpoint["model"])
    if expected_name not in (None, name):
        raise CheckpointError(f"{path}: is of model {name}, not of {expected_name}; run `dvc repro train`")
    try:
        config: ModelConfig = read_section(checkpoint["config"], "config")
        front_end = FrontEnd.of(checkpoint["front_end"])
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration can't be read: {error}") from None
    classes = [str(label) for label in checkpoint["classes"]]
    n_mels = None if front_end.audio is None else front_end.audio.logmel.n_mels
    with shapes_alone():  # first: a false configuration may ask for any amount of memory
        check_weights(_built(path, config, len(classes), n_mels), checkpoint["weights"], str(path))
    network = _built(path, config, len(classes), n_mels)
    load_weights(network, checkpoint["weights"], str(path))
    rows, epoch = int(checkpoint["typical_rows"]), int(checkpoint["epoch"])
    return TrainedModel(name, network.eval(), config, front_end, classes, rows, epoch, digest_of(path))


def _built(path: Path, config: ModelConfig, n_classes: int, n_mels: int | None) -> nn.Module:
    """The network that a checkpoint's configuration describes.

    Raises:
        CheckpointError: if it describes none.
    """
    try:
        return build_model(config, n_classes, n_mels=n_mels)
    except (ConfigError, RuntimeError, ValueError, TypeError, OverflowError, AssertionError) as error:
        raise CheckpointError(f"{path}: its configuration makes no model: {error}") from None
