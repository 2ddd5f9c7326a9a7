"""A checkpoint of ours that nobody trained."""

import torch

from avrecog.config import plain, validate
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import FRONT_ENDS, AudioConfig
from avrecog.models.checkpoint import save_checkpoint
from avrecog.models.registry import build_model, model_section


def small_checkpoint(folder, n_classes=3, weights=None, **config):
    """A checkpoint of ours with random weights, its standardisation left at 0 and 1."""
    torch.manual_seed(0)
    model_config = validate(model_section(), {"architecture": "audio", **config}, "models.m")
    network = build_model(model_config, n_classes)
    front_end = FrontEnd(AudioConfig(FRONT_ENDS["mmaction2"]), None)
    content = {
        "model": "audio",
        "config": plain(model_config),
        "classes": [f"class {number}" for number in range(n_classes)],
        "front_end": plain({"audio": front_end.audio, "video": None}),
        "typical_rows": 100,
        "weights": {**network.state_dict(), **(weights or {})},
        "epoch": 7,
        "metrics": {},
    }
    save_checkpoint(folder / "ours.ckpt", content)
    return folder / "ours.ckpt"
