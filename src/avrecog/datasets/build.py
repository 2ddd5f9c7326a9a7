"""Which dataset feeds which architecture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avrecog.datasets.audiovisual import AVClips, SyncConfig
from avrecog.datasets.augment import AugmentConfig
from avrecog.datasets.base import ClipDataset
from avrecog.datasets.frame_spans import FrameClips
from avrecog.datasets.log_mel import AudioClips
from avrecog.datasets.mmaction2_sampling import FrameSampling
from avrecog.datasets.segments import RgbClips
from avrecog.datasets.sync_pairs import SyncPairs
from avrecog.errors import ConfigError, ManifestError
from avrecog.features.front_end import FrontEnd
from avrecog.features.store import ClipRows
from avrecog.manifest import Clip
from avrecog.models.settings import AudioModelConfig, AVSlowFastConfig, AVSyncConfig, ModelConfig, TsnConfig


def frame_sampling(model: ModelConfig, clips: Sequence[Clip]) -> FrameSampling | None:
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
