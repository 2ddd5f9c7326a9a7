"""What an encoder adds behind the end, so that its last packet is full."""

from collections.abc import Iterable, Iterator

import numpy as np

MAX_PADDING_S = 0.2  # packets hold up to 2048 samples, of 11 kHz and more


def without_padding(blocks: Iterable[np.ndarray], n_samples: int, most: int) -> Iterator[np.ndarray]:
    """The samples, cut behind `n_samples` where fewer than `most` follow; all of them where more do.

    A file says how long it lasts: a few samples more are its last packet's, many more its content, whatever it says.
    """
    n_passed, surplus = 0, np.zeros(0, np.float32)
    longer = False
    for block in blocks:
        if longer:
            yield block
            continue
        kept = block[: n_samples - n_passed]
        if len(kept):
            yield kept
        n_passed += len(kept)
        surplus = np.concatenate([surplus, block[len(kept) :]])
        if len(surplus) >= most:
            longer = True
            yield surplus
