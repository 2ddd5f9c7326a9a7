"""Frames of a span of a clip, and the log-mel of the same span of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avrecog.datasets.augment import AudioAugmentConfig, AudioDraw, VideoDraw, apply_audio, draw_audio, draw_video
from avrecog.datasets.base import epoch_generator
from avrecog.datasets.frame_spans import FrameClips
from avrecog.datasets.numbers import Values, as_floats
from avrecog.datasets.row_index import Rows
from avrecog.errors import ConfigError
from avrecog.features.settings import LogMelConfig
from avrecog.features.store import ClipRows
from avrecog.inputs import MisalignedSounds

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HARD_GAP_S = 0.512  # a misaligned sound of the same clip begins at least so much apart: 32 mel frames of the reference


@dataclass(frozen=True)
class AVDraw:
    """Random values for every clip of an epoch."""

    video: VideoDraw
    audio: AudioDraw
    other: np.ndarray  # (N,) another clip
    other_time: np.ndarray  # (N,) uniform in [0, 1): where in a clip the misaligned sound begins
    is_hard: np.ndarray  # (N,) whether it is the clip's own


class AVClips:
    """Clips of one split as frames (B, T, 3, H, W) in 0..1, log-mel (B, 1, mel_frames, n_mels) of the same span, and
    (B, 2) 1 where the clip has a picture, and a sound; with `sync`, in training, a misaligned sound behind them.

    The log-mel is the stored one at `mel_frames` evenly spaced times from the span's begin to its end, the nearest mel
    frame each. Clips begin at the same time in both stores.
    """

    def __init__(
        self,
        frames: FrameClips,
        audio: ClipRows,
        *,
        fps: float,
        mel_frames: int,
        front_end: LogMelConfig,
        augment: AudioAugmentConfig,
        sync: MisalignedSounds | None = None,
    ) -> None:
        """The sound of the clips of `frames`.

        Args:
            frames: the pictures; a clip without one lasts as long as its sound.
            audio: log-mel as `front_end` makes it.
            fps: stored frames a second.
            mel_frames: of the log-mel of a span.
            front_end: of the store.
            augment: of the log-mel in training.
            sync: of the misaligned sounds; None: none are given.

        Raises:
            ConfigError: if the sound is to be rolled, away from its picture.
        """
        if augment.roll:
            raise ConfigError("train.augment.audio.roll: expected false for a model of sound and picture, got true")
        self.clip_ids, self.labels = frames.clip_ids, frames.labels
        self._frames, self._rows = frames, Rows.of(audio, frames.clip_ids)
        self.fps, self.mel_frames, self.front_end, self.augment, self.sync = fps, mel_frames, front_end, augment, sync
        self.has_sound = self._rows.n_rows > 0
        heard = np.round(self._rows.n_rows * fps / front_end.frames_per_s).astype(np.int64)
        frames.n_frames = np.where(frames.has_picture, frames.n_frames, np.maximum(1, heard))

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def n_shorter(self) -> int:
        """Clips that are shorter than a view; silence surrounds their sound."""
        return self._frames.n_shorter

    @property
    def n_one_sided(self) -> int:
        """Clips that have a picture or a sound alone."""
        return int((self.has_sound != self._frames.has_picture).sum())

    @property
    def window(self) -> int:
        """Stored frames of a view."""
        return self._frames.window

    def pictures(self, first: np.ndarray, device: torch.device) -> Tensor:
        """(B, T, 3, H, W) of the first clip, from its frames `first` (B,)."""
        views = np.stack([np.zeros(len(first), np.int64), first, np.zeros(len(first), np.int64)], axis=1)
        (frames,) = self._frames.view_batch(views, device)
        return frames

    def sounds(self, first_s: np.ndarray, device: torch.device) -> Tensor:
        """(B, 1, mel_frames, n_mels) of the first clip, from the times `first_s` (B,), in seconds."""
        return self._log_mel(np.zeros(len(first_s), np.int64), first_s, device)

    def draw(self, seed: int, epoch: int) -> AVDraw:
        """Random values for every clip of an epoch."""
        generator, n = epoch_generator(seed, epoch, 1), len(self)
        video, audio = draw_video(generator, n, 1), draw_audio(generator, n, self.augment)
        other = (np.arange(n) + generator.integers(1, max(n, 2), n)) % n
        hard_share = self.sync.hard_share if self.sync is not None and epoch >= self.sync.hard_from_epoch else 0.0
        return AVDraw(video, audio, other, generator.random(n), generator.random(n) < hard_share)

    def training_batch(self, indices: np.ndarray, draw: AVDraw, device: torch.device) -> tuple[Tensor, ...]:
        """A random span of the clips `indices` (B,), augmented on the device."""
        video, audio = draw.video.rows(indices), draw.audio.rows(indices)
        first = self._frames.random_starts(indices, video)
        first_s = first / self.fps
        batch = (
            self._frames.augmented(indices, first, video, device),
            self._augmented(self._log_mel(indices, first_s, device), audio),
            self._present(indices, device),
        )
        if self.sync is None:
            return batch
        return (*batch, self._augmented(self._misaligned(indices, first_s, draw, device), audio))

    def views(self, n_views: int | None) -> np.ndarray:
        """(V, 3), as of the frames."""
        return self._frames.views(n_views)

    def view_batch(self, views: np.ndarray, device: torch.device | None) -> tuple[Values, ...]:
        """The views (B, 3)."""
        (frames,) = self._frames.view_batch(views, device)
        return frames, self._log_mel(views[:, 0], views[:, 1] / self.fps, device), self._present(views[:, 0], device)

    def log_mel(self, views: np.ndarray) -> Tensor:
        """The sound of those views (B, 3) that have one, on the CPU."""
        import torch  # late: it takes seconds

        views = views[self.has_sound[views[:, 0]]]
        return self._log_mel(views[:, 0], views[:, 1] / self.fps, torch.device("cpu"))

    def _present(self, indices: np.ndarray, device: torch.device | None) -> Values:
        present = np.stack([self._frames.has_picture[indices], self.has_sound[indices]], axis=1)
        return as_floats(present, device)

    def _log_mel(self, indices: np.ndarray, first_s: np.ndarray, device: torch.device | None) -> Values:
        """(B, 1, mel_frames, n_mels) float32 of the spans that begin at `first_s` (B,); silence outside of a clip."""
        rate = self.front_end.frames_per_s
        span = self._frames.window / self.fps * rate  # in mel frames, not whole
        place = np.rint(first_s[:, None] * rate + np.linspace(0, span, self.mel_frames)).astype(np.int64)
        n_rows = self._rows.n_rows[indices, None]
        place = np.where(place == n_rows, n_rows - 1, place)  # the end of the clip is its last mel frame
        values, within = self._rows.take(indices, place)
        if not within.all():
            values[~within] = self.front_end.silence
        return as_floats(values, device)[:, None]

    def _misaligned(self, indices: np.ndarray, first_s: np.ndarray, draw: AVDraw, device: torch.device) -> Tensor:
        """Sounds of other clips or, where that is drawn and the clip is long enough, of the same at another time."""
        free_s = np.maximum(0, self._frames.n_frames - self._frames.window) / self.fps  # (N,)
        before = np.clip(first_s - HARD_GAP_S, 0, None)  # room at earlier, and at later times
        after = np.clip(free_s[indices] - first_s - HARD_GAP_S, 0, None)
        hard = draw.is_hard[indices] & (before + after > 0)
        place = draw.other_time[indices] * (before + after)
        own_s = np.where(place < before, place, place - before + first_s + HARD_GAP_S)
        clips = np.where(hard, indices, draw.other[indices])
        return self._log_mel(clips, np.where(hard, own_s, draw.other_time[indices] * free_s[clips]), device)

    def _augmented(self, log_mel: Tensor, draw: AudioDraw) -> Tensor:
        return apply_audio(log_mel, draw, self.augment, self.front_end.per_db)
