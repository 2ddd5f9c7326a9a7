"""Frames of one span of a clip, evenly spaced, gathered from the store in one indexed read a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from avrecog.datasets.augment import VideoAugmentConfig, VideoDraw, apply_video, draw_video
from avrecog.datasets.base import epoch_generator
from avrecog.datasets.numbers import Values, as_pictures, stacked
from avrecog.datasets.row_index import Rows
from avrecog.datasets.sampling import n_covering_views, random_starts, view_starts
from avrecog.features.store import ClipRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

GREY = 115  # 0.45 of 255: what is seen of a clip without a picture


class FrameClips:
    """Clips of one split as spans of frames: batches of (B, T, 3, H, W) float32 in 0..1.

    The first and the last frame of a clip that is shorter than the span are repeated.

    Attributes:
        n_frames: (N,) how many frames each clip lasts.
        has_picture: (N,) whether it is stored.
    """

    def __init__(
        self,
        store: ClipRows,
        clip_ids: Sequence[str],
        labels: np.ndarray,
        *,
        frames: int,
        frame_stride: int,
        size: tuple[int, int],
        n_crops: int,
        augment: VideoAugmentConfig,
    ) -> None:
        """A clip that isn't stored is a grey picture of one frame.

        Args:
            store: of (height, width, 3) uint8.
            clip_ids: the clips.
            labels: (N,) int64, in their order.
            frames: T.
            frame_stride: stored frames from one to the next.
            size: (H, W), at most the stored frames' own.
            n_crops: of each view at test time: 1, the middle, or 3 along the side with more room.
            augment: in training.
        """
        self.clip_ids, self.labels = list(clip_ids), labels
        self.frames, self.frame_stride, self.size = frames, frame_stride, size
        self.n_crops, self.augment = n_crops, augment
        self._rows = Rows.of(store, clip_ids)
        self.has_picture = self._rows.n_rows > 0
        self.n_frames = np.maximum(1, self._rows.n_rows)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def window(self) -> int:
        """Stored frames from the first of a view to behind its last."""
        return self.frames * self.frame_stride

    @property
    def n_shorter(self) -> int:
        """Clips that are shorter than a view."""
        return int((self.n_frames < self.window).sum())

    def draw(self, seed: int, epoch: int) -> VideoDraw:
        """Random values for every clip of an epoch."""
        return draw_video(epoch_generator(seed, epoch, 1), len(self), 1)

    def training_batch(self, indices: np.ndarray, draw: VideoDraw, device: torch.device) -> tuple[Tensor]:
        """A random span of the clips `indices` (B,), augmented on the device."""
        rows = draw.rows(indices)
        return (self.augmented(indices, self.random_starts(indices, rows), rows, device),)

    def random_starts(self, indices: np.ndarray, rows: VideoDraw) -> np.ndarray:
        """(B,) first frames; negative where a clip is shorter than the span."""
        return random_starts(self.n_frames[indices], self.window, rows.position[:, 0])

    def augmented(self, indices: np.ndarray, first: np.ndarray, rows: VideoDraw, device: torch.device) -> Tensor:
        """The spans that begin at `first` (B,), augmented."""
        return apply_video(self._spans(indices, first, device), rows, self.augment, self.size)

    def views(self, n_views: int | None) -> np.ndarray:
        """(V, 3): clip index, first frame, and which of the crops; None: as many views as cover each clip."""
        wanted = n_covering_views(self.n_frames, self.window) if n_views is None else np.full(len(self), n_views)
        return np.array(
            [
                (clip, first, crop)
                for clip, n in enumerate(wanted.tolist())
                for first in view_starts(int(self.n_frames[clip]), self.window, n).tolist()
                for crop in range(self.n_crops)
            ],
            dtype=np.int64,
        ).reshape(-1, 3)

    def view_batch(self, views: np.ndarray, device: torch.device | None) -> tuple[Values]:
        """The views (B, 3), cropped at `size`."""
        clips, first, crop = views.T
        frames = self._spans(clips, first, device)
        (height, width), (free_y, free_x) = (
            self.size,
            (frames.shape[-2] - self.size[0], frames.shape[-1] - self.size[1]),
        )
        if self.n_crops == 1:
            top, left = free_y // 2, free_x // 2
            return (frames[..., top : top + height, left : left + width],)
        pieces = []
        for picture, number in zip(frames, crop.tolist(), strict=True):
            top, left = (free_y // 2, number * free_x // 2) if free_x >= free_y else (number * free_y // 2, free_x // 2)
            pieces.append(picture[..., top : top + height, left : left + width])
        return (stacked(pieces),)

    def _spans(self, indices: np.ndarray, first: np.ndarray, device: torch.device | None) -> Values:
        """(B, T, 3, height, width) float32 in 0..1, whole stored pictures."""
        values, _ = self._rows.take(indices, first[:, None] + np.arange(self.frames) * self.frame_stride)
        if not self.has_picture[indices].all():
            values[~self.has_picture[indices]] = GREY
        return as_pictures(values, device)
