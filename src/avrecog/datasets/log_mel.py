"""Log-mel crops of a fixed number of frames, gathered from the store in one indexed read a batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from avrecog.datasets.augment import AudioAugmentConfig, AudioDraw, apply_audio, draw_audio
from avrecog.datasets.base import epoch_generator
from avrecog.datasets.mmaction2_sampling import FrameSampling
from avrecog.datasets.numbers import Values, as_floats
from avrecog.datasets.sampling import n_covering_views, random_starts, view_starts
from avrecog.errors import ConfigError
from avrecog.features.settings import LogMelConfig
from avrecog.features.store import ClipRows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)


class AudioClips:
    """Clips of one split as log-mel: batches of (B, 1, mel_frames, n_mels) float32."""

    def __init__(
        self,
        store: ClipRows,
        clip_ids: Sequence[str],
        labels: np.ndarray,
        *,
        mel_frames: int,
        front_end: LogMelConfig,
        augment: AudioAugmentConfig,
        sampling: FrameSampling | None = None,
    ) -> None:
        """All `clip_ids` must be stored; `labels` (N,), and `sampling` if crops don't lie by time, are in their order.

        Raises:
            ConfigError: if crops are to be rolled that don't lie by time.
        """
        positions = store.positions(clip_ids)
        self.clip_ids, self.labels = list(clip_ids), labels
        self.mel_frames, self.front_end, self.augment = mel_frames, front_end, augment
        self._values, self._windows = store.values, _windows(store.values, mel_frames)
        self._start, self._n_rows = store.start[positions], store.n_rows[positions]
        self._sampling = sampling
        if sampling is not None:
            if augment.roll:
                raise ConfigError(
                    f"train.augment.audio.roll: expected false with sampling {sampling.rule}, whose crops have a place"
                )
            _, n_filled = sampling.views(1, self._n_rows, mel_frames)
            if n_empty := int((n_filled == 0).sum()):
                log.warning(
                    "sampling %s: %d of %d clips give empty crops, of silence alone: of a clip of 63 frames or 1 the "
                    "first and the last one that count are the same",
                    sampling.rule,
                    n_empty,
                    len(self),
                )

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def n_shorter(self) -> int:
        """Clips shorter than the window, which are centred in the front end's value for silence."""
        return int((self._n_rows < self.mel_frames).sum())

    def draw(self, seed: int, epoch: int) -> AudioDraw:
        """Random values for every clip of an epoch."""
        return draw_audio(epoch_generator(seed, epoch, 1), len(self), self.augment)

    def training_batch(self, indices: np.ndarray, draw: AudioDraw, device: torch.device) -> tuple[Tensor]:
        """Random crops of the clips `indices` (B,), augmented on the device."""
        rows = draw.rows(indices)
        n_rows = self._n_rows[indices]
        rolled = n_filled = None
        if self._sampling is not None:
            starts, n_filled = self._sampling.training_crops(indices, rows.start, n_rows, self.mel_frames)
        elif self.augment.roll:
            rolled = np.floor(rows.start * n_rows).astype(np.int64)
            starts = np.minimum(n_rows - self.mel_frames, 0) // 2  # 0, or centred where the clip is shorter
        else:
            starts = random_starts(n_rows, self.mel_frames, rows.start)
        crops = self._crops(indices, starts, device, rolled, n_filled)
        return (apply_audio(crops, rows, self.augment, self.front_end.per_db),)

    def views(self, n_views: int | None) -> np.ndarray:
        """(V, 2): clip index and first mel frame of every view; None: as many as cover each clip.

        Crops that don't lie by time have a third number: how many mel frames of the clip are in it.

        Raises:
            ConfigError: if None is asked of crops that don't lie by time.
        """
        if self._sampling is not None:
            if n_views is None:
                raise ConfigError(f"test.n_clips: expected a number with sampling {self._sampling.rule}, got null")
            starts, n_filled = self._sampling.views(n_views, self._n_rows, self.mel_frames)
            clips = np.repeat(np.arange(len(self)), n_views)
            return np.stack((clips, starts.reshape(-1), n_filled.reshape(-1)), axis=1)
        wanted = n_covering_views(self._n_rows, self.mel_frames) if n_views is None else np.full(len(self), n_views)
        return np.array(
            [
                (clip, start)
                for clip, (n_rows, n) in enumerate(zip(self._n_rows.tolist(), wanted.tolist(), strict=True))
                for start in view_starts(n_rows, self.mel_frames, n)
            ],
            dtype=np.int64,
        ).reshape(-1, 2)

    def log_mel(self, views: np.ndarray) -> Tensor:
        """The views (B, 2 or 3), as they are stored, on the CPU."""
        import torch  # late: it takes seconds

        return self.view_batch(views, torch.device("cpu"))[0]

    def view_batch(self, views: np.ndarray, device: torch.device | None) -> tuple[Values]:
        """The views (B, 2 or 3), as they are stored."""
        n_filled = views[:, 2] if self._sampling is not None else None
        return (self._crops(views[:, 0], views[:, 1], device, n_filled=n_filled),)

    def _crops(
        self,
        indices: np.ndarray,
        starts: np.ndarray,
        device: torch.device | None,
        rolled: np.ndarray | None = None,
        n_filled: np.ndarray | None = None,
    ) -> Values:
        """(B, 1, mel_frames, n_mels) float32: rows outside a clip hold silence; `rolled` (B,) rows come last.

        With `n_filled` (B,), the rows from there on hold silence too.
        """
        if (
            rolled is None
            and n_filled is None
            and ((starts >= 0) & (starts <= self._n_rows[indices] - self.mel_frames)).all()
        ):
            return as_floats(self._windows[self._start[indices] + starts], device)[:, None]
        inside = starts[:, None] + np.arange(self.mel_frames)
        n_rows = self._n_rows[indices, None]
        row = np.clip(inside, 0, n_rows - 1)
        if rolled is not None:
            row = (row + rolled[:, None]) % n_rows
        values = self._values[self._start[indices, None] + row]
        outside = (inside < 0) | (inside >= n_rows)
        if n_filled is not None:
            outside |= np.arange(self.mel_frames) >= n_filled[:, None]
        if outside.any():
            values[outside] = self.front_end.silence
        return as_floats(values, device)[:, None]


def _windows(values: np.ndarray, length: int) -> np.ndarray:
    """Every `length` consecutive rows of (n_rows, n_mels): (n_rows - length + 1, length, n_mels), a view.

    Picking windows copies each as one block, 20 times as fast as picking their rows.
    """
    n_windows = max(0, len(values) - length + 1)
    row, value = values.strides
    return np.lib.stride_tricks.as_strided(
        values, (n_windows, length, values.shape[1]), (row, row, value), writeable=False
    )
