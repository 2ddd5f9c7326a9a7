"""Media file -> RGB frames of one size at one rate."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from avrecog.errors import MediaError
from avrecog.media.opening import MAX_BYTES, MAX_PIXELS
from avrecog.media.seeking import Reading, frames_from


class Rectangle(Protocol):
    """A part of the picture, turned upright, in the file's pixels."""

    @property
    def x(self) -> int:
        """Pixels left of it."""

    @property
    def y(self) -> int:
        """Pixels above it."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def height(self) -> int:
        """Pixels."""


class FrameFormat(Protocol):
    """The frames that are wanted."""

    @property
    def fps(self) -> float:
        """Frames a second."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def crop(self) -> Rectangle | None:
        """Cut first; None: the whole picture."""


def decode_video(
    path: Path, frame_format: FrameFormat, start_s: float = 0.0, stop_s: float | None = None
) -> np.ndarray:
    """Frames of the span at `frame_format.fps`: at each tick the picture that is on screen then.

    Ticks stand at start_s + (i + 0.5) / fps, so a variable frame rate and a wrong one in the header do no harm. Before
    the first picture, where the sound begins earlier, that first picture is shown. The display rotation in the file's
    metadata is applied.

    Args:
        path: any file FFmpeg reads.
        frame_format: rate, size and crop.
        start_s: from here, counted from the file's beginning.
        stop_s: up to here, exclusive; None: to the end.

    Returns: (n_frames, height, width, 3) uint8 RGB; one frame at least.

    Raises:
        MediaError: if there is no moving picture, it can't be decoded, the crop lies outside it, nothing lies in the
            span, or too much for memory.
    """
    return np.stack(list(video_frames(path, frame_format, start_s, stop_s)))


def video_frames(
    path: Path, frame_format: FrameFormat, start_s: float = 0.0, stop_s: float | None = None
) -> Iterator[np.ndarray]:
    """What `decode_video` returns, frame by frame, so that memory doesn't grow with the length.

    Raises:
        MediaError: as there, when it comes to it.
    """
    n_frames, most = 0, MAX_BYTES // (frame_format.height * frame_format.width * 3)
    fps = frame_format.fps
    if stop_s is not None and stop_s > start_s:
        fps = max(fps, 1 / (stop_s - start_s))  # a span shorter than a tick has its tick in its middle
    with frames_from(path, "video", start_s, start_s + 0.5 / fps) as reading:
        for frame in _on_screen(reading, fps, start_s, stop_s):
            if n_frames == most:
                raise MediaError(f"{path}: more than {most:,} frames in one clip; cut it with start and end")
            n_frames += 1
            yield _fit(frame, frame_format, path)
        if not n_frames:
            raise MediaError(
                f"{path}: no picture between {start_s:g} s and {stop_s if stop_s is not None else 'the end'}"
            )


def _on_screen(reading: Reading | None, fps: float, start_s: float, stop_s: float | None) -> Iterator[av.VideoFrame]:
    """For each tick, the last frame whose time has come."""
    if reading is None:
        return
    shown: av.VideoFrame | None = None
    shown_until_s = 0.0
    tick = 0
    for stamp_s, frame in reading.pictures:
        time_s = stamp_s - reading.origin_s
        while shown is not None and (tick_s := start_s + (tick + 0.5) / fps) < time_s:
            if stop_s is not None and tick_s >= stop_s:
                return
            yield shown
            tick += 1
        shown, shown_until_s = frame or shown, time_s + reading.frame_s
    if shown is None:
        return
    end_s = shown_until_s if stop_s is None else min(stop_s, shown_until_s)
    while start_s + (tick + 0.5) / fps < end_s or tick == 0 and end_s > start_s:
        yield shown
        tick += 1


def _fit(frame: av.VideoFrame, frame_format: FrameFormat, path: Path) -> np.ndarray:
    """(height, width, 3) uint8: cropped, scaled to cover the stored size, cut in the middle, turned upright.

    Raises:
        MediaError: if the crop lies outside the picture, or that is too large.
    """
    if frame.width * frame.height > MAX_PIXELS:  # more than the header said
        raise MediaError(f"{path}: a frame of {frame.width} x {frame.height}, expected at most {MAX_PIXELS:,} pixels")
    quarter_turns = round(-frame.rotation / 90) % 4
    height, width = frame_format.height, frame_format.width
    if frame_format.crop is None and not quarter_turns:
        scale = max(height / frame.height, width / frame.width)
        scaled_height, scaled_width = _even(frame.height * scale), _even(frame.width * scale)
        picture = frame.reformat(scaled_width, scaled_height, "rgb24", interpolation="AREA", threads=1).to_ndarray()
        return _middle(picture, height, width)
    picture = np.rot90(frame.reformat(format="rgb24", threads=1).to_ndarray(), -quarter_turns)
    if frame_format.crop is not None:
        crop = frame_format.crop
        if crop.x + crop.width > picture.shape[1] or crop.y + crop.height > picture.shape[0]:
            raise MediaError(
                f"{path}: video.crop (x {crop.x}, y {crop.y}, {crop.width} x {crop.height}) lies outside its picture "
                f"of {picture.shape[1]} x {picture.shape[0]}"
            )
        picture = picture[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    scale = max(height / picture.shape[0], width / picture.shape[1])
    target = (_even(picture.shape[1] * scale), _even(picture.shape[0] * scale))
    cut = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture, dtype=np.uint8), format="rgb24")
    return _middle(cut.reformat(*target, "rgb24", interpolation="BICUBIC", threads=1).to_ndarray(), height, width)


def _even(length: float) -> int:
    """The nearest even number of pixels, not below: the scaled picture must cover the stored one."""
    return 2 * math.ceil(length / 2 - 1e-6)


def _middle(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]
