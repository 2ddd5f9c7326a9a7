"""Clips that the benchmarks make, and files as stage extract takes them."""

from pathlib import Path

import numpy as np
import soundfile

from avrecog.annotations.demo.clip import _encode as write_mp4
from avrecog.manifest import Clip
from avrecog.media.container import probe

RATE = 44_100


def clip_of(path: Path, number: int = 0) -> Clip:
    found = probe(path)
    n_frames = round(found.duration_s * found.fps)
    have = (found.fps, found.sample_rate, found.has_audio, found.has_video)
    return Clip(
        f"{path.stem} {number}",
        *(str(path), "x", path.stem, None, 0.0, found.duration_s, found.duration_s),
        *(n_frames, *have),
    )


def make_ogg(folder: Path, n: int) -> list[Path]:
    """Sounds of 5 s and 44.1 kHz, noise whose level moves."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.ogg" for number in range(n)]
    for path in paths:
        noise = rng.standard_normal(5 * RATE) * np.interp(np.arange(5 * RATE), np.linspace(0, 5 * RATE, 20), rng.random(20))
        soundfile.write(path, 0.2 * noise, RATE, subtype="VORBIS")
    return paths


def make_mp4(folder: Path, n: int) -> list[Path]:
    """Videos of 3 s and 360 x 288, moving noise with a sound."""
    rng = np.random.default_rng(1)
    paths = [folder / f"{number}.mp4" for number in range(n)]
    for path in paths:
        coarse = rng.integers(0, 256, (76, 18, 23, 3), dtype=np.uint8)
        frames = np.stack([(coarse[i].repeat(16, 0).repeat(16, 1)[:288, :360] // 2 + coarse[i + 1].repeat(16, 0).repeat(16, 1)[:288, :360] // 2) for i in range(75)])  # fmt: skip
        write_mp4(path, frames, (0.2 * rng.standard_normal(3 * RATE)).astype(np.float32), 25.0, RATE)
    return paths
