"""Checkpoints of MMAction2, both generations: names of tensors, and which network they are of."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from avrecog.errors import CheckpointError
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import FRONT_ENDS, AudioConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.inference.trained_model import TrainedModel
from avrecog.interop.pyslowfast_names import reference_name
from avrecog.interop.recognised import Recognised
from avrecog.models import audio_resnet, resnet_audio
from avrecog.models.audio import AudioModelConfig
from avrecog.models.checkpoint import differences, save_plain
from avrecog.models.tsn import TsnConfig

RGB_DEPTHS = (18, 34, 50, 101)
VIDEO = VideoConfig(fps=10.0, height=256, width=256)

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


def recognise(state: Mapping[str, Tensor], path: Path) -> Recognised:
    """The network that tensors with MMAction2's, torchvision's or timm's names are of.

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
            f"{path}: no network that avrecog knows; expected one of {', '.join(stems)}, got {abbreviate(list(state))}"
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
            resnet_audio_config = AudioModelConfig(depth=audio_depths[0], width=width, backbone="resnetaudio")
            return _on_log_mel(origin, resnet_audio_config, n_classes)
    depths = [
        depth
        for depth, (block, blocks) in audio_resnet.DEPTHS.items()
        if blocks == n_blocks and (block is audio_resnet.Bottleneck) == bottleneck
    ]
    if "conv_1" not in stem and depths and in_channels == 1:
        return _on_log_mel(origin, AudioModelConfig(depth=depths[0], width=width), n_classes)
    if "conv_1" not in stem and in_channels == 3 and depths and depths[0] in RGB_DEPTHS:
        tsn = TsnConfig(backbone=f"resnet{depths[0]}", n_segments=25, crop_height=224, crop_width=224)
        note = (
            f"it sees the middle {tsn.crop_height} x {tsn.crop_width} of {tsn.n_segments} frames of "
            f"{VIDEO.height} x {VIDEO.width} (MMAction2's test: three crops of 256 x 256)"
        )
        return Recognised(origin, "rgb", tsn, n_classes, FrontEnd(None, VIDEO), note, in_mmaction2=True)
    raise CheckpointError(
        f"{path}: no network that avrecog knows: {in_channels} input channels, stages of "
        f"{', '.join(map(str, n_blocks))} {'bottleneck' if bottleneck else 'basic'} blocks; expected a ResNet of "
        f"1 channel (10, 18, 34, 50, 101) or 3 ({', '.join(map(str, RGB_DEPTHS))}), or ResNetAudio (50, 101, 152)"
    )


def _on_log_mel(origin: str, config: AudioModelConfig, n_classes: int) -> Recognised:
    front_end = FrontEnd(AudioConfig(FRONT_ENDS["mmaction2"]), None)
    in_mmaction2 = config.depth in (*RGB_DEPTHS, *resnet_audio.DEPTHS)
    note = "it hears log-mel of audio.logmel: mmaction2"
    return Recognised(origin, "audio", config, n_classes, front_end, note, in_mmaction2)


def external_names(network: nn.Module, origin: str) -> dict[str, str]:
    """Our name of each tensor -> its name there, in their order; the standardisation, which is ours alone, has none."""
    names = {}
    patterns = RESNET_AUDIO_NAMES if type(network) is resnet_audio.ResNetAudio else RESNET_NAMES
    for key in network.state_dict():
        if "standardise." in key:
            continue
        if origin == "slowfast":
            names[key] = reference_name(key, audiovisual="audio_to_visual" in dict(network.named_children()))
            continue
        name = key.removeprefix("backbone.")
        if origin == "mmaction2":
            if name.startswith("fc."):
                name = "cls_head.fc_cls." + name.removeprefix("fc.")
            else:
                for pattern, theirs in patterns:
                    name = re.sub(pattern, theirs, name)
                name = "backbone." + name
        names[key] = name
    return names


def write_mmaction2(model: TrainedModel, source: Path, target: Path) -> str:
    """Write our model under MMAction2's names.

    Raises:
        CheckpointError: if MMAction2 has no such network.
    """
    names, weights = external_names(model.network, "mmaction2"), model.network.state_dict()
    theirs = {name: weights[key] for key, name in names.items()}
    described = model.config.describe()
    if not _is_in_mmaction2(model, theirs, source):
        raise CheckpointError(f"{source}: MMAction2 has no network like {described}; nothing is written")
    meta = {"epoch": model.epoch, "CLASSES": model.classes, "dataset_meta": {"classes": model.classes}}
    save_plain(target, {"meta": meta, "state_dict": theirs})
    lines = [f"{source} ({described}, {len(model.classes)} classes) -> {target} (MMAction2)"]
    mean, std = weights["standardise.mean"], weights["standardise.std"]
    if "audio" in model.input.modalities and (float(mean), float(std)) != (0.0, 1.0):
        lines.append(
            f"MMAction2's networks have no standardisation: it must be given (x - {float(mean):.9g}) / "
            f"{float(std):.9g} in place of features x"
        )
    return "\n  ".join(lines)


def _is_in_mmaction2(model: TrainedModel, theirs: Mapping[str, Tensor], source: Path) -> bool:
    """Whether the tensors, under MMAction2's names, are those of a network that MMAction2 has, and the same one."""
    try:
        recognised = recognise(theirs, source)
    except CheckpointError:
        return False
    with torch.device("meta"):
        network = recognised.config.build(recognised.n_classes)
    shapes = {name: network.state_dict()[key] for key, name in external_names(network, "mmaction2").items()}
    same_views = model.input.modalities == recognised.config.input().modalities
    return recognised.in_mmaction2 and same_views and not differences(shapes, theirs)


def abbreviate(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
