"""The built-in demo clips: real media files of synthetic actions, made from a short recipe.

No download, no licence question. A class is an action on a material: the picture shows the action (picture.py),
the sound carries the material (sound.py), both follow one timeline (motion.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from tqdm import tqdm

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.base import Source
from avrecog.annotations.demo.clip import ClipPlan, write_clip
from avrecog.annotations.settings import DataConfig
from avrecog.config import Count, Fraction, Number, PositiveNumber, WholeNumber, load_params, section
from avrecog.errors import ConfigError
from avrecog.manifest import media_path
from avrecog.runtime.worker_pool import n_processors, worker_pool

SPLITS = ("train", "val", "test")
CLIPS_WORTH_A_PROCESS = 24  # below this, starting another process costs more than it saves


@section
class DemoClipCounts:
    """Part `demo.clips` of the recipe; each a multiple of the number of classes."""

    train: Count
    val: WholeNumber  # with 0, val is cut from train when the splits are made
    test: Count


@section
class DemoPictureConfig:
    """Part `demo.picture` of the recipe."""

    fps: PositiveNumber
    size: Annotated[Count, Field(ge=16)]  # pixels, height and width
    noise: Fraction
    n_distractors: WholeNumber

    def __post_init__(self) -> None:
        if self.size % 2:  # H.264 stores colour at half the size
            raise ConfigError(f"size: expected an even number, got {self.size}")


@section
class DemoSoundConfig:
    """Part `demo.sound` of the recipe."""

    sample_rate: Literal[8000, 16000, 22050, 24000, 32000, 44100, 48000]  # Hz; what AAC can hold
    snr_db: tuple[Number, Number]
    n_clicks: WholeNumber

    def __post_init__(self) -> None:
        if self.snr_db[0] > self.snr_db[1]:
            raise ConfigError(f"snr_db: expected [lowest, highest], got [{self.snr_db[0]:g}, {self.snr_db[1]:g}]")


@section
class DemoConfig:
    """Section `demo` of a demo recipe: which clips to make."""

    seed: WholeNumber
    actions: Annotated[list[Literal["tap", "scrape", "bounce", "roll"]], Field(min_length=1)]
    materials: Annotated[list[Literal["metal", "wood", "glass"]], Field(min_length=1)]
    clips: DemoClipCounts
    duration_s: Annotated[PositiveNumber, Field(ge=1)]  # in less, nothing may happen
    picture: DemoPictureConfig
    sound: DemoSoundConfig

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected each once, got {', '.join(values)}"
            for name, values in (("actions", self.actions), ("materials", self.materials))
            if len(set(values)) != len(values)
        ]
        n_classes = len(self.actions) * len(self.materials)
        for split in SPLITS:
            count = getattr(self.clips, split)
            if count % n_classes:
                problems.append(f"clips.{split}: expected a multiple of the {n_classes} classes, got {count}")
        n_frames = self.duration_s * self.picture.fps
        if abs(n_frames - round(n_frames)) > 1e-6:
            problems.append(f"duration_s: expected whole frames at {self.picture.fps:g} fps, got {n_frames:g}")
        if problems:
            raise ConfigError("\ndemo.".join(problems))  # config.py puts the section before the first line only


class DemoSource(Source):
    """`data.annotation` is the YAML file that says what to make."""

    makes_clips = True

    def read(self, data: DataConfig, out: Path) -> list[AnnotatedClip]:
        """The clips, made in `out`."""
        return read_demo(media_path(data.annotation), out)


def read_demo(annotation: Path, out: Path) -> list[AnnotatedClip]:
    """Make the clips of a demo recipe as files below `out` (`train/tap_metal_0003.mp4`), and say what each one is.

    Args:
        annotation: the recipe, as recipes/demo_clips.yaml.
        out: the folder to write; the rows' paths begin with it as given.

    Raises:
        ConfigError: if the recipe can't be read or is wrong; all problems are listed.
    """
    config: DemoConfig = load_params(annotation, demo=DemoConfig).demo
    rows: list[AnnotatedClip] = []
    plans: list[ClipPlan] = []
    labels = [(action, material) for action in config.actions for material in config.materials]
    for split_index, split in enumerate(SPLITS):
        for index in range(getattr(config.clips, split)):
            action, material = labels[index % len(labels)]
            name = f"{action}_{material}_{index:04d}"
            path = out / split / f"{name}.mp4"
            plans.append(_plan(config, path, (config.seed, split_index, index), action, material))
            rows.append(
                AnnotatedClip(
                    path=str(path),
                    label=f"{action}_{material}",
                    where=f"{annotation}, {split} clip {index}",
                    split=split,
                    clip_id=f"{split}_{name}",
                )
            )
    write_clips(plans, min(n_processors(), -(-len(plans) // CLIPS_WORTH_A_PROCESS)))
    return rows


def write_clips(plans: Sequence[ClipPlan], n_processes: int) -> None:
    """Write the files of all plans, in so many processes; how many changes no byte."""
    for folder in {plan.path.parent for plan in plans}:
        folder.mkdir(parents=True, exist_ok=True)
    with (
        tqdm(total=len(plans), desc="demo clips", unit="clip", disable=None) as progress,
        worker_pool(__name__, n_processes) as pool,
    ):
        for _ in map(write_clip, plans) if pool is None else pool.map(write_clip, plans, chunksize=8):
            progress.update()


def _plan(config: DemoConfig, path: Path, seed: tuple[int, int, int], action: str, material: str) -> ClipPlan:
    return ClipPlan(
        path=path,
        seed=seed,
        action=action,
        material=material,
        duration_s=config.duration_s,
        fps=config.picture.fps,
        size=config.picture.size,
        noise=config.picture.noise,
        n_distractors=config.picture.n_distractors,
        sample_rate=config.sound.sample_rate,
        snr_db=config.sound.snr_db,
        n_clicks=config.sound.n_clicks,
    )
