"""What an architecture is to the rest: a section of params.yaml that says what it eats and builds the network."""

import abc
from typing import Any, ClassVar

from torch import nn

from avrecog.inputs import ModelInput


class ModelConfig(abc.ABC):
    """A section below `models`: a `@section` dataclass in the architecture's file, with these keys and its own.

    Attributes:
        architecture: a `Literal` with its name as default, by which `registry.py` finds it.
        init_from: null, `imagenet` where timm has such weights, or the path of a checkpoint.
        train: what differs from section `train` for this model.
    """

    warm_starts: ClassVar[tuple[str, ...]] = ()  # other architectures whose checkpoints a training may begin from

    former_keys: ClassVar[tuple[str, ...]] = ()  # of older checkpoints; they mean nothing now

    architecture: str
    init_from: str | None
    train: dict[str, Any]

    @abc.abstractmethod
    def input(self) -> ModelInput:
        """What the network eats."""

    @abc.abstractmethod
    def build(self, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
        """The network with random weights, or those that `init_from: imagenet` means.

        Args:
            n_classes: that it tells apart.
            pretrained: begin with timm's weights.
            n_mels: mel bands that it hears, for networks that are made for one size; None: their usual.

        Raises:
            ConfigError: if there is no such network.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """The backbone's name for a table: `ResNet18 (width 32)`, `resnet50`."""

    @property
    def exports(self) -> bool:
        """Whether it is known to become an ONNX model; else a training tries that first."""
        return False


def with_width(name: str, width: int | None, usual: int | None) -> str:
    """A backbone's name, with its width where that isn't the usual one."""
    return name if width == usual else f"{name} (width {width})"
