"""`avrecog convert`: other programs' checkpoints to ours, ours to MMAction2's."""

from collections.abc import Mapping
from pathlib import Path

from avrecog.config import plain
from avrecog.datasets.mmaction2_sampling import Rule
from avrecog.errors import CheckpointError
from avrecog.features.front_end import FrontEnd
from avrecog.inference.trained_model import load_model
from avrecog.inputs import LogMelInput
from avrecog.interop.checkpoints import STAND_INS, ImportedModel, read_external_checkpoint
from avrecog.interop.mmaction2_checkpoints import abbreviate, write_mmaction2
from avrecog.interop.pyslowfast import is_caffe2
from avrecog.manifest import read_labels
from avrecog.models.checkpoint import FORMAT, load_plain, save_checkpoint
from avrecog.models.registry import read_section

TYPICAL_S = 10  # a clip of Kinetics lasts 10 s


def convert_checkpoint(
    source: Path,
    target: Path,
    *,
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
    foreign = read_external_checkpoint(source, frames, alpha)
    classes = _classes(foreign, labels)
    found = foreign.recognised
    config, note = found.config, found.note
    if isinstance(config.input(), LogMelInput):
        config = read_section({**plain(config), "sampling": sampling or "time"}, "config")
        note += f"; crops lie by {sampling or 'time'}"
    lines = [note]
    if labels is None and foreign.classes is None:
        lines.append("its classes have no names but their numbers; --labels FILE gives them")
    if foreign.unused:
        lines.append(f"not used: {abbreviate(foreign.unused)}")
    checkpoint = {
        "model": found.name,
        "config": plain(config),
        "classes": classes,
        "front_end": {"audio": plain(found.front_end.audio), "video": plain(found.front_end.video)},
        "typical_rows": _typical_rows(found.front_end),
        "weights": foreign.network.state_dict(),
        "epoch": foreign.epoch,
        "metrics": {},
    }
    save_checkpoint(target, checkpoint)
    what = f"{source} ({found.origin}, {config.describe()}, {len(classes)} classes) -> {target} (model {found.name})"
    return "\n  ".join((what, *lines))


def _typical_rows(front_end: FrontEnd) -> int:
    """Store rows of a clip of `TYPICAL_S`: pictures, or where there are none mel frames."""
    if front_end.video is not None:
        return round(TYPICAL_S * front_end.video.fps)
    assert front_end.audio is not None
    return 1 + round(TYPICAL_S * front_end.audio.logmel.frames_per_s)


def _is_ours(path: Path) -> bool:
    if is_caffe2(path):
        return False
    content = load_plain(path, "fetch it again", STAND_INS, before_zip=True)
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def _classes(foreign: ImportedModel, labels: Path | None) -> list[str]:
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
