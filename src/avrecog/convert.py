"""Checkpoints of MMAction2 (both generations), torchvision, timm and PySlowFast -> ours, and ours -> MMAction2's.

The network is recognised from the names and shapes of its tensors: the one-channel ResNets and ResNetAudio on log-mel,
ResNets on RGB as a temporal segment network, SlowFast and AVSlowFast. Foreign files are loaded as tensors and plain
values only; what MMAction2's training state holds besides (histories, NumPy's numbers) is replaced by a stand-in that
does nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avrecog.checkpoints import (
    FORMAT,
    are_weights,
    differences,
    load_plain,
    n_tensor_bytes,
    save_checkpoint,
    save_plain,
    single_precision,
)
from avrecog.config import plain
from avrecog.datasets.mmaction2_sampling import Rule
from avrecog.errors import CheckpointError
from avrecog.foreign_slowfast import STEM, is_caffe2, read_caffe2, slowfast_config
from avrecog.inference import TrainedModel, load_model
from avrecog.logmel import FRONT_ENDS, AudioConfig
from avrecog.manifests.clip import read_labels
from avrecog.media.settings import VideoConfig
from avrecog.models import audio_resnet, resnet_audio, slowfast
from avrecog.models.build import (
    AudioModelConfig,
    AVSlowFastConfig,
    ModelConfig,
    SlowFastConfig,
    TsnConfig,
    build_model,
    describe,
)
from avrecog.models.slowfast_weights import reference_name

RGB_DEPTHS = (18, 34, 50, 101)
TYPICAL_S = 10  # a clip of Kinetics lasts 10 s
VIDEO = VideoConfig(fps=10.0, height=256, width=256)
SLOWFAST_VIDEO = VideoConfig(fps=15.0, height=256, width=340)  # every second frame of 30 a second, as published


class _StandIn:
    """In place of whatever a file asks for: takes anything, does nothing."""

    def __new__(cls, *_: Any) -> "_StandIn":
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


STAND_INS = [
    (_StandIn, name)
    for name in (
        *("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr"),  # its methods, by name
        *("numpy.ndarray", "numpy.dtype"),
        *(f"numpy.{core}.multiarray.{kind}" for core in ("core", "_core") for kind in ("_reconstruct", "scalar")),
        *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    )
]

# ours -> MMAction2's, below `backbone.`, one after the other
RESNET_NAMES = (
    (r"\bconv(\d)\.", r"conv\1.conv."),
    (r"\bbn(\d)\.", r"conv\1.bn."),
    (r"\bdownsample\.0\.", "downsample.conv."),
    (r"\bdownsample\.1\.", "downsample.bn."),
)
RESNET_AUDIO_NAMES = (
    (r"^stem\.bn\.", "conv1.bn."),
    (r"^stem\.", "conv1.conv."),
    (r"\.conv2\.(?=time|frequency|weight)", ".conv2.conv."),
    (r"\btime\.", "conv_1."),
    (r"\bfrequency\.", "conv_2."),
)


@dataclass(frozen=True)
class Foreign:
    """A network read from another program's checkpoint."""

    origin: str  # mmaction2, torchvision or slowfast
    config: ModelConfig
    network: nn.Module  # evaluation mode, on the CPU
    classes: list[str] | None  # where the file names them
    epoch: int  # 0 where the file doesn't say
    unused: list[str]  # what of the file was not used


def load_mmaction2(path: Path | str) -> nn.Module:
    """The network in a checkpoint of MMAction2 (or a ResNet's of torchvision or timm), in evaluation mode, on the CPU.

    On log-mel it takes (B, 1, T, M) as front end `mmaction2` gives it; on RGB (B, N, 3, H, W) in 0..1, N frames of a
    clip. It gives logits (B, K).

    Raises:
        CheckpointError: if the file is missing, damaged, holds more than tensors and plain values, or its tensors make
            no network that avrecog knows.
    """
    return read_foreign(Path(path)).network


def load_slowfast(path: Path | str, frames: int | None = None, alpha: int | None = None) -> nn.Module:
    """The SlowFast or AVSlowFast in a checkpoint of facebookresearch/SlowFast, in evaluation mode, on the CPU.

    Both their PyTorch files and those of Caffe2 (.pkl). It takes frames (B, T, 3, H, W) in 0..1, AVSlowFast their
    log-mel (B, 1, S, M) as front end `slowfast` gives it beside them, and gives logits (B, K).

    Args:
        path: the checkpoint.
        frames: T; None: as the file's settings say, else its kernels (7: 8 x 8; 5: 4 x 16, or 16 x 8 of R101).
        alpha: Slow sees every so manieth; None: likewise.

    Raises:
        CheckpointError: as `load_mmaction2`, or if the file is of another network.
    """
    foreign = read_foreign(Path(path), frames, alpha)
    if foreign.origin != "slowfast":
        raise CheckpointError(f"{path}: is no SlowFast but {describe(foreign.config)}; use load_mmaction2")
    return foreign.network


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
        return _write_mmaction2(load_model(source), source, target)
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
        lines.append(f"not used: {_listed(foreign.unused)}")
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


