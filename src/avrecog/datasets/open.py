"""The clips of a split that a model can use, from stage extract's stores."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.config import plain
from avrecog.datasets.augment import AugmentConfig
from avrecog.datasets.base import ClipDataset
from avrecog.datasets.build import frame_sampling, make_dataset
from avrecog.errors import ManifestError, StoreError
from avrecog.features.front_end import FrontEnd
from avrecog.features.store import ClipRows, PairedStores, Store
from avrecog.inputs import check_front_end, needs
from avrecog.manifest import LabelledClips, clips_digest
from avrecog.models.settings import AVSyncConfig, ModelConfig
from avrecog.runtime.distributed import processes

log = logging.getLogger(__name__)
Stored = Store | PairedStores
VERIFIED_BYTES = 20_000_000_000  # of a split


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
    sampling = frame_sampling(model, usable)
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
