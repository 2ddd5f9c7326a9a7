"""The sound of a clip, the same for every stage and command: what is decoded of it, and what is to be told."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from avrecog.media.audio import Heard, audio_blocks
from avrecog.media.container import Probe
from avrecog.media.padding import MAX_PADDING_S, without_padding


def clip_sound(
    path: Path,
    sample_rate: int,
    start_s: float,
    stop_s: float | None,
    *,
    lasts_s: float | None,
    heard: Heard,
) -> Iterator[np.ndarray]:
    """The sound of a clip, block by block; where its end is open, without what an encoder added behind it.

    Args:
        path: any file FFmpeg reads.
        sample_rate: Hz of the result.
        start_s: from here, counted from the file's beginning.
        stop_s: up to here, exclusive; None: to the end.
        lasts_s: how long the file says that the clip is; None: nothing says it, or it's a guess.
        heard: takes what is to be told of the sound.

    Raises:
        MediaError: as `audio_blocks`, when it comes to it.
    """
    blocks = audio_blocks(path, sample_rate, start_s, stop_s, heard)
    if stop_s is None and lasts_s is not None:
        blocks = without_padding(blocks, round(lasts_s * sample_rate), round(MAX_PADDING_S * sample_rate))
    yield from blocks


def whole_sound(path: Path, sample_rate: int, found: Probe) -> tuple[np.ndarray, list[str]]:
    """The sound of a whole file that was probed: (n_samples,) float32; and remarks on it, for people.

    Raises:
        MediaError: as `audio_blocks`.
    """
    heard = Heard()
    lasts_s = None if found.duration_estimated else found.duration_s
    blocks = list(clip_sound(path, sample_rate, 0.0, None, lasts_s=lasts_s, heard=heard))
    return np.concatenate(blocks), _remarks(heard)


def _remarks(heard: Heard) -> list[str]:
    found = []
    if heard.gaps:
        found.append(f"sound is missing, silence stands there: {_format_spans(heard.gaps)}")
    if heard.overlaps:
        found.append(f"sound is doubled, once is heard: {_format_spans(heard.overlaps)}")
    if heard.cancels:
        found.append("its channels are in opposite phase and cancel each other out")
    return found


def _format_spans(stretches: Sequence[tuple[float, float]], most: int = 3) -> str:
    said = [f"{begin:.2f} to {end:.2f} s" for begin, end in stretches[:most]]
    return ", ".join(said) + (f" and {len(stretches) - most} more" if len(stretches) > most else "")
