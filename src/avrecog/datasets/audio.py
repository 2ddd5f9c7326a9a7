"""Log-mel crops of a fixed number of frames, gathered from the store in one indexed read a batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from avrecog.datasets.augment import AudioAugmentConfig, AudioDraw, apply_audio, draw_audio
from avrecog.datasets.clips import epoch_generator
from avrecog.datasets.sampling import n_covering_views, random_starts, view_starts
from avrecog.logmel import LogMelConfig
from avrecog.store import ClipRows


class AudioClips:
    """Clips of one split as log-mel: batches of (B, 1, mel_frames, n_mels) float32."""

    def __init__(
        self,
        store: ClipRows,
        clip_ids: Sequence[str],
        labels: np.ndarray,
        mel_frames: int,
        front_end: LogMelConfig,
        augment: AudioAugmentConfig,
    ) -> None:
        """All `clip_ids` must be stored; `labels` (N,) stand in their order."""
        positions = store.positions(clip_ids)
        self.clip_ids, self.labels = list(clip_ids), labels
        self.mel_frames, self.front_end, self.augment = mel_frames, front_end, augment
        self._values = store.values
        self._start, self._n_rows = store.start[positions], store.n_rows[positions]

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
        if self.augment.roll:
            rolled = np.floor(rows.start * n_rows).astype(np.int64)
            starts = np.minimum(n_rows - self.mel_frames, 0) // 2  # 0, or centred where the clip is shorter
        else:
            rolled, starts = None, random_starts(n_rows, self.mel_frames, rows.start)
        crops = self._crops(indices, starts, device, rolled)
        return (apply_audio(crops, rows, self.augment, self.front_end.per_db),)

    def views(self, n_views: int | None) -> np.ndarray:
        """(V, 2): clip index and first mel frame of every view; None: as many as cover each clip."""
        wanted = n_covering_views(self._n_rows, self.mel_frames) if n_views is None else np.full(len(self), n_views)
        return np.array(
            [
                (clip, start)
                for clip, (n_rows, n) in enumerate(zip(self._n_rows.tolist(), wanted.tolist(), strict=True))
                for start in view_starts(n_rows, self.mel_frames, n)
            ],
            dtype=np.int64,
        ).reshape(-1, 2)

    def view_batch(self, views: np.ndarray, device: torch.device) -> tuple[Tensor]:
        """The views (B, 2), as they are stored."""
        return (self._crops(views[:, 0], views[:, 1], device),)

    def _crops(
        self, indices: np.ndarray, starts: np.ndarray, device: torch.device, rolled: np.ndarray | None = None
    ) -> Tensor:
        """(B, 1, mel_frames, n_mels) float32: rows outside a clip hold silence; `rolled` (B,) rows come last."""
        inside = starts[:, None] + np.arange(self.mel_frames)
        n_rows = self._n_rows[indices, None]
        row = np.clip(inside, 0, n_rows - 1)
        if rolled is not None:
            row = (row + rolled[:, None]) % n_rows
        values = self._values[self._start[indices, None] + row]
        outside = (inside < 0) | (inside >= n_rows)
        if outside.any():
            values[outside] = self.front_end.silence
        return torch.from_numpy(values).to(device).float()[:, None]
