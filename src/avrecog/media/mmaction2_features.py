"""Feature files: log-mel that MMAction2 made, an array on disk in place of sound."""

from pathlib import Path

import numpy as np

from avrecog.errors import MediaError

ENDING = ".npy"
N_MELS = 80
ROWS_PER_S = 62.5  # 16 kHz, a hop of 256 samples
SAMPLE_RATE = 16_000  # Hz, of the sound that they were made from
_UNREADABLE = (ValueError, TypeError, SyntaxError, EOFError, OverflowError, MemoryError)  # NumPy's, over broken headers


def read_features(path: Path, start_s: float = 0.0, stop_s: float | None = None) -> np.ndarray:
    """Mel frames of a feature file of MMAction2, all or those of a span; nothing in it runs.

    Args:
        path: the file (.npy).
        start_s: from here.
        stop_s: up to here, exclusive; None: to the end.

    Returns: (mel_frames, 80) float16 in 0..1, one at least.

    Raises:
        MediaError: if the file is missing or broken, is of another shape, holds values outside 0..1, or nothing lies in
            the span.
    """
    try:
        values = np.lib.format.open_memmap(path, mode="r")  # a header can't claim more than the file holds
    except FileNotFoundError:
        raise MediaError(f"{path}: no such file; correct the path, or drop the row of the annotation") from None
    except OSError as error:
        raise MediaError(f"{path}: can't be read ({error.strerror})") from None
    except _UNREADABLE as error:
        raise MediaError(f"{path}: not an array of numbers ({error})") from None
    if values.ndim != 2 or values.shape[1] != N_MELS or not len(values) or values.dtype.kind != "f":
        raise MediaError(
            f"{path}: expected features of shape (time, {N_MELS}) of floating point, got {values.shape} {values.dtype}"
        )
    stop = None if stop_s is None else round(stop_s * ROWS_PER_S)
    rows = np.asarray(values[round(start_s * ROWS_PER_S) : stop])
    if not len(rows):
        raise MediaError(f"{path}: no features between {start_s:g} s and {'the end' if stop_s is None else stop_s}")
    if not ((rows >= 0) & (rows <= 1)).all():  # NaN is not either
        raise MediaError(f"{path}: expected values from 0 to 1, as MMAction2's extraction gives")
    return rows.astype(np.float16)