def read_foreign(path: Path, frames: int | None = None, alpha: int | None = None) -> Foreign:
    """The network in a checkpoint of MMAction2, torchvision, timm or PySlowFast; `frames` and `alpha` of a SlowFast.

    Raises:
        CheckpointError: if the file is missing, damaged, holds more than tensors and plain values, or its tensors make
            no network that avrecog knows.
    """
    content, state = _content(path)
    config: ModelConfig
    if STEM in state:
        origin, config, n_classes = "slowfast", *slowfast_config(state, content, path, frames, alpha)
    else:
        origin, config, n_classes = _recognised(state, path)
    prefixes = ("backbone.", "cls_head.") if origin == "mmaction2" else ("",)
    given = single_precision({key: value.detach() for key, value in state.items() if key.startswith(prefixes)}, path)
    unused = (
        [str(key) for key in content if content[key] is not state and key != "meta"] if state is not content else []
    )
    unused += [key for key in state if key not in given]
    with torch.device("meta"):  # the shapes alone first
        shapes = build_model(config, n_classes)
    names = foreign_names(shapes, origin)
    own = {names[key]: value for key, value in shapes.state_dict().items() if key in names}
    for key in own.keys() - given.keys():
        if key.endswith(".num_batches_tracked"):  # torch before 0.4.1 did not count them, Caffe2 neither
            given[key] = torch.zeros((), dtype=torch.int64)
    for key in own.keys() & given.keys():
        if given[key].numel() and _without_ones(own[key]) == _without_ones(given[key]):
            given[key] = given[key].reshape(own[key].shape)  # axes of length 1 stand elsewhere in AVSlowFast's audio
    problems = sorted(differences(own, given))
    if problems:
        raise CheckpointError(
            f"{path}: was taken for {describe(config)}, and {len(problems)} of its tensors don't fit, e.g. "
            f"{'; '.join(problems[:5])}"
        )
    network = build_model(config, n_classes)
    network.load_state_dict({**network.state_dict(), **{key: given[names[key]] for key in names}})
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    epoch = meta.get("epoch")
    return Foreign(
        origin, config, network.eval(), _named_classes(meta, n_classes), epoch if type(epoch) is int else 0, unused
    )


def _without_ones(tensor: Tensor) -> list[int]:
    return [length for length in tensor.shape if length != 1]


