"""Weights of SlowFast and AVSlowFast under the names that facebookresearch/SlowFast and its Caffe2 files give them."""

import re

_PATHWAYS = {"slow": 0, "fast": 1, "audio": 2}
_PLACES = {"stem": 1, "res2": 2, "res3": 3, "res4": 4, "res5": 5}
_BOTTLENECK = {"conv1": "a", "bn1": "a_bn", "conv2": "b", "bn2": "b_bn", "conv3": "c", "bn3": "c_bn"}  # of the audio
_AUDIO_TO_VISUAL = {"conv1": "conv_a2fs_0", "bn1": "bn_a2fs_0", "conv2": "conv_a2fs_1", "bn2": "bn_a2fs_1"}
_CAFFE2_ENDS = {"w": "weight", "s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
_END = r"(?P<end>w|s|b|rm|riv)"
_CAFFE2_NAMES = (  # a blob's name; the reference's without its ending
    (rf"(?P<fast>t_)?conv1_{_END}", "s1.pathway{p}_stem.conv"),
    (rf"(?P<fast>t_)?res_conv1_bn_{_END}", "s1.pathway{p}_stem.bn"),
    (rf"(?P<fast>t_)?res(?P<s>\d)_(?P<j>\d+)_branch1(?P<bn>_bn)?_{_END}", "s{s}.pathway{p}_res{j}.branch1{bn}"),
    (
        rf"(?P<fast>t_)?res(?P<s>\d)_(?P<j>\d+)_branch2(?P<c>[abc])(?P<bn>_bn)?_{_END}",
        "s{s}.pathway{p}_res{j}.branch2.{c}{bn}",
    ),
    (rf"t_pool1_subsample_{_END}", "s1_fuse.conv_f2s"),
    (rf"t_pool1_subsample_bn_{_END}", "s1_fuse.bn"),
    (rf"t_res(?P<s>\d)_\d+_branch2c_bn_subsample_{_END}", "s{s}_fuse.conv_f2s"),
    (rf"t_res(?P<s>\d)_\d+_branch2c_bn_subsample_bn_{_END}", "s{s}_fuse.bn"),
    (rf"pred_{_END}", "head.projection"),
)


def reference_name(name: str, audiovisual: bool) -> str:
    """The reference's name for a key of our state dict; Fast to Slow's batch norm has another one in AVSlowFast.

    Raises:
        KeyError: for a key that the reference has no counterpart of (the standardisation of the inputs).
    """
    *path, last = name.split(".")
    match path:
        case ["fc"]:
            return f"head.projection.{last}"
        case ["visual", ("slow" | "fast") as pathway, *rest] | ["audio" as pathway, *rest]:
            return _in_pathway(_PATHWAYS[pathway], rest, last)
        case ["visual", "fast_to_slow", place, part]:
            return _fast_to_slow(_PLACES[place], part, last, audiovisual)
        case ["sync_fast_to_slow", part]:
            return _fast_to_slow(5, part, last, audiovisual)
        case ["audio_to_visual", place, part]:
            return f"s{_PLACES[place]}_fuse.{_AUDIO_TO_VISUAL[part]}.{last}"
        case ["sync_audio_to_visual", part]:
            return f"s5_fuse.{_AUDIO_TO_VISUAL[part]}.{last}"
        case ["sync", place, side]:
            layer = {"visual": "ref_fc", "audio": "query_fc"}[side]
            return f"s{_PLACES[place]}_fuse.avs.{layer}.{last}"
    raise KeyError(name)


def _in_pathway(pathway: int, path: list[str], last: str) -> str:
    if path[0] == "stem":
        return f"s1.pathway{pathway}_stem.{path[1]}.{last}"
    stage, block, *part = path
    prefix = f"s{_PLACES[stage]}.pathway{pathway}_res{block}"
    if re.fullmatch("shortcut|downsample", part[0]):
        return f"{prefix}.branch1{'' if part[1] == '0' else '_bn'}.{last}"
    return f"{prefix}.branch2.{_BOTTLENECK.get(part[0], part[0])}.{last}"


def _fast_to_slow(place: int, part: str, last: str, audiovisual: bool) -> str:
    layer = {"conv": "conv_f2s", "bn": "bn_f2s" if audiovisual else "bn"}[part]
    return f"s{place}_fuse.{layer}.{last}"


def name_from_caffe2(name: str) -> str | None:
    """The reference's name for a blob of a Caffe2 file; None for one that is no weight (a momentum, the step)."""
    for pattern, stem in _CAFFE2_NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            parts = match.groupdict(default="")
            return f"{stem.format(p=int(bool(parts.get('fast'))), **parts)}.{_CAFFE2_ENDS[parts['end']]}"
    return None
