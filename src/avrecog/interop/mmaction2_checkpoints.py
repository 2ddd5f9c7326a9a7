"""Checkpoints of MMAction2, both generations: names of tensors, and which network they are of."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from avrecog.errors import CheckpointError
from avrecog.inference.trained_model import TrainedModel
from avrecog.interop.pyslowfast_names import reference_name
from avrecog.models import audio_resnet, resnet_audio
from avrecog.models.avslowfast import AVSlowFast
from avrecog.models.checkpoint import save_plain
from avrecog.models.settings import AudioModelConfig, ModelConfig, TsnConfig, describe
from avrecog.models.slowfast import SlowFast

RGB_DEPTHS = (18, 34, 50, 101)

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


def recognise(state: Mapping[str, Tensor], path: Path) -> tuple[str, ModelConfig, int]:
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
        if isinstance(network, SlowFast | AVSlowFast):
            names[key] = reference_name(key, isinstance(network, AVSlowFast))
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


def write_mmaction2(model: TrainedModel, source: Path, target: Path) -> str:
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


def abbreviate(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