def _content(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """What a checkpoint holds, and of that the weights.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds no tensors by name.
    """
    content: Any = read_caffe2(path) if is_caffe2(path) else load_plain(path, "fetch it again", STAND_INS, True)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a mapping of tensors, got {type(content).__name__}")
    state = content.get("state_dict", content.get("model_state", content))
    if not are_weights(state):
        raise CheckpointError(f"{path}: expected a mapping of names to tensors; fetch it again")
    if n_tensor_bytes(state) > path.stat().st_size:
        raise CheckpointError(f"{path}: its tensors are larger than the file")
    return content, state


def _recognised(state: Mapping[str, Tensor], path: Path) -> tuple[str, ModelConfig, int]:
    """Whose names they are, the network they are of, and its number of classes.

    Raises:
        CheckpointError: naming what avrecog knows no network for.
    """
    stems = {
        "backbone.conv1.conv.conv_1.conv.weight": ("mmaction2", "cls_head.fc_cls.weight"),
        "backbone.conv1.conv.weight": ("mmaction2", "cls_head.fc_cls.weight"),
        "conv1.weight": ("torchvision", "fc.weight"),
    }
    stem = next((key for key in stems if key in state), None)
    if stem is None:
        raise CheckpointError(
            f"{path}: no network that avrecog knows; expected one of {', '.join(stems)}, got {_listed(list(state))}"
        )
    origin, classifier = stems[stem]
    for key, n_axes in ((stem, 4), (classifier, 2)):
        if key not in state or state[key].ndim != n_axes or not state[key].numel():
            raise CheckpointError(f"{path}: expected {key}, of {n_axes} axes; fetch it again")
    width, in_channels = state[stem].shape[:2]
    n_classes = state[classifier].shape[0]
    found = {match.groups() for key in state if (match := re.match(r"(?:backbone\.)?layer([1-4])\.(\d{1,3})\.", key))}
    n_blocks = tuple(sum(layer == str(number) for layer, _ in found) for number in range(1, 5))
    bottleneck = any(".0.conv3." in key for key in state)
    if "conv_1" in stem:
        audio_depths = [depth for depth, blocks in resnet_audio.DEPTHS.items() if blocks == n_blocks]
        if audio_depths and in_channels == 1:
            config = AudioModelConfig("audio", depth=audio_depths[0], width=width, backbone="resnetaudio")
            return origin, config, n_classes
    depths = [
        depth
        for depth, (block, blocks) in audio_resnet.DEPTHS.items()
        if blocks == n_blocks and (block is audio_resnet.Bottleneck) == bottleneck
    ]
    if "conv_1" not in stem and depths and in_channels == 1:
        return origin, AudioModelConfig("audio", depth=depths[0], width=width), n_classes
    if "conv_1" not in stem and in_channels == 3 and depths and depths[0] in RGB_DEPTHS:
        config_rgb = TsnConfig("tsn", f"resnet{depths[0]}", n_segments=25, crop_height=224, crop_width=224)
        return origin, config_rgb, n_classes
    raise CheckpointError(
        f"{path}: no network that avrecog knows: {in_channels} input channels, stages of "
        f"{', '.join(map(str, n_blocks))} {'bottleneck' if bottleneck else 'basic'} blocks; expected a ResNet of "
        f"1 channel (10, 18, 34, 50, 101) or 3 ({', '.join(map(str, RGB_DEPTHS))}), or ResNetAudio (50, 101, 152)"
    )


def foreign_names(network: nn.Module, origin: str) -> dict[str, str]:
    """Our name of each tensor -> its name there, in their order; the standardisation, which is ours alone, has none."""
    names = {}
    for key in network.state_dict():
        if "standardise." in key:
            continue
        if isinstance(network, slowfast.SlowFast | slowfast.AVSlowFast):
            names[key] = reference_name(key, isinstance(network, slowfast.AVSlowFast))
            continue
        name = key.removeprefix("backbone.")
        if origin == "mmaction2":
            if name.startswith("fc."):
                name = "cls_head.fc_cls." + name.removeprefix("fc.")
            else:
                for pattern, theirs in (
                    RESNET_AUDIO_NAMES if isinstance(network, resnet_audio.ResNetAudio) else RESNET_NAMES
                ):
                    name = re.sub(pattern, theirs, name)
                name = "backbone." + name
        names[key] = name
    return names


def _is_ours(path: Path) -> bool:
    if is_caffe2(path):
        return False
    content = load_plain(path, "fetch it again", STAND_INS, before_zip=True)
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def _write_mmaction2(model: TrainedModel, source: Path, target: Path) -> str:
    """Write our model under MMAction2's names.

    Raises:
        CheckpointError: if MMAction2 has no such network.
    """
    config = model.config
    resnets = [f"resnet{depth}" for depth in RGB_DEPTHS]
    if isinstance(config, AudioModelConfig):
        known = config.backbone in ("resnetaudio", *resnets) or (config.backbone is None and config.depth != 10)
    else:
        known = isinstance(config, TsnConfig) and (
            config.backbone in resnets and (config.width, config.snippet, config.motion) == (None, 1, False)
        )
    if not known:
        raise CheckpointError(f"{source}: MMAction2 has no network like {describe(config)}; nothing is written")
    names, weights = foreign_names(model.network, "mmaction2"), model.network.state_dict()
    meta = {"epoch": model.epoch, "CLASSES": model.classes, "dataset_meta": {"classes": model.classes}}
    save_plain(target, {"meta": meta, "state_dict": {theirs: weights[key] for key, theirs in names.items()}})
    lines = [f"{source} ({describe(config)}, {len(model.classes)} classes) -> {target} (MMAction2)"]
    mean, std = weights["standardise.mean"], weights["standardise.std"]
    if isinstance(config, AudioModelConfig) and (float(mean), float(std)) != (0.0, 1.0):
        lines.append(
            f"MMAction2's networks have no standardisation: it must be given (x - {float(mean):.9g}) / "
            f"{float(std):.9g} in place of features x"
        )
    return "\n  ".join(lines)


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


def _named_classes(meta: Mapping[Any, Any], n_classes: int) -> list[str] | None:
    """The names in a checkpoint of either generation, where they are there and make sense."""
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes") if isinstance(dataset, Mapping) else meta.get("CLASSES")
    if not isinstance(names, list | tuple) or len(names) != n_classes or not all(isinstance(n, str) for n in names):
        return None
    return list(names) if len(set(names)) == n_classes else None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
