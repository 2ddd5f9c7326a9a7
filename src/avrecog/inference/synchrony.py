"""How well sound and picture of a file are in time, and by how much the sound is late."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from avrecog.datasets.audiovisual import AVClips
from avrecog.datasets.build import StoredClips, make_dataset
from avrecog.errors import CheckpointError, MediaError
from avrecog.features.store import MemoryStore
from avrecog.inference.trained_model import TrainedModel, load_model
from avrecog.inputs import SyncPairInput
from avrecog.models.avsync import AVSync
from avrecog.runtime.device import on_device, pick_device

STEP_S = 0.02  # from one offset to the next
APART_S = 0.2  # a sound at least so far from the picture counts as another
MAX_WINDOWS = 64  # of a file, evenly spread
BATCH = 64


@dataclass(frozen=True)
class Synchrony:
    """What was found in one file."""

    offset_s: float  # by so much the sound is late; negative: early
    score: float  # share of the comparisons that the sound as it stands wins against one elsewhere: 0.5 is chance
    offsets_s: np.ndarray  # (O,) all that were tried
    distances: np.ndarray  # (O,) of sound and picture there, less what each window has on average


def load_sync(checkpoint: Path) -> TrainedModel:
    """The network in a checkpoint, which compares sound and picture, on the device.

    Raises:
        CheckpointError: if it is of another architecture.
    """
    model = load_model(checkpoint)
    if not isinstance(model.input, SyncPairInput):
        raise CheckpointError(
            f"{checkpoint}: expected a model that compares sound and picture, got {model.config.describe()}; "
            f"`dvc repro selfsupervised/dvc.yaml` trains one"
        )
    on_device(model.network, pick_device())
    return model


def synchrony(model: TrainedModel, rows: dict[str, MemoryStore], max_offset_s: float = 0.5) -> Synchrony:
    """Compare the picture in windows of a clip with its sound at other times.

    Args:
        model: of `load_sync`.
        rows: of one clip, as the model's stores would hold them.
        max_offset_s: the largest offset that is tried.

    Raises:
        MediaError: if the clip lacks sound or picture, or is hardly longer than a window.
    """
    network = model.network
    assert isinstance(network, AVSync)
    clips = _as_clips(model, rows)
    fps, device = clips.fps, pick_device()
    n_frames = len(rows["video"].values)
    heard_s = len(rows["audio"].values) / clips.front_end.frames_per_s
    window_s = clips.window / fps
    if not n_frames or not heard_s:
        raise MediaError("expected a sound and a picture to compare, got one of them")
    last_s = min(n_frames / fps, heard_s) - window_s  # where the last window may begin
    if last_s < APART_S:
        raise MediaError(
            f"expected a clip of {window_s + APART_S:.2f} s at least, {APART_S} s more than the network's window, got "
            f"{last_s + window_s:.2f} s"
        )
    firsts = np.unique(np.linspace(0, int(last_s * fps), min(MAX_WINDOWS, int(last_s * fps) + 1)).astype(np.int64))
    n_offsets = int(round(max_offset_s / STEP_S))
    offsets_s = np.arange(-n_offsets, n_offsets + 1) * STEP_S
    begins_s = firsts[:, None] / fps + offsets_s  # (W, O) of the sounds
    is_inside = (begins_s > -1e-9) & (begins_s < last_s + 1e-9)
    with torch.inference_mode():
        sight = torch.cat([network.embed_video(clips.pictures(part, device)) for part in _parts(firsts)])  # (W, E)
        times, which = np.unique(np.round(begins_s[is_inside], 6), return_inverse=True)
        sound = torch.cat([network.embed_audio(clips.sounds(part, device)) for part in _parts(times)])
    squared = torch.cdist(sight, sound).square().cpu().numpy()
    distances = np.full(begins_s.shape, np.nan)
    distances[is_inside] = squared[np.nonzero(is_inside)[0], which]
    of_offset = _of_offset(distances)
    here = distances[:, [n_offsets]]
    others = distances[:, np.abs(offsets_s) > APART_S - 1e-9]
    compared = np.isfinite(others) & np.isfinite(here)
    if not compared.any():
        raise MediaError(f"expected an offset of {APART_S} s at least to look through, got {max_offset_s:g}")
    score = float((here < others)[compared].mean())
    best = int(np.nanargmin(of_offset))
    return Synchrony(round(float(offsets_s[best]), 6) + 0.0, score, offsets_s, of_offset)


def _of_offset(distances: np.ndarray) -> np.ndarray:
    """What each offset adds to the distance, where windows differ too and not every window has every offset.

    Least squares of distances[w, o] = a[w] + b[o] over the finite ones.

    Returns: (O,) b, NaN where no window has the offset.
    """
    windows, places = np.nonzero(np.isfinite(distances))
    design = np.zeros((len(windows), sum(distances.shape)))
    design[np.arange(len(windows)), windows] = 1
    design[np.arange(len(windows)), distances.shape[0] + places] = 1
    solution = np.linalg.lstsq(design, distances[windows, places], rcond=None)[0]
    of_offset = solution[distances.shape[0] :]
    of_offset[~np.isfinite(distances).any(axis=0)] = np.nan
    return np.asarray(of_offset - np.nanmean(of_offset))


def _as_clips(model: TrainedModel, rows: dict[str, MemoryStore]) -> AVClips:
    assert isinstance(model.input, SyncPairInput)
    clips = make_dataset(model.input.audiovisual, StoredClips(model.front_end, rows, ["clip"], np.zeros(1, np.int64)))
    assert isinstance(clips, AVClips)
    return clips


def _parts(values: np.ndarray) -> list[np.ndarray]:
    return [values[begin : begin + BATCH] for begin in range(0, len(values), BATCH)]
