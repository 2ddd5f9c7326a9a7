"""Which dataset feeds which input: the one place where the two meet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avrecog.datasets.audiovisual import AVClips
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
from avrecog.inputs import (
    AudioVisualInput,
    LogMelInput,
    MisalignedSounds,
    ModelInput,
    SegmentInput,
    SpanInput,
    SyncPairInput,
)


@dataclass(frozen=True)
class StoredClips:
    """Clips of one split, and what is stored of them."""

    front_end: FrontEnd  # how the rows were made
    rows: Mapping[str, ClipRows]  # by the modalities of the input; of two, a clip may be in one
    clip_ids: Sequence[str]
    labels: np.ndarray  # (N,) int64
    n_frames: Mapping[str, int] | None = None  # of each clip's video, which crops may count; None: crops lie by time
    augment: AugmentConfig = AugmentConfig()
    training: bool = False  # whether pairs for synchronisation follow the input's curriculum; else all are hard


def make_dataset(model_input: ModelInput, clips: StoredClips) -> ClipDataset[Any]:
    """The dataset that gives a network its batches.

    Raises:
        ConfigError: if the augmentation doesn't suit the input.
        ManifestError: if crops count video frames, and a clip has none.
    """
    return DATASETS[type(model_input)](model_input, clips)


def _log_mel(model_input: LogMelInput, clips: StoredClips) -> AudioClips:
    assert clips.front_end.audio is not None
    return AudioClips(
        clips.rows["audio"],
        clips.clip_ids,
        clips.labels,
        mel_frames=model_input.mel_frames,
        front_end=clips.front_end.audio.logmel,
        augment=clips.augment.audio,
        sampling=_frame_sampling(model_input, clips),
    )


def _frame_sampling(model_input: LogMelInput, clips: StoredClips) -> FrameSampling | None:
    """How crops lie by video frame numbers; None: by time.

    Raises:
        ManifestError: if a clip has no frames to count.
    """
    if model_input.sampling == "time" or clips.n_frames is None:
        return None
    n_frames = [clips.n_frames.get(clip_id, 0) for clip_id in clips.clip_ids]
    without = [clip_id for clip_id, n in zip(clips.clip_ids, n_frames, strict=True) if n < 1]
    if without:
        raise ManifestError(
            f"sampling {model_input.sampling} counts video frames, and {len(without)} clips have none, the first is "
            f"{without[0]}; drop them, or set `sampling: time`"
        )
    return FrameSampling(model_input.sampling, np.array(n_frames, dtype=np.int64))


def _segments(model_input: SegmentInput, clips: StoredClips) -> RgbClips:
    return RgbClips(
        clips.rows["video"],
        clips.clip_ids,
        clips.labels,
        n_segments=model_input.n_segments,
        snippet=model_input.snippet,
        size=(model_input.height, model_input.width),
        augment=clips.augment.video,
    )


def _span(model_input: SpanInput, clips: StoredClips) -> FrameClips:
    return FrameClips(
        clips.rows["video"],
        clips.clip_ids,
        clips.labels,
        frames=model_input.frames,
        frame_stride=model_input.frame_stride,
        size=(model_input.height, model_input.width),
        n_crops=model_input.n_crops,
        augment=clips.augment.video,
    )


def _audiovisual(model_input: AudioVisualInput, clips: StoredClips) -> AVClips:
    if model_input.misaligned and clips.augment.mixup_alpha:
        raise ConfigError(
            f"train.augment.mixup_alpha: expected 0 with models.*.sync_weight, since mixed clips are not in time with "
            f"themselves, got {clips.augment.mixup_alpha:g}"
        )
    return _with_sound(model_input.span, model_input.mel_frames, clips, model_input.misaligned)


def _sync_pairs(model_input: SyncPairInput, clips: StoredClips) -> SyncPairs:
    misaligned = model_input.misaligned if clips.training else MisalignedSounds(hard_from_epoch=0, hard_share=1.0)
    both = _with_sound(model_input.span, model_input.mel_frames, clips, misaligned)
    return SyncPairs(both, own_first=clips.training)


def _with_sound(span: SpanInput, mel_frames: int, clips: StoredClips, misaligned: MisalignedSounds | None) -> AVClips:
    assert clips.front_end.audio is not None
    assert clips.front_end.video is not None
    return AVClips(
        _span(span, clips),
        clips.rows["audio"],
        fps=clips.front_end.video.fps,
        mel_frames=mel_frames,
        front_end=clips.front_end.audio.logmel,
        augment=clips.augment.audio,
        sync=misaligned,
    )


DATASETS: dict[type[ModelInput], Callable[[Any, StoredClips], ClipDataset[Any]]] = {
    LogMelInput: _log_mel,
    SegmentInput: _segments,
    SpanInput: _span,
    AudioVisualInput: _audiovisual,
    SyncPairInput: _sync_pairs,
}
