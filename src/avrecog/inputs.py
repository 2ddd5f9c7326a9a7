"""What each architecture eats."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avrecog.datasets.sampling import n_covering_views
from avrecog.datasets.sync_pairs import CLASSES as PAIRED_SOUNDS
from avrecog.errors import ConfigError
from avrecog.features.front_end import FrontEnd
from avrecog.manifest import LabelledClips
from avrecog.models.settings import (
    SMALLEST,
    AudioModelConfig,
    AVSlowFastConfig,
    AVSyncConfig,
    ModelConfig,
    SlowFastConfig,
    TsnConfig,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def classes_of(model: ModelConfig, tables: LabelledClips) -> list[str]:
    """What the model tells apart."""
    return list(PAIRED_SOUNDS if isinstance(model, AVSyncConfig) else tables.classes)


def check_names_classes(model: ModelConfig, checkpoint: Path) -> None:
    """Refuse a model that says only whether sound and picture fit.

    Raises:
        ConfigError: naming what uses it.
    """
    if isinstance(model, AVSyncConfig):
        raise ConfigError(f"{checkpoint}: architecture avsync compares and names no classes; `avrecog sync` uses it")


def needs(model: ModelConfig) -> tuple[str, ...]:
    """The sections of the front end that the model sees and hears by."""
    sections = {"audio": ("audio",), "tsn": ("video",), "slowfast": ("video",), "avslowfast": ("video", "audio")}
    sections["avsync"] = sections["avslowfast"]
    return sections[model.architecture]


def check_front_end(model: ModelConfig, front_end: FrontEnd) -> None:
    """Refuse a front end that gives the model nothing, or too little.

    Raises:
        ConfigError: if the section is null, or the frames are smaller than what the model sees.
    """
    for name in needs(model):
        if getattr(front_end, name) is None:
            raise ConfigError(f"params.yaml: architecture {model.architecture} needs section `{name}`, which is null")
    if isinstance(model, AudioModelConfig) and model.backbone == "cnn10":
        assert front_end.audio is not None
        if front_end.audio.logmel.n_mels < SMALLEST:
            raise ConfigError(
                f"params.yaml: backbone cnn10 needs {SMALLEST} mel bands, got audio.logmel.n_mels "
                f"{front_end.audio.logmel.n_mels}"
            )
    if isinstance(model, TsnConfig | SlowFastConfig):
        assert front_end.video is not None
        stored = (front_end.video.height, front_end.video.width)
        if model.crop_height > stored[0] or model.crop_width > stored[1]:
            raise ConfigError(
                f"params.yaml: the model sees {model.crop_height} x {model.crop_width}, but frames of {stored[0]} x "
                f"{stored[1]} are stored; raise video.height and video.width"
            )


def _window(model: ModelConfig) -> int:
    """Store rows of a view."""
    if isinstance(model, AudioModelConfig):
        return model.mel_frames
    return model.n_segments * model.snippet if isinstance(model, TsnConfig) else model.frames * model.frame_stride


def views_of_typical_clip(model: ModelConfig, typical_rows: int, n_views: int | None) -> int:
    """How many views a clip of `typical_rows` store rows has at test time."""
    window = _window(model)
    covering = int(n_covering_views(np.array([typical_rows]), window)[0])
    n_crops = model.n_crops if isinstance(model, SlowFastConfig) else 1
    if n_views is None:
        return covering * n_crops
    if isinstance(model, AudioModelConfig) and model.sampling != "time":
        return n_views
    free = typical_rows - window
    return max(1, min(n_views, covering if isinstance(model, TsnConfig) else free + 1)) * n_crops


def example_batch(
    model: ModelConfig, front_end: Mapping[str, Any], n: int, device: "torch.device"
) -> tuple["Tensor", ...]:
    """Random inputs of the model's shape, seeded: for counting and timing."""
    import torch  # late: it takes seconds

    generator = torch.Generator().manual_seed(0)
    shapes: list[tuple[int, ...]] = []
    if isinstance(model, TsnConfig):
        shapes.append((n, model.n_segments, 3 * model.snippet, model.crop_height, model.crop_width))
    if isinstance(model, SlowFastConfig):
        shapes.append((n, model.frames, 3, model.crop_height, model.crop_width))
    if isinstance(model, AudioModelConfig | AVSlowFastConfig):
        shapes.append((n, 1, model.mel_frames, front_end["audio"]["logmel"]["n_mels"]))
    inputs = [torch.rand(shape, generator=generator) for shape in shapes]
    if isinstance(model, AVSyncConfig):
        inputs.append(torch.rand(shapes[-1], generator=generator))
    elif isinstance(model, AVSlowFastConfig):
        inputs.append(torch.ones(n, 2))
    return tuple(values.to(device) for values in inputs)
