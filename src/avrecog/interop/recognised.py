"""What a checkpoint's tensors say of the network that they are of."""

from dataclasses import dataclass

from avrecog.features.front_end import FrontEnd
from avrecog.models.base import ModelConfig


@dataclass(frozen=True)
class Recognised:
    """A network of another program's, with what avrecog needs to use it."""

    origin: str  # whose names the tensors have: mmaction2, torchvision or slowfast
    name: str  # for the model
    config: ModelConfig
    n_classes: int
    front_end: FrontEnd  # which its program has, or one that is near to it
    note: str  # what it hears and sees, for people
    in_mmaction2: bool = False  # whether MMAction2 has such a network
