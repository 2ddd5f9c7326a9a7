"""What a training begins from: random weights, ImageNet's, or those of a checkpoint; and its input norm."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from avrecog.config import plain
from avrecog.datasets.base import HasLogMel
from avrecog.errors import CheckpointError
from avrecog.features.front_end import FrontEnd
from avrecog.models.base import ModelConfig
from avrecog.models.checkpoint import load_checkpoint, transfer_weights
from avrecog.models.registry import build_model

log = logging.getLogger(__name__)


def set_input_norm(model: nn.Module, dataset: HasLogMel) -> None:
    """Set the standardisation of log-mel to the mean and spread of (up to 2,000) training clips."""
    views = dataset.views(1)
    chosen = views[np.linspace(0, len(views) - 1, min(len(views), 2000)).astype(int)]
    values = dataset.log_mel(chosen)
    standardise = model.get_submodule("standardise")
    with torch.no_grad():
        standardise.get_buffer("mean").fill_(float(values.mean()))
        standardise.get_buffer("std").fill_(max(float(values.std()), 1e-3))


def _check_origin(checkpoint: Mapping[str, Any], config: ModelConfig, front_end: FrontEnd, path: Path) -> None:
    """Refuse a checkpoint of another network; warn where it learned from log-mel or frames of other settings.

    Raises:
        CheckpointError: naming what differs.
    """
    own, given = plain(config), checkpoint["config"]
    keys = ["architecture", "backbone", "depth", "width", "snippet", "motion"]
    if given.get("architecture") in config.warm_starts:
        keys.remove("architecture")
    for key in keys:
        if key in own and own[key] != given.get(key):
            raise CheckpointError(f"{path}: is of {key} {given.get(key)}, expected {own[key]}, to begin from it")
    for name in config.input().modalities:
        if checkpoint["front_end"].get(name) not in (None, plain(getattr(front_end, name))):
            log.warning("%s: was trained on another section `%s` than params.yaml has", path, name)


def initial_model(config: ModelConfig, front_end: FrontEnd, n_classes: int) -> tuple[nn.Module, list[str]]:
    """The model before training, and which of its tensors did not come from `init_from`."""
    n_mels = None if front_end.audio is None else front_end.audio.logmel.n_mels
    model = build_model(config, n_classes, config.init_from == "imagenet", n_mels)
    if config.init_from is None:
        return model, []
    if config.init_from == "imagenet":
        log.info(
            "begun from timm's ImageNet weights of %s; the classifier is new, for %d classes",
            config.describe(),
            n_classes,
        )
        return model, ["classifier"]
    path = Path(config.init_from)
    checkpoint = load_checkpoint(path)
    _check_origin(checkpoint, config, front_end, path)
    fresh = transfer_weights(model, checkpoint["weights"], str(path))
    log.info("begun from %s; new: %s", path, ", ".join(fresh) or "nothing, all weights were taken")
    return model, fresh
