"""Frames of equal segments of a video, gathered from the store in one indexed read a batch (TSN's sampling)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from avrecog.datasets.augment import VideoAugmentConfig, VideoDraw, apply_video, draw_video
from avrecog.datasets.base import epoch_generator
from avrecog.datasets.numbers import Values, as_pictures
from avrecog.datasets.sampling import n_covering_views, segment_frames, view_frames
from avrecog.features.store import ClipRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class RgbClips:
    """Clips of one split as frames: batches of (B, n_segments, 3 * snippet, height, width) float32 in 0..1."""

    def __init__(
        self,
        store: ClipRows,
        clip_ids: Sequence[str],
        labels: np.ndarray,
        *,
        n_segments: int,
        snippet: int,
        size: tuple[int, int],
        augment: VideoAugmentConfig,
    ) -> None:
        """All `clip_ids` must be stored; `size` is what the model sees, at most the stored frames' own."""
        positions = store.positions(clip_ids)
        self.clip_ids, self.labels = list(clip_ids), labels
        self.n_segments, self.snippet, self.size, self.augment = n_segments, snippet, size, augment
        self._values = store.values
        self._start, self._n_rows = store.start[positions], store.n_rows[positions]

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def n_shorter(self) -> int:
        """Clips with fewer frames than segments, of which frames are repeated."""
        return int((self._n_rows < self.n_segments * self.snippet).sum())

    def draw(self, seed: int, epoch: int) -> VideoDraw:
        """Random values for every clip of an epoch."""
        return draw_video(epoch_generator(seed, epoch, 1), len(self), self.n_segments)

    def training_batch(self, indices: np.ndarray, draw: VideoDraw, device: torch.device) -> tuple[Tensor]:
        """A random snippet of each segment of the clips `indices` (B,), augmented on the device."""
        rows = draw.rows(indices)
        first = segment_frames(self._n_rows[indices], self.n_segments, rows.position, self.snippet)
        return (apply_video(self._frames(indices, first, device), rows, self.augment, self.size),)

    def views(self, n_views: int | None) -> np.ndarray:
        """(V, 3): clip index, number of the view, and of how many; None: every frame is seen."""
        wanted = n_covering_views(self._n_rows, self.n_segments * self.snippet)
        if n_views is not None:
            wanted = np.minimum(wanted, n_views)
        return np.array(
            [(clip, view, n) for clip, n in enumerate(wanted.tolist()) for view in range(n)], dtype=np.int64
        ).reshape(-1, 3)

    def view_batch(self, views: np.ndarray, device: torch.device | None) -> tuple[Values]:
        """The views (B, 3): the middle of the picture at `size`."""
        clips, view, n_views = views.T
        first = view_frames(self._n_rows[clips], self.n_segments, view, n_views, self.snippet)
        frames = self._frames(clips, first, device)
        top, left = (frames.shape[-2] - self.size[0]) // 2, (frames.shape[-1] - self.size[1]) // 2
        return (frames[..., top : top + self.size[0], left : left + self.size[1]],)

    def _frames(self, indices: np.ndarray, first: np.ndarray, device: torch.device | None) -> Values:
        """(B, n_segments, 3 * snippet, H, W) float32 in 0..1, whole stored pictures; `first` frames (B, n_segments)."""
        n_rows = self._n_rows[indices]
        inside = np.minimum(first[:, :, None] + np.arange(self.snippet), n_rows[:, None, None] - 1)
        values = self._values[self._start[indices, None, None] + inside]  # (B, N, snippet, H, W, 3) uint8
        return as_pictures(values, device, self.snippet)
