"""Which dataset feeds which architecture: the one place where data and models meet."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avrecog.config import plain, validate
from avrecog.datasets.audio import AudioClips
from avrecog.datasets.audiovisual import AVClips, SyncConfig
from avrecog.datasets.augment import AugmentConfig
from avrecog.datasets.clips import ClipDataset
from avrecog.datasets.frames import FrameClips
from avrecog.datasets.mmaction2_sampling import FrameSampling
from avrecog.datasets.pairs import CLASSES as PAIRED_SOUNDS
from avrecog.datasets.pairs import SyncPairs
from avrecog.datasets.rgb import RgbClips
from avrecog.datasets.sampling import n_covering_views
from avrecog.errors import ConfigError, ManifestError, StoreError
from avrecog.front_end import AudioConfig
from avrecog.manifests.clip import Clip, clips_digest, read_labels, read_manifest, read_splits
from avrecog.media.settings import VideoConfig
from avrecog.models.settings import (
    SMALLEST,
    AudioModelConfig,
    AVSlowFastConfig,
    AVSyncConfig,
    ModelConfig,
    SlowFastConfig,
    TsnConfig,
)
from avrecog.processes import processes
from avrecog.store import ClipRows, PairedStores, Store

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

log = logging.getLogger(__name__)

Stored = Store | PairedStores

VERIFIED_BYTES = 20_000_000_000  # of a split


@dataclass(frozen=True)
class FrontEnd:
    """How media become numbers."""

    audio: AudioConfig | None
    video: VideoConfig | None

    @classmethod
    def of(cls, plain_values: Mapping[str, Any]) -> "FrontEnd":
        """The front end that a checkpoint or an export says it was trained with.

        Raises:
            ConfigError: if it says none that there is.
            KeyError: if it lacks one of both.
        """
        return cls(
            validate(AudioConfig | None, plain_values["audio"], "front_end.audio"),
            validate(VideoConfig | None, plain_values["video"], "front_end.video"),
        )


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
    model: ModelConfig, front_end: FrontEnd, store: Stored, tables: LabelledClips, split: str, augment: AugmentConfig
) -> OpenSplit:
    """The clips of a split that the model can use, their stored rows checked.

    Raises:
        ManifestError: if no clip is left.
        StoreError: if rows have changed since they were written.
    """
    chosen = [clip for clip in tables.clips if tables.splits[clip.clip_id] == split]
    usable = [clip for clip in chosen if _is_usable(model, store, clip.clip_id)]
    if not usable:
        raise ManifestError(
            f"{store.folder}: split {split} has {len(chosen)} clips, and none of them has what this model needs"
        )
    clip_ids = [clip.clip_id for clip in usable]
    if processes().is_first:
        store.verify(_part_to_verify(store, clip_ids))
    index = {label: position for position, label in enumerate(tables.classes)}
    labels = np.array([index[clip.label] for clip in usable], dtype=np.int64)
    sampling = _frame_sampling(model, usable)
    training = split == "train"
    dataset = make_dataset(model, front_end, rows_of(store), clip_ids, labels, augment, sampling, training)
    taken = set(clip_ids)
    left_out = [clip.clip_id for clip in chosen if clip.clip_id not in taken]
    return OpenSplit(dataset, left_out, store.fingerprint(clip_ids))


def _is_usable(model: ModelConfig, store: Stored, clip_id: str) -> bool:
    if isinstance(model, AVSyncConfig):  # there is nothing to compare where one is missing
        assert isinstance(store, PairedStores)
        return clip_id in store.video and clip_id in store.audio
    return clip_id in store


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


def _part_to_verify(store: Stored, clip_ids: Sequence[str]) -> Sequence[str]:
    """All clips, or of a large store as many, evenly spread, as are read in a minute or two."""
    n_bytes = store.n_bytes(clip_ids)
    if n_bytes <= VERIFIED_BYTES:
        return clip_ids
    every = -(-n_bytes // VERIFIED_BYTES)
    log.info("%s: %.0f GB; the checksums of every %dth clip are compared", store.folder, n_bytes / 1e9, every)
    return clip_ids[::every]


def open_store(model: ModelConfig, front_end: FrontEnd, features: Path, tables: LabelledClips) -> Stored:
    """The store that the model reads, or both.

    Raises:
        ConfigError: if the front end or the stored frames don't suit the model.
        StoreError: if a store is missing, damaged, or made with other settings or from another manifest.
    """
    check_front_end(model, front_end)
    stores = []
    for section in needs(model):
        if section == "audio":
            assert front_end.audio is not None
            store = Store(features / "audio", plain(front_end.audio.logmel))
        else:
            store = Store(features / "video", plain(front_end.video))
        if store.settings.get("clips") != clips_digest(tables.clips):
            raise StoreError(
                f"{store.folder}: was made from another manifest than is there now; run `dvc repro extract`"
            )
        stores.append(store)
    if len(stores) == 1:
        return stores[0]
    assert front_end.audio is not None
    assert front_end.video is not None
    video, audio = stores
    return PairedStores(video, audio, front_end.audio.logmel.frames_per_s / front_end.video.fps)


def rows_of(store: Stored) -> dict[str, ClipRows]:
    """Section -> what a dataset reads of it."""
    if isinstance(store, PairedStores):
        return {"video": store.video, "audio": store.audio}
    return {store.folder.name: store}


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


def make_dataset(
    model: ModelConfig,
    front_end: FrontEnd,
    rows: Mapping[str, ClipRows],
    clip_ids: Sequence[str],
    labels: np.ndarray,
    augment: AugmentConfig,
    sampling: FrameSampling | None = None,
    training: bool = False,
) -> ClipDataset[Any]:
    """The dataset that gives the model its batches; without `sampling`, its log-mel crops lie by time.

    Args:
        model: whose batches.
        front_end: how the rows were made.
        rows: of its sections (`needs`); an audiovisual model takes clips that are in one of two.
        clip_ids: the clips.
        labels: (N,) int64.
        augment: in training.
        sampling: where crops of log-mel lie.
        training: whether pairs for synchronisation follow the model's curriculum; else all are hard.

    Raises:
        ConfigError: if the augmentation doesn't suit the model.
    """
    if isinstance(model, AudioModelConfig):
        assert front_end.audio is not None
        logmel = front_end.audio.logmel
        return AudioClips(rows["audio"], clip_ids, labels, model.mel_frames, logmel, augment.audio, sampling)
    size = (model.crop_height, model.crop_width)
    if isinstance(model, TsnConfig):
        return RgbClips(rows["video"], clip_ids, labels, model.n_segments, model.snippet, size, augment.video)
    assert front_end.video is not None
    frames = FrameClips(
        rows["video"], clip_ids, labels, model.frames, model.frame_stride, size, model.n_crops, augment.video
    )
    if not isinstance(model, AVSlowFastConfig):
        return frames
    assert front_end.audio is not None
    if isinstance(model, AVSyncConfig):
        hard = SyncConfig(model.hard_from_epoch, model.hard_share) if training else SyncConfig(0, 1.0)
        sound = AVClips(
            frames, rows["audio"], front_end.video.fps, model.mel_frames, front_end.audio.logmel, augment.audio, hard
        )
        return SyncPairs(sound, own_first=training)
    if model.sync_weight and augment.mixup_alpha:
        raise ConfigError(
            f"train.augment.mixup_alpha: expected 0 with models.*.sync_weight, since mixed clips are not in time with "
            f"themselves, got {augment.mixup_alpha:g}"
        )
    return AVClips(
        frames,
        rows["audio"],
        front_end.video.fps,
        model.mel_frames,
        front_end.audio.logmel,
        augment.audio,
        SyncConfig(model.hard_from_epoch, model.hard_share) if model.sync_weight else None,
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


def standardise_inputs(model: "nn.Module", dataset: ClipDataset[Any]) -> None:
    """Set the standardisation of log-mel to the mean and spread of (up to 2,000) training clips."""
    if not isinstance(dataset, AudioClips | AVClips | SyncPairs):
        return  # frames are standardised by constants
    import torch

    views = dataset.views(1)
    chosen = views[np.linspace(0, len(views) - 1, min(len(views), 2000)).astype(int)]
    values = dataset.log_mel(chosen)
    standardise = model.get_submodule("standardise")
    with torch.no_grad():
        standardise.get_buffer("mean").fill_(float(values.mean()))
        standardise.get_buffer("std").fill_(max(float(values.std()), 1e-3))
