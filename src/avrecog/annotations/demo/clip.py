"""One demo clip, from plan to file. Worker processes import this: keep it to numpy and PyAV, for a quick start."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avrecog.annotations.demo.motion import draw_motion
from avrecog.annotations.demo.picture import draw_scene, render
from avrecog.annotations.demo.sound import draw_sound, synthesise
from avrecog.runtime.files import atomic_path

# the same bytes from the same input: no library versions, no dates, one thread
BITEXACT = {"flags": "+bitexact", "threads": "1"}


@dataclass(frozen=True)
class ClipPlan:
    """All that decides one clip's bytes."""

    path: Path
    seed: tuple[int, int, int]  # the demo's seed, the split's number, the clip's number in it
    action: str
    material: str
    duration_s: float
    fps: float
    size: int  # pixels, height and width
    noise: float
    n_distractors: int
    sample_rate: int
    snr_db: tuple[float, float]
    n_clicks: int


def make_clip(plan: ClipPlan) -> tuple[np.ndarray, np.ndarray]:
    """The frames and the waveform of a clip.

    Motion, picture and sound draw from generators of their own: plans that differ in the material alone show the same
    picture.

    Returns: (T, H, W, 3) uint8 and (S,) float32 in (-1, 1).
    """
    for_motion, for_picture, for_sound = np.random.default_rng(plan.seed).spawn(3)
    n_frames, n_samples = round(plan.duration_s * plan.fps), round(plan.duration_s * plan.sample_rate)
    motion = draw_motion(for_motion, plan.action, plan.duration_s)
    scene = draw_scene(for_picture, n_frames, plan.size, plan.noise, plan.n_distractors)
    sound = draw_sound(
        for_sound,
        plan.action,
        plan.material,
        n_samples,
        plan.sample_rate,
        snr_db=plan.snr_db,
        n_clicks=plan.n_clicks,
    )
    return render(scene, motion, np.arange(n_frames) / plan.fps), synthesise(sound, motion, plan.sample_rate)


def write_clip(plan: ClipPlan) -> None:
    """Make a clip and write its file, whole or not at all."""
    frames, waveform = make_clip(plan)
    with atomic_path(plan.path) as temporary:
        _encode(temporary, frames, waveform, plan.fps, plan.sample_rate)


def _encode(path: Path, frames: np.ndarray, waveform: np.ndarray, fps: float, sample_rate: int) -> None:
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1001),
            options={**BITEXACT, "preset": "ultrafast", "crf": "26", "g": "25"},
        )
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=sample_rate, layout="mono", options=BITEXACT)
        audio.bit_rate = 64_000
        for index, pixels in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = index
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = sample_rate, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
