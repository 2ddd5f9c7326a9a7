"""Which dataset feeds which architecture: the one place where data and models meet."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avrecog.config import plain
from avrecog.datasets.audio import AudioClips
from avrecog.datasets.augment import AugmentConfig
from avrecog.datasets.clips import ClipDataset
from avrecog.datasets.mmaction2_sampling import FrameSampling
from avrecog.datasets.rgb import RgbClips
from avrecog.datasets.sampling import n_covering_views
from avrecog.errors import ConfigError, ManifestError, StoreError
from avrecog.logmel import AudioConfig
from avrecog.manifests.clip import Clip, clips_digest, read_labels, read_manifest, read_splits
from avrecog.media.settings import VideoConfig
from avrecog.models.audio_cnn import SMALLEST
from avrecog.models.build import AudioModelConfig, ModelConfig, TsnConfig
from avrecog.processes import processes
from avrecog.store import ClipRows, Store

log = logging.getLogger(__name__)

VERIFIED_BYTES = 20_000_000_000  # of a split


@dataclass(frozen=True)
class FrontEnd:
    """How media become numbers."""

    audio: AudioConfig | None
    video: VideoConfig | None


@dataclass(frozen=True)
class LabelledClips:
    """The tables that stage prepare wrote."""

    clips: Sequence[Clip]
    splits: Mapping[str, str]
    classes: Sequence[str]

    @classmethod
    def read(cls, folder: Path) -> "LabelledClips":
        """The tables in `folder`.

        Raises:
            ManifestError: if one is missing or wrong, or they don't fit together.
        """
        clips = read_manifest(folder / "manifest.csv")
        splits, classes = read_splits(folder / "splits.csv"), read_labels(folder / "labels.txt")
        known = set(classes)
        for clip in clips:
            if clip.clip_id not in splits or clip.label not in known:
                raise ManifestError(
                    f"{folder}: clip {clip.clip_id} lacks a split or a class; run `dvc repro -f prepare`"
                )
        return cls(clips, splits, classes)


@dataclass(frozen=True)
class OpenSplit:
    """The clips of a split that a model can use."""

    clips: ClipDataset[Any]
    left_out: Sequence[str]  # ids of those it can't: they lack its modality, or it could not be decoded
    fingerprint: str  # a digest of the stored rows


def open_split(
    model: ModelConfig, front_end: FrontEnd, store: Store, tables: LabelledClips, split: str, augment: AugmentConfig
) -> OpenSplit:
    """The clips of a split that the model can use, their stored rows checked.

    Raises:
        ManifestError: if no clip is left.
        StoreError: if rows have changed since they were written.
    """
    chosen = [clip for clip in tables.clips if tables.splits[clip.clip_id] == split]
    usable = [clip for clip in chosen if clip.clip_id in store]
    if not usable:
        raise ManifestError(
            f"{store.folder}: split {split} has {len(chosen)} clips, and none of them has what this model needs"
        )
    clip_ids = [clip.clip_id for clip in usable]
    if processes().is_first:
        store.verify(_part_to_verify(store, clip_ids))
    index = {label: position for position, label in enumerate(tables.classes)}
    labels = np.array([index[clip.label] for clip in usable], dtype=np.int64)
    dataset = make_dataset(model, front_end, store, clip_ids, labels, augment, _frame_sampling(model, usable))
    left_out = [clip.clip_id for clip in chosen if clip.clip_id not in store]
    return OpenSplit(dataset, left_out, store.fingerprint(clip_ids))


def _frame_sampling(model: ModelConfig, clips: Sequence[Clip]) -> FrameSampling | None:
    """How the model's crops lie by video frame numbers; None: by time.

    Raises:
        ManifestError: if a clip has no frames to count.
    """
    if not isinstance(model, AudioModelConfig) or model.sampling == "time":
        return None
    without = [clip.clip_id for clip in clips if clip.n_frames < 1]
    if without:
        raise ManifestError(
            f"sampling {model.sampling} counts video frames, and {len(without)} clips have none, the first is "
            f"{without[0]}; drop them, or set `sampling: time`"
        )
    return FrameSampling(model.sampling, np.array([clip.n_frames for clip in clips], dtype=np.int64))


def _part_to_verify(store: Store, clip_ids: Sequence[str]) -> Sequence[str]:
    """All clips, or of a large store as many, evenly spread, as are read in a minute or two."""
    n_rows = store.n_rows[store.positions(clip_ids)]
    n_bytes = int(n_rows.sum()) * store.values[:1].nbytes
    if n_bytes <= VERIFIED_BYTES:
        return clip_ids
    every = -(-n_bytes // VERIFIED_BYTES)
    log.info("%s: %.0f GB; the checksums of every %dth clip are compared", store.folder, n_bytes / 1e9, every)
    return clip_ids[::every]


def open_store(model: ModelConfig, front_end: FrontEnd, features: Path, tables: LabelledClips) -> Store:
    """The store that the model reads.

    Raises:
        ConfigError: if the front end or the stored frames don't suit the model.
        StoreError: if the store is missing, damaged, or made with other settings or from another manifest.
    """
    check_front_end(model, front_end)
    if isinstance(model, AudioModelConfig):
        assert front_end.audio is not None
        store = Store(features / "audio", plain(front_end.audio.logmel))
    else:
        store = Store(features / "video", plain(front_end.video))
    if store.settings.get("clips") != clips_digest(tables.clips):
        raise StoreError(f"{store.folder}: was made from another manifest than is there now; run `dvc repro extract`")
    return store


def check_front_end(model: ModelConfig, front_end: FrontEnd) -> None:
    """Refuse a front end that gives the model nothing, or too little.

    Raises:
        ConfigError: if the section is null, or the frames are smaller than what the model sees.
    """
    needed = {"audio": front_end.audio, "tsn": front_end.video}[model.architecture]
    name = {"audio": "audio", "tsn": "video"}[model.architecture]
    if needed is None:
        raise ConfigError(f"params.yaml: architecture {model.architecture} needs section `{name}`, which is null")
    if isinstance(model, AudioModelConfig) and model.backbone == "cnn10":
        assert front_end.audio is not None
        if front_end.audio.logmel.n_mels < SMALLEST:
            raise ConfigError(
                f"params.yaml: backbone cnn10 needs {SMALLEST} mel bands, got audio.logmel.n_mels "
                f"{front_end.audio.logmel.n_mels}"
            )
    if isinstance(model, TsnConfig):
        assert front_end.video is not None
        stored = (front_end.video.height, front_end.video.width)
        if model.crop_height > stored[0] or model.crop_width > stored[1]:
            raise ConfigError(
                f"params.yaml: the model sees {model.crop_height} x {model.crop_width}, but frames of {stored[0]} x "
                f"{stored[1]} are stored; raise video.height and video.width"
            )


def make_dataset(
    model: ModelConfig,
    front_end: FrontEnd,
    store: ClipRows,
    clip_ids: Sequence[str],
    labels: np.ndarray,
    augment: AugmentConfig,
    sampling: FrameSampling | None = None,
) -> ClipDataset[Any]:
    """The dataset that gives the model its batches; without `sampling`, its log-mel crops lie by time."""
    if isinstance(model, AudioModelConfig):
        assert front_end.audio is not None
        return AudioClips(store, clip_ids, labels, model.mel_frames, front_end.audio.logmel, augment.audio, sampling)
    size = (model.crop_height, model.crop_width)
    return RgbClips(store, clip_ids, labels, model.n_segments, model.snippet, size, augment.video)


def views_of_typical_clip(model: ModelConfig, typical_rows: int, n_views: int | None) -> int:
    """How many views a clip of `typical_rows` store rows has at test time."""
    window = model.mel_frames if isinstance(model, AudioModelConfig) else model.n_segments * model.snippet
    covering = int(n_covering_views(np.array([typical_rows]), window)[0])
    if n_views is None:
        return covering
    if isinstance(model, AudioModelConfig) and model.sampling != "time":
        return n_views
    free = typical_rows - window
    return max(1, min(n_views, free + 1 if isinstance(model, AudioModelConfig) else covering))


def example_batch(model: ModelConfig, front_end: Mapping[str, Any], n: int, device: torch.device) -> tuple[Tensor, ...]:
    """Random inputs of the model's shape, seeded: for counting and timing."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, AudioModelConfig):
        shape: tuple[int, ...] = (n, 1, model.mel_frames, front_end["audio"]["logmel"]["n_mels"])
    else:
        shape = (n, model.n_segments, 3 * model.snippet, model.crop_height, model.crop_width)
    return (torch.rand(shape, generator=generator).to(device),)


def standardise_inputs(model: nn.Module, config: ModelConfig, dataset: ClipDataset[Any]) -> None:
    """Set a log-mel model's standardisation to the mean and spread of (up to 2,000) training clips."""
    if not isinstance(config, AudioModelConfig):
        return  # frames are standardised by the constants of ImageNet
    views = dataset.views(1)
    chosen = views[np.linspace(0, len(views) - 1, min(len(views), 2000)).astype(int)]
    (values,) = dataset.view_batch(chosen, torch.device("cpu"))
    standardise = model.get_submodule("standardise")
    with torch.no_grad():
        standardise.get_buffer("mean").fill_(float(values.mean()))
        standardise.get_buffer("std").fill_(max(float(values.std()), 1e-3))
