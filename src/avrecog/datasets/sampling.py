"""Index arithmetic: where crops, segments and views lie. Arrays of numbers in, arrays of indices out."""

import numpy as np


def random_starts(n_rows: np.ndarray, window: int, uniform: np.ndarray) -> np.ndarray:
    """Where a crop of `window` rows begins in clips of `n_rows`, each start equally likely.

    A clip shorter than the window is centred in it: its start is negative.

    Args:
        n_rows: (B,) lengths.
        window: rows of a crop.
        uniform: (B,) random numbers in [0, 1).

    Returns: (B,) int64.
    """
    free = n_rows - window
    return np.where(free >= 0, np.floor(uniform * (free + 1)), free // 2).astype(np.int64)


def n_covering_views(n_rows: np.ndarray, window: int) -> np.ndarray:
    """How many views of `window` rows, evenly spaced, it takes to cover each clip: (B,) int64, at least 1."""
    return np.maximum(1, -(-n_rows // window)).astype(np.int64)


def view_starts(n_rows: int, window: int, n_views: int) -> np.ndarray:
    """Evenly spaced views from a clip's first row to its last; one view is the middle; equal ones are given once.

    Returns: (at most n_views,) int64, increasing; negative (centred) where the clip is shorter than the window.
    """
    free = n_rows - window
    if free <= 0 or n_views == 1:
        return np.array([free // 2], dtype=np.int64)
    return np.unique(np.round(np.linspace(0, free, n_views)).astype(np.int64))


def segment_frames(n_frames: np.ndarray, n_segments: int, position: np.ndarray, snippet: int = 1) -> np.ndarray:
    """First frame of a snippet in each of `n_segments` equal slices of a video, at a relative position in the slice.

    Args:
        n_frames: (B,) lengths.
        n_segments: slices (TSN's segments).
        position: (B, n_segments) in [0, 1): 0.5 is the middle (TSN's test-time rule), random numbers its training rule.
        snippet: consecutive frames taken at each place.

    Returns: (B, n_segments) int64, non-decreasing along a row for equal positions, in [0, n_frames - snippet], 0 where
        the video is shorter than a snippet.
    Source: Wang et al., "Temporal Segment Networks", 2016.
    """
    choices = np.maximum(1, n_frames - snippet + 1)[:, None]
    slices = np.arange(n_segments)[None, :]
    return np.minimum(np.floor((slices + position) / n_segments * choices), choices - 1).astype(np.int64)


def view_frames(
    n_frames: np.ndarray, n_segments: int, view: np.ndarray, n_views: np.ndarray, snippet: int = 1
) -> np.ndarray:
    """First frame of the snippet in each segment, for view number `view` of the `n_views` of a clip.

    The views' places in a segment are evenly spaced; one view has TSN's middle. Where snippets of several frames are
    enough to cover the clip they stand from its first frame to its last, so that none is missed.

    Args:
        n_frames: (B,) lengths.
        n_segments: slices.
        view: (B,) in [0, n_views).
        n_views: (B,) of each clip.
        snippet: consecutive frames taken at each place.

    Returns: (B, n_segments) int64 in [0, n_frames - snippet], 0 where the video is shorter than a snippet.
    """
    position = np.repeat(((2 * view + 1) / (2 * n_views))[:, None], n_segments, axis=1)
    first = segment_frames(n_frames, n_segments, position, snippet)
    if snippet == 1:
        return first  # the middles of as many slices as there are frames are all the frames
    n_snippets = n_segments * n_views
    number = np.arange(n_segments)[None, :] * n_views[:, None] + view[:, None]
    free = np.maximum(0, n_frames - snippet)[:, None]
    spread = np.round(number * free / np.maximum(1, n_snippets - 1)[:, None]).astype(np.int64)
    covered = (n_snippets * snippet >= n_frames) & (n_snippets > 1)
    return np.where(covered[:, None], spread, first)
