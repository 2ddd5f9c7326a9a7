"""Frames of a span of a clip and the log-mel of the same span, gathered from two stores in one indexed read each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from avrecog.datasets.augment import (
    AudioAugmentConfig,
    AudioDraw,
    VideoAugmentConfig,
    VideoDraw,
    apply_audio,
    apply_video,
    draw_audio,
    draw_video,
)
from avrecog.datasets.clips import epoch_generator
from avrecog.datasets.sampling import n_covering_views, random_starts, view_starts
from avrecog.logmel import LogMelConfig

GREY = 115  # 0.45 of 255: what is seen of a clip without a picture
HARD_GAP_S = 0.512  # a misaligned sound of the same clip begins at least so much apart


class KnownRows(Protocol):
    """What a store or a few arrays in memory say of their clips."""

    values: np.ndarray
    start: np.ndarray
    n_rows: np.ndarray

    def __contains__(self, clip_id: str) -> bool: ...

    def positions(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Where each clip stands in `start` and `n_rows`."""
        ...


@dataclass(frozen=True)
class Rows:
    """The rows of clips in one store; a clip that isn't there has none."""

    values: np.ndarray  # (all rows, *row_shape)
    start: np.ndarray  # (N,) int64
    n_rows: np.ndarray  # (N,) int64, 0 where the clip isn't there

    @classmethod
    def of(cls, store: KnownRows, clip_ids: Sequence[str]) -> "Rows":
        """The rows of these clips."""
        there = np.array([clip_id in store for clip_id in clip_ids], dtype=bool)
        start, n_rows = np.zeros(len(clip_ids), np.int64), np.zeros(len(clip_ids), np.int64)
        positions = store.positions([clip_id for clip_id, is_there in zip(clip_ids, there, strict=True) if is_there])
        start[there], n_rows[there] = store.start[positions], store.n_rows[positions]
        return cls(store.values, start, n_rows)

    def take(self, indices: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows `inside` (B, T) of the clips `indices` (B,), and (B, T) true where the clip has such a row.

        Where it hasn't, its nearest row stands, or any row if the clip has none.
        """
        n_rows = self.n_rows[indices, None]
        within = (inside >= 0) & (inside < n_rows)
        row = np.where(n_rows > 0, self.start[indices, None] + np.clip(inside, 0, n_rows - 1), 0)
        return self.values[row], within


@dataclass(frozen=True)
class SyncConfig:
    """How misaligned sounds are found for the synchronisation loss."""

    hard_from_epoch: int  # counted from 0: before it, all are other clips'
    hard_share: float  # of the clips whose misaligned sound is their own, at another time, from then on


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
    (B, 2) whether the clip has a picture and a sound; with `sync`, in training, a misaligned sound behind them.

    The span is of `frames` stored frames, `frame_stride` apart, and every mel frame is the one nearest to its time in
    it. Time counts from the beginning of the clip in both stores.
    """

    def __init__(
        self,
        video: KnownRows,
        audio: KnownRows,
        clip_ids: Sequence[str],
        labels: np.ndarray,
        frames: int,
        frame_stride: int,
        fps: float,
        mel_frames: int,
        front_end: LogMelConfig,
        size: tuple[int, int],
        n_crops: int,
        augment_video: VideoAugmentConfig,
        augment_audio: AudioAugmentConfig,
        sync: SyncConfig | None = None,
    ) -> None:
        """Clips that stand in one of the two stores at least; `labels` (N,) in their order.

        Args:
            video: rows (H, W, 3) uint8, `fps` of them a second.
            audio: rows of log-mel, as `front_end` makes them.
            clip_ids: the clips.
            labels: (N,) int64.
            frames: T.
            frame_stride: stored frames from one to the next.
            fps: of the store.
            mel_frames: of the log-mel.
            front_end: of the log-mel.
            size: (H, W) of what the model sees.
            n_crops: of each view at test time: 1, the middle, or 3 along the longer side.
            augment_video: of the frames, in training.
            augment_audio: of the log-mel, in training.
            sync: of the misaligned sounds; None: none are given.
        """
        self.clip_ids, self.labels = list(clip_ids), labels
        self._video, self._audio = Rows.of(video, clip_ids), Rows.of(audio, clip_ids)
        self.frames, self.frame_stride, self.fps = frames, frame_stride, fps
        self.mel_frames, self.front_end, self.size, self.n_crops = mel_frames, front_end, size, n_crops
        self.augment_video, self.augment_audio, self.sync = augment_video, augment_audio, sync
        self._present = np.stack([self._video.n_rows > 0, self._audio.n_rows > 0], axis=1)
        heard = np.maximum(1, np.round(self._audio.n_rows * fps / front_end.frames_per_s)).astype(np.int64)
        self._n_frames = np.where(self._present[:, 0], self._video.n_rows, heard)  # of a clip's whole length

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def window(self) -> int:
        """Stored frames from the first to behind the last of a view."""
        return self.frames * self.frame_stride

    @property
    def n_shorter(self) -> int:
        """Clips that are shorter than a view; their last frame is repeated, and silence follows their sound."""
        return int((self._n_frames < self.window).sum())

    @property
    def n_without(self) -> tuple[int, int]:
        """How many clips have no picture, and no sound."""
        seen, heard = (~self._present).sum(axis=0).tolist()
        return seen, heard

    def draw(self, seed: int, epoch: int) -> AVDraw:
        """Random values for every clip of an epoch."""
        generator = epoch_generator(seed, epoch, 1)
        video, n = draw_video(generator, len(self), 1), len(self)
        audio = draw_audio(generator, n, self.augment_audio)
        other = (np.arange(n) + generator.integers(1, max(n, 2), n)) % n
        hard_share = self.sync.hard_share if self.sync is not None and epoch >= self.sync.hard_from_epoch else 0.0
        return AVDraw(video, audio, other, generator.random(n), generator.random(n) < hard_share)

    def training_batch(self, indices: np.ndarray, draw: AVDraw, device: torch.device) -> tuple[Tensor, ...]:
        """A random span of the clips `indices` (B,), augmented on the device."""
        video, audio = draw.video.rows(indices), draw.audio.rows(indices)
        first = random_starts(self._n_frames[indices], self.window, video.position[:, 0])
        frames = apply_video(self._frames(indices, first, device), video, self.augment_video, self.size)
        log_mel = self._augmented(self._log_mel(indices, first / self.fps, device), audio)
        batch = (frames, log_mel, self._presence(indices, device))
        if self.sync is None:
            return batch
        return (*batch, self._augmented(self._misaligned(indices, first / self.fps, draw, device), audio))

    def views(self, n_views: int | None) -> np.ndarray:
        """(V, 3): clip index, first frame, and which of the crops; None: as many views as cover each clip."""
        wanted = n_covering_views(self._n_frames, self.window) if n_views is None else np.full(len(self), n_views)
        return np.array(
            [
                (clip, first, crop)
                for clip, n in enumerate(wanted.tolist())
                for first in view_starts(int(self._n_frames[clip]), self.window, n).tolist()
                for crop in range(self.n_crops)
            ],
            dtype=np.int64,
        ).reshape(-1, 3)

    def view_batch(self, views: np.ndarray, device: torch.device) -> tuple[Tensor, ...]:
        """The views (B, 3), cropped at `size`."""
        clips, first, crop = views.T
        frames = self._frames(clips, first, device)
        log_mel = self._log_mel(clips, first / self.fps, device)
        return self._cropped(frames, crop), log_mel, self._presence(clips, device)

    def log_mel(self, views: np.ndarray, device: torch.device) -> Tensor:
        """The sound of the views (B, 3) alone."""
        return self._log_mel(views[:, 0], views[:, 1] / self.fps, device)

    def _presence(self, indices: np.ndarray, device: torch.device) -> Tensor:
        return torch.from_numpy(self._present[indices]).to(device).float()

    def _frames(self, indices: np.ndarray, first: np.ndarray, device: torch.device) -> Tensor:
        """(B, T, 3, H, W) float32 in 0..1, whole stored pictures; the ends of a short clip are repeated."""
        values, _ = self._video.take(indices, first[:, None] + np.arange(self.frames) * self.frame_stride)
        if not self._present[indices, 0].all():
            values[~self._present[indices, 0]] = GREY
        return torch.from_numpy(values).to(device).permute(0, 1, 4, 2, 3).float() / 255

    def _log_mel(self, indices: np.ndarray, first_s: np.ndarray, device: torch.device) -> Tensor:
        """(B, 1, mel_frames, n_mels) float32 of the span that begins at `first_s` (B,); silence outside of the clip."""
        rate = self.front_end.frames_per_s
        span = self.window / self.fps * rate  # mel frames, not whole
        place = first_s[:, None] * rate + np.linspace(0, span, self.mel_frames)
        values, within = self._audio.take(indices, np.rint(place).astype(np.int64))
        if not within.all():
            values[~within] = self.front_end.silence
        return torch.from_numpy(values).to(device).float()[:, None]

    def _misaligned(self, indices: np.ndarray, first_s: np.ndarray, draw: AVDraw, device: torch.device) -> Tensor:
        """Sounds of other clips or, where that is drawn and the clip is long enough, of the same at another time."""
        free_s = np.maximum(0, self._n_frames - self.window) / self.fps
        before = np.clip(first_s - HARD_GAP_S, 0, None)  # how much room there is at earlier and at later times
        after = np.clip(free_s[indices] - first_s - HARD_GAP_S, 0, None)
        hard = draw.is_hard[indices] & (before + after > 0)
        place = draw.other_time[indices] * (before + after)
        of_own = np.where(place < before, place, place - before + first_s + HARD_GAP_S)
        clips = np.where(hard, indices, draw.other[indices])
        return self._log_mel(clips, np.where(hard, of_own, draw.other_time[indices] * free_s[clips]), device)

    def _augmented(self, log_mel: Tensor, draw: AudioDraw) -> Tensor:
        return apply_audio(log_mel, draw, self.augment_audio, self.front_end.per_db)

    def _cropped(self, frames: Tensor, crop: np.ndarray) -> Tensor:
        """(B, T, 3, *size): the middle, or the first, middle and last third along the side with more room."""
        free_y, free_x = frames.shape[-2] - self.size[0], frames.shape[-1] - self.size[1]
        if self.n_crops == 1:
            return frames[..., free_y // 2 : free_y // 2 + self.size[0], free_x // 2 : free_x // 2 + self.size[1]]
        along_x = free_x >= free_y
        pieces = []
        for picture, number in zip(frames, crop.tolist(), strict=True):
            top = free_y // 2 if along_x else number * free_y // 2
            left = number * free_x // 2 if along_x else free_x // 2
            pieces.append(picture[..., top : top + self.size[0], left : left + self.size[1]])
        return torch.stack(pieces)
