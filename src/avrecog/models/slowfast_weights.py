"""Weights of SlowFast and AVSlowFast under the names that facebookresearch/SlowFast gives them."""

import re

_PATHWAYS = {"slow": 0, "fast": 1, "audio": 2}
_PLACES = {"stem": 1, "res2": 2, "res3": 3, "res4": 4, "res5": 5}
_BOTTLENECK = {"conv1": "a", "bn1": "a_bn", "conv2": "b", "bn2": "b_bn", "conv3": "c", "bn3": "c_bn"}  # of the audio
_AUDIO_TO_VISUAL = {"conv1": "conv_a2fs_0", "bn1": "bn_a2fs_0", "conv2": "conv_a2fs_1", "bn2": "bn_a2fs_1"}


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
