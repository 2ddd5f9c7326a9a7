"""Pictures with two sounds each, of which one is their own: what synchronisation is learned and tested on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avrecog.datasets.audiovisual import AVClips, AVDraw

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLASSES = ("first sound", "second sound")  # which is the picture's own
TEST_SEED = 1_000_003  # of the pairs of val and test, which are the same in every run


class SyncPairs:
    """Clips of one split as frames (B, T, 3, H, W) and two sounds (B, 1, mel_frames, n_mels).

    Attributes:
        labels: (N,) int64 0 or 1, which of the two is their own.
    """

    def __init__(self, clips: AVClips, own_first: bool) -> None:
        """Pairs of `clips`, which have a picture and a sound each, and settings for misaligned sounds.

        Args:
            clips: the clips.
            own_first: the first sound is always the own one; else every second clip's.
        """
        self._clips = clips
        self.clip_ids = clips.clip_ids
        self.labels = np.zeros(len(clips), np.int64) if own_first else np.arange(len(clips)) % 2

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def n_shorter(self) -> int:
        """Clips that are shorter than a view."""
        return self._clips.n_shorter

    def draw(self, seed: int, epoch: int) -> AVDraw:
        """Random values for every clip of an epoch."""
        return self._clips.draw(seed, epoch)

    def training_batch(self, indices: np.ndarray, draw: AVDraw, device: torch.device) -> tuple[Tensor, ...]:
        """A random span of the clips `indices` (B,), augmented, and two sounds."""
        import torch  # late: it takes seconds

        from avrecog.runtime.device import to_device

        frames, own, _, other = self._clips.training_batch(indices, draw, device)
        is_second = to_device(self.labels[indices] == 1, device)[:, None, None, None]
        return frames, torch.where(is_second, other, own), torch.where(is_second, own, other)

    def views(self, n_views: int | None) -> np.ndarray:
        """(V, 2): clip index, and the number of the pair."""
        pairs = np.arange(1 if n_views is None else n_views)
        return np.stack([np.repeat(np.arange(len(self)), len(pairs)), np.tile(pairs, len(self))], axis=1)

    def view_batch(self, views: np.ndarray, device: torch.device | None) -> tuple[Tensor, ...]:
        """The pairs (B, 2); random spans, the same in every run, misaligned in time where the clips are long enough."""
        from avrecog.runtime.device import to_device

        assert device is not None  # nothing is predicted of pairs
        parts = [
            (views[:, 1] == number, self.training_batch(views[views[:, 1] == number, 0], self._drawn(number), device))
            for number in np.unique(views[:, 1])
        ]
        whole = []
        for tensors in zip(*(batch for _, batch in parts), strict=True):
            out = tensors[0].new_empty((len(views), *tensors[0].shape[1:]))
            for (chosen, _), values in zip(parts, tensors, strict=True):
                out[to_device(chosen, device)] = values
            whole.append(out)
        return tuple(whole)

    def log_mel(self, views: np.ndarray) -> Tensor:
        """The own sound of the clips of those views (B, 2), on the CPU."""
        return self._clips.log_mel(np.stack([views[:, 0], np.zeros(len(views), np.int64)], axis=1))

    def _drawn(self, number: int) -> AVDraw:
        return self._clips.draw(TEST_SEED, int(number))
