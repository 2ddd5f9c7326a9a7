"""Architectures by name. A new one is a file beside this, and a line in `MODELS`."""

from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import Field
from torch import nn

from avrecog.config import validate
from avrecog.errors import ConfigError
from avrecog.models.audio import AudioModelConfig
from avrecog.models.avslowfast import AVSlowFastConfig
from avrecog.models.avsync import AVSyncConfig
from avrecog.models.base import ModelConfig
from avrecog.models.slowfast import SlowFastConfig
from avrecog.models.tsn import TsnConfig

MODELS: dict[str, type[ModelConfig]] = {
    "audio": AudioModelConfig,
    "tsn": TsnConfig,
    "slowfast": SlowFastConfig,
    "avslowfast": AVSlowFastConfig,
    "avsync": AVSyncConfig,
}


def register(config: type[ModelConfig]) -> type[ModelConfig]:
    """Decorator for a section of an architecture that stands elsewhere; it must be run before params.yaml is read.

    Raises:
        ConfigError: if its name is taken.
    """
    name = config.architecture
    if MODELS.setdefault(name, config) is not config:
        raise ConfigError(f"architecture {name}: there is one of this name; choose another")
    return config


def model_section() -> Any:
    """The type of a section below `models`: any of `MODELS`, told apart by its key `architecture`."""
    return Annotated[Union[tuple(MODELS.values())], Field(discriminator="architecture")]  # noqa: UP007  of a tuple


def read_section(values: Any, where: str) -> ModelConfig:
    """A section below `models`, as a checkpoint holds it, whichever version wrote that.

    Raises:
        ConfigError: if it is of no architecture, or a value is wrong.
    """
    if isinstance(values, Mapping) and values.get("architecture") in MODELS:
        former = MODELS[values["architecture"]].former_keys
        values = {key: value for key, value in values.items() if key not in former}
    config: ModelConfig = validate(model_section(), values, where)
    return config


def build_model(config: ModelConfig, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
    """A model with random weights, or timm's own with `pretrained`.

    Args:
        config: its section below `models`.
        n_classes: that it tells apart.
        pretrained: begin with timm's weights.
        n_mels: mel bands that it hears, for networks of timm that are made for one size; None: timm's usual.

    Raises:
        ConfigError: if timm knows no such backbone, it can't take inputs of that size, or its weights can't be had.
        RuntimeError: whatever else timm finds wrong.
    """
    try:
        return config.build(n_classes, pretrained, n_mels)
    except RuntimeError as error:
        if any(text in str(error) for text in ("Unknown model", "No pretrained weights", "Invalid pretrained tag")):
            raise ConfigError(f"backbone: {error}; timm.list_models() gives the names") from None
        raise
    except OSError as error:  # huggingface_hub's errors are OSErrors
        raise ConfigError(f"init_from: timm's weights for {config.describe()} can't be downloaded: {error}") from None
