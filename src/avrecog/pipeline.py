"""Sections `pipeline` and `selfsupervised` of params.yaml: which models the stages run on."""

import re

from pydantic import Field

from avrecog.config import Text, section
from avrecog.errors import ConfigError


@section
class PipelineConfig:
    """Section `pipeline` in params.yaml."""

    models: list[Text] = Field(min_length=1)  # sections below `models` that are trained, tested and fused

    def __post_init__(self) -> None:
        _check_names(self.models)
        if "fusion" in self.models:
            raise ConfigError("models: expected another name than fusion, which is that of all of them together")


@section
class SelfSupervisedConfig:
    """Section `selfsupervised` in params.yaml."""

    models: list[Text] = Field(default_factory=list)  # sections below `models` that learn without labels

    def __post_init__(self) -> None:
        _check_names(self.models)


def _check_names(models: list[str]) -> None:
    """Refuse a list of models that no folders could be named after.

    Raises:
        ConfigError: if a name is odd or stands twice.
    """
    odd = [name for name in models if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)]
    if odd:  # a name becomes a folder
        raise ConfigError(f"models: expected names of letters, digits, - and _, got {odd[0]!r}")
    if len(set(models)) != len(models):
        raise ConfigError(f"models: expected each model once, got {', '.join(models)}")
