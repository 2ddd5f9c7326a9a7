"""`avrecog convert`: other programs' checkpoints to ours, ours to MMAction2's."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from avrecog.config import plain
from avrecog.datasets.mmaction2_sampling import Rule
from avrecog.errors import CheckpointError
from avrecog.features.settings import FRONT_ENDS, AudioConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.inference.trained_model import load_model
from avrecog.interop.checkpoints import STAND_INS, Foreign, read_foreign
from avrecog.interop.mmaction2_checkpoints import abbreviate, write_mmaction2
from avrecog.interop.pyslowfast import is_caffe2
from avrecog.manifest import read_labels
from avrecog.models.checkpoint import FORMAT, load_plain, save_checkpoint
from avrecog.models.settings import AudioModelConfig, AVSlowFastConfig, SlowFastConfig, TsnConfig, describe

TYPICAL_S = 10  # a clip of Kinetics lasts 10 s
VIDEO = VideoConfig(fps=10.0, height=256, width=256)
SLOWFAST_VIDEO = VideoConfig(fps=15.0, height=256, width=340)  # every second frame of 30 a second, as published


def convert_checkpoint(
    source: Path,
    target: Path,
    labels: Path | None = None,
    sampling: Rule | None = None,
    frames: int | None = None,
    alpha: int | None = None,
) -> str:
    """Write another program's checkpoint as ours, or ours as MMAction2's; what was done, in words.

    Args:
        source: the checkpoint; whose it is, its content says.
        target: the file to write.
        labels: the class names, one a line; None: those in the file, else the numbers from 0.
        sampling: where crops of log-mel lie in stage test; None: by time.
        frames: of a SlowFast, as in `load_slowfast`.
        alpha: likewise.

    Raises:
        CheckpointError: if the source can't be read or fits no network, or MMAction2 has no such network.
        ManifestError: if the labels can't be read.
    """
    if target.exists() and target.samefile(source):
        raise CheckpointError(f"{target}: is the source; give another name for what is written")
    if _is_ours(source):
        return write_mmaction2(load_model(source), source, target)
    foreign = read_foreign(source, frames, alpha)
    classes = _classes(foreign, labels)
    config, lines = foreign.config, []
    if isinstance(config, AudioModelConfig):
        config = replace(config, sampling=sampling or "time")
        logmel = FRONT_ENDS["mmaction2"]
        name, front_end = "audio", {"audio": plain(AudioConfig(logmel)), "video": None}
        typical_rows = 1 + round(TYPICAL_S * logmel.frames_per_s)
        lines.append(f"it hears log-mel of audio.logmel: mmaction2; crops lie by {config.sampling}")
    elif isinstance(config, SlowFastConfig):
        name, typical_rows = config.architecture, round(TYPICAL_S * SLOWFAST_VIDEO.fps)
        hears = isinstance(config, AVSlowFastConfig)
        audio = AudioConfig(FRONT_ENDS["slowfast"]) if hears else None
        front_end = {"audio": plain(audio), "video": plain(SLOWFAST_VIDEO)}
        lines.append(
            f"it sees {config.frames} frames at {SLOWFAST_VIDEO.fps:g} a second, Slow every {config.alpha}th, of which "
            f"its weights say nothing; three crops of {config.crop_height} x {config.crop_width}"
        )
    else:
        assert isinstance(config, TsnConfig)
        name, front_end, typical_rows = "rgb", {"audio": None, "video": plain(VIDEO)}, round(TYPICAL_S * VIDEO.fps)
        lines.append(
            f"it sees the middle {config.crop_height} x {config.crop_width} of {config.n_segments} frames of "
            f"{VIDEO.height} x {VIDEO.width} (MMAction2's test: three crops of 256 x 256)"
        )
    if labels is None and foreign.classes is None:
        lines.append("its classes have no names but their numbers; --labels FILE gives them")
    if foreign.unused:
        lines.append(f"not used: {abbreviate(foreign.unused)}")
    checkpoint = {
        "model": name,
        "config": plain(config),
        "classes": classes,
        "front_end": front_end,
        "typical_rows": typical_rows,
        "weights": foreign.network.state_dict(),
        "epoch": foreign.epoch,
        "metrics": {},
    }
    save_checkpoint(target, checkpoint)
    what = f"{source} ({foreign.origin}, {describe(config)}, {len(classes)} classes) -> {target} (model {name})"
    return "\n  ".join((what, *lines))


def _is_ours(path: Path) -> bool:
    if is_caffe2(path):
        return False
    content = load_plain(path, "fetch it again", STAND_INS, before_zip=True)
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def _classes(foreign: Foreign, labels: Path | None) -> list[str]:
    """The names of the classes.

    Raises:
        CheckpointError: if there are more or fewer than the network has.
    """
    n_classes = foreign.network.get_parameter("fc.bias").numel()
    if labels is None:
        return foreign.classes or [str(number) for number in range(n_classes)]
    names = read_labels(labels)
    if len(names) != n_classes:
        raise CheckpointError(f"{labels}: expected {n_classes} class names, one a class, got {len(names)}")
    return names
