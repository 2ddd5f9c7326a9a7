"""Where MMAction2 lets crops of log-mel lie: by the number of video frames, not by time.

The rule `mmaction2-0.x` is that of its tag v0.24.1, `mmaction2-1.x` of v1.2.0. A crop is that of 64 successive video
frames, whatever their rate: its first and last frame number, as parts of all, give mel frames from and to. A video of
fewer frames is wrapped, so that the crop of one of 63 begins and ends at the same frame and is empty. The functions
equal the reference's in all cases of tests/parity/test_mmaction2_sampling.py.

B videos, n clips of each (the reference's word for crops).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Rule = Literal["mmaction2-0.x", "mmaction2-1.x"]
FIRST_FRAME: dict[Rule, int] = {"mmaction2-0.x": 1, "mmaction2-1.x": 0}  # the number of a video's first frame
CLIP_LEN = 64  # video frames, in the reference's recipes for sound


def starts_for_testing(rule: Rule, n_frames: np.ndarray, clip_len: int, n_clips: int) -> np.ndarray:
    """First frames, from 0, of evenly spaced clips.

    Args:
        rule: whose.
        n_frames: (B,) of the videos.
        clip_len: frames of a clip.
        n_clips: of each video.

    Returns: (B, n_clips) int64.
    """
    frames, number = n_frames[:, None], np.arange(n_clips)[None, :]
    if rule == "mmaction2-0.x":
        spacing = (frames - clip_len + 1) / n_clips
        return np.where(frames >= clip_len, number * spacing + spacing / 2, 0).astype(np.int64)
    if clip_len == 1:
        return (number * (frames / n_clips) + frames / n_clips / 2).astype(np.int64)
    last = np.maximum(frames - clip_len, 0)
    if n_clips == 1:
        return last // 2
    return np.round(number * last / (n_clips - 1)).astype(np.int64)


def starts_for_training(
    n_frames: int, clip_len: int, n_clips: int, draw: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    """First frames, from 0, of random clips, one in each equal part of the video; both rules agree.

    Args:
        n_frames: of the video.
        clip_len: frames of a clip.
        n_clips: of the video.
        draw: `draw(stop, n)` gives n random whole numbers below `stop`.

    Returns: (n_clips,) int64.
    """
    choices = n_frames - clip_len + 1
    width = choices // n_clips
    if width > 0:
        return np.arange(n_clips) * width + draw(width, n_clips)
    if n_frames > max(n_clips, clip_len):
        return np.sort(draw(choices, n_clips))
    if width == 0:
        return np.round(np.arange(n_clips) * (choices / n_clips)).astype(np.int64)
    return np.zeros(n_clips, dtype=np.int64)


def clip_frames(rule: Rule, starts: np.ndarray, clip_len: int, n_frames: np.ndarray | int) -> np.ndarray:
    """Numbers of all frames of clips, wrapped at the video's end: (*starts.shape, clip_len) int64."""
    frames = np.asarray(n_frames)[..., None, None] if np.ndim(n_frames) else n_frames
    return (starts[..., None] + np.arange(clip_len)) % frames + FIRST_FRAME[rule]


def mel_frames_of(
    first: np.ndarray, last: np.ndarray, n_frames: np.ndarray | int, n_rows: np.ndarray | int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The mel frames that a clip's first and last frame number stand for, `length` at most.

    Args:
        first: frame numbers.
        last: frame numbers, inclusive.
        n_frames: video frames of the video.
        n_rows: mel frames of the video.
        length: of a crop.

    Returns: the first mel frame and how many there are (0 where the crop is empty), int64, in the shape of `first`.
    """
    start = np.maximum(0, np.round((first + 1) / n_frames * n_rows)).astype(np.int64)
    stop = np.minimum(n_rows, np.round((last + 1) / n_frames * n_rows)).astype(np.int64)
    return start, np.clip(stop - start, 0, length)


@dataclass(frozen=True)
class FrameSampling:
    """Crops by frame number of the clips of a dataset."""

    rule: Rule
    n_frames: np.ndarray  # (N,) video frames of each clip, 1 at least

    def training_crops(
        self, indices: np.ndarray, uniform: np.ndarray, n_rows: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """First mel frame and number of mel frames of a random crop of the clips `indices`, each (B,).

        Args:
            indices: (B,) of the clips.
            uniform: (B,) random numbers in [0, 1).
            n_rows: (B,) mel frames of the clips.
            length: of a crop.
        """
        n_frames = self.n_frames[indices]
        starts = [
            starts_for_training(n, CLIP_LEN, 1, _from_uniform(u))
            for n, u in zip(n_frames.tolist(), uniform.tolist(), strict=True)
        ]
        start, n_filled = self._mel_frames(np.array(starts, dtype=np.int64).reshape(-1, 1), n_frames, n_rows, length)
        return start[:, 0], n_filled[:, 0]

    def views(self, n_views: int, n_rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """First mel frame and number of mel frames of `n_views` crops of every clip, each (N, n_views)."""
        starts = starts_for_testing(self.rule, self.n_frames, CLIP_LEN, n_views)
        return self._mel_frames(starts, self.n_frames, n_rows, length)

    def _mel_frames(
        self, starts: np.ndarray, n_frames: np.ndarray, n_rows: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        frames = clip_frames(self.rule, starts, CLIP_LEN, n_frames)
        return mel_frames_of(frames[..., 0], frames[..., -1], n_frames[:, None], n_rows[:, None], length)


def _from_uniform(uniform: float) -> Callable[[int, int], np.ndarray]:
    """A `draw` of one number, made from one in [0, 1)."""
    return lambda stop, _: np.array([int(uniform * stop)])
