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
from avrecog.datasets.build import StoredClips, make_dataset
from avrecog.errors import ManifestError, StoreError
from avrecog.features.front_end import FrontEnd
from avrecog.features.store import ClipRows, PairedStores, Store
from avrecog.inputs import ModelInput
from avrecog.manifest import LabelledClips, clips_digest
from avrecog.runtime.distributed import processes

log = logging.getLogger(__name__)

VERIFIED_BYTES = 20_000_000_000  # of a split


@dataclass(frozen=True)
class Features:
    """What stage extract stored of the modalities that a model reads."""

    stored: Store | PairedStores
    front_end: FrontEnd
    tables: LabelledClips

    @property
    def rows(self) -> dict[str, ClipRows]:
        """By modality, what a dataset reads."""
        if isinstance(self.stored, PairedStores):
            return {"video": self.stored.video, "audio": self.stored.audio}
        return {self.stored.folder.name: self.stored}


@dataclass(frozen=True)
class OpenSplit:
    """The clips of a split that a model can use."""

    clips: ClipDataset[Any]
    left_out: Sequence[str]  # ids of those it can't: they lack its modality, or it could not be decoded
    fingerprint: str  # a digest of the stored rows


def open_features(model_input: ModelInput, front_end: FrontEnd, folder: Path, tables: LabelledClips) -> Features:
    """The store that a model reads, or both.

    Raises:
        ConfigError: if the front end or the stored frames don't suit the model.
        StoreError: if a store is missing, damaged, or made with other settings or from another manifest.
    """
    model_input.check(front_end)
    stores = []
    for modality in model_input.modalities:
        if modality == "audio":
            assert front_end.audio is not None
            store = Store(folder / "audio", plain(front_end.audio.logmel))
        else:
            store = Store(folder / "video", plain(front_end.video))
        if store.settings.get("clips") != clips_digest(tables.clips):
            raise StoreError(
                f"{store.folder}: was made from another manifest than is there now; run `dvc repro extract`"
            )
        stores.append(store)
    if len(stores) == 1:
        return Features(stores[0], front_end, tables)
    assert front_end.audio is not None
    assert front_end.video is not None
    video, audio = stores
    rows_per_picture = front_end.audio.logmel.frames_per_s / front_end.video.fps
    return Features(PairedStores(video, audio, rows_per_picture), front_end, tables)


def open_split(
    model_input: ModelInput, features: Features, split: str, augment: AugmentConfig | None = None
) -> OpenSplit:
    """The clips of a split that a model can use, their stored rows checked.

    Raises:
        ManifestError: if no clip is left.
        StoreError: if rows have changed since they were written.
    """
    tables, rows = features.tables, features.rows
    chosen = [clip for clip in tables.clips if tables.splits[clip.clip_id] == split]
    usable = [
        clip
        for clip in chosen
        if model_input.usable([modality for modality, stored in rows.items() if clip.clip_id in stored])
    ]
    if not usable:
        raise ManifestError(
            f"{features.stored.folder}: split {split} has {len(chosen)} clips, and none of them has what this model "
            f"needs"
        )
    clip_ids = [clip.clip_id for clip in usable]
    if processes().is_main:
        features.stored.verify(_part_to_verify(features.stored, clip_ids))
    index = {label: position for position, label in enumerate(tables.classes)}
    clips = StoredClips(
        front_end=features.front_end,
        rows=rows,
        clip_ids=clip_ids,
        labels=np.array([index[clip.label] for clip in usable], dtype=np.int64),
        n_frames={clip.clip_id: clip.n_frames for clip in usable},
        augment=augment or AugmentConfig(),
        training=split == "train",
    )
    taken = set(clip_ids)
    left_out = [clip.clip_id for clip in chosen if clip.clip_id not in taken]
    return OpenSplit(make_dataset(model_input, clips), left_out, features.stored.fingerprint(clip_ids))


def _part_to_verify(store: Store | PairedStores, clip_ids: Sequence[str]) -> Sequence[str]:
    """All clips, or of a large store as many, evenly spread, as are read in a minute or two."""
    n_bytes = store.n_bytes(clip_ids)
    if n_bytes <= VERIFIED_BYTES:
        return clip_ids
    every = -(-n_bytes // VERIFIED_BYTES)
    log.info("%s: %.0f GB; the checksums of every %dth clip are compared", store.folder, n_bytes / 1e9, every)
    return clip_ids[::every]
