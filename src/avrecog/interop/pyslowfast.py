"""What PySlowFast (facebookresearch/SlowFast) and Caffe2 wrote before it: their files, and the networks in them."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from avrecog.errors import CheckpointError, ConfigError, PickleError
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import FRONT_ENDS, AudioConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.interop.pyslowfast_names import name_from_caffe2
from avrecog.interop.recognised import Recognised
from avrecog.interop.safe_pickle import TORCH_MAGIC, read_pickle
from avrecog.models.avslowfast import AVSlowFastConfig
from avrecog.models.slowfast import DEPTHS, LONG_RES4_BLOCKS, PLACES, PathwaysConfig, SlowFastConfig

VIDEO = VideoConfig(fps=15.0, height=256, width=340)  # every second frame of 30 a second, as published
STEM = "s1.pathway0_stem.conv.weight"


def is_caffe2(path: Path) -> bool:
    """Whether the file is a pickle that torch did not write."""
    try:
        with path.open("rb") as file:
            begin = file.read(14)
    except OSError:
        return False  # reported by who reads it
    torchs = pickle.dumps(TORCH_MAGIC, protocol=2)
    return begin[:1] == b"\x80" and begin[: len(torchs) - 1] != torchs[:-1]


def read_caffe2(path: Path) -> dict[str, Any]:
    """The weights of a Caffe2 file under the names of PySlowFast, beside the names of what is none.

    Raises:
        CheckpointError: if the file holds no arrays by name.
    """
    try:
        content = read_pickle(path)
    except PickleError as error:
        raise CheckpointError(f"{error}") from None
    blobs = content.get("blobs") if isinstance(content, dict) else None
    if not isinstance(blobs, dict):
        raise CheckpointError(f"{path}: expected a checkpoint, or a Caffe2 file with its blobs; fetch it again")
    state, others = {}, {}
    for blob, value in blobs.items():
        name = name_from_caffe2(blob)
        if name is None:
            others[blob] = value
        elif isinstance(value, np.ndarray) and value.dtype == np.float32:
            state[name] = torch.from_numpy(np.array(value, dtype=np.float32))
        else:
            raise CheckpointError(f"{path}: expected numbers in float32 as {blob}; fetch it again")
    return {"state_dict": state, **others}


def recognise_slowfast(
    state: Mapping[str, Tensor], content: Mapping[str, Any], path: Path, frames: int | None, alpha: int | None
) -> Recognised:
    """The network that PySlowFast's tensors are of.

    Args:
        state: the tensors.
        content: what else the file holds; its settings may be there.
        path: for the messages.
        frames: of the network; None: as the settings say, else those of the published network with such kernels.
        alpha: likewise.

    Raises:
        CheckpointError: naming what avrecog knows no network for.
    """
    width, n_classes = _shape(state, STEM, 5, path)[0], _shape(state, "head.projection.weight", 2, path)[0]
    found = {match.groups() for key in state if (match := re.match(r"s([2-5])\.pathway0_res(\d{1,3})\.", key))}
    n_blocks = tuple(sum(stage == str(number) for stage, _ in found) for number in range(2, 6))
    depths = [depth for depth, blocks in DEPTHS.items() if blocks == n_blocks]
    places = [place for number, place in enumerate(PLACES, 1) if f"s{number}_fuse.conv_f2s.weight" in state]
    if not depths or "s1.pathway1_stem.conv.weight" not in state or not places:
        raise CheckpointError(
            f"{path}: no SlowFast that avrecog knows: stages of {', '.join(map(str, n_blocks))} blocks; expected Slow "
            f"and Fast pathways of depth {', '.join(map(str, DEPTHS))}"
        )
    number = PLACES.index(places[0]) + 1
    kernel = _shape(state, f"s{number}_fuse.conv_f2s.weight", 5, path)[2]
    kernels = [_shape(state, f"s4.pathway0_res{block}.branch2.a.weight", 5, path)[2] for block in range(n_blocks[2])]
    long_res4 = sum(kernel > 1 for kernel in kernels)
    told_frames, told_alpha = _stated_frames(content)
    guess = _guessed(depths[0], kernel)
    parts: dict[str, Any] = {
        "depth": depths[0],
        "width": width,
        "frames": frames or told_frames or guess[0],
        "alpha": alpha or told_alpha or guess[1],
        "lateral_kernel": kernel,
        "long_res4": LONG_RES4_BLOCKS if long_res4 == n_blocks[2] <= LONG_RES4_BLOCKS else long_res4,
        "n_crops": 3,
        "crop_height": 256,
        "crop_width": 256,
    }
    problem = f"{path}: no SlowFast that avrecog knows"
    try:
        if "s1.pathway2_stem.conv_t.weight" in state:
            synchronised = float("s5_fuse.conv_a2fs_0.weight" in state)
            config = AVSlowFastConfig(**parts, lateral_after=places, sync_weight=synchronised)
            audio = AudioConfig(FRONT_ENDS["slowfast"])
            return Recognised("slowfast", config.architecture, config, n_classes, FrontEnd(audio, VIDEO), _note(config))
        if tuple(places) != PLACES:
            raise CheckpointError(
                f"{problem}: expected Fast to Slow after {', '.join(PLACES)}, got {', '.join(places)}"
            )
        slowfast = SlowFastConfig(**parts)
        return Recognised("slowfast", "slowfast", slowfast, n_classes, FrontEnd(None, VIDEO), _note(slowfast))
    except (ConfigError, ValidationError) as error:
        raise CheckpointError(f"{problem}: {error}") from None


def _shape(state: Mapping[str, Tensor], key: str, n_axes: int, path: Path) -> torch.Size:
    """The shape of a tensor.

    Raises:
        CheckpointError: if it isn't there, is empty or has another number of axes.
    """
    if key not in state or state[key].ndim != n_axes or not state[key].numel():
        raise CheckpointError(f"{path}: expected {key}, of {n_axes} axes; fetch it again")
    return state[key].shape


def _note(config: PathwaysConfig) -> str:
    return (
        f"it sees {config.frames} frames at {VIDEO.fps:g} a second, Slow every {config.alpha}th, of which its weights "
        f"say nothing; three crops of {config.crop_height} x {config.crop_width}"
    )


def _guessed(depth: int, lateral_kernel: int) -> tuple[int, int]:
    """Frames and alpha of the published network with that depth and kernel from Fast to Slow.

    Its weights are the same for any number of frames. 8 x 8 has kernel 7; 16 x 8, the published ResNet-101, and 4 x 16
    have 5.
    """
    if lateral_kernel == 7:
        return 32, 4
    return (64, 4) if depth == 101 else (32, 8)


def _stated_frames(content: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Frames and alpha in the settings that PySlowFast writes into a checkpoint, where they are there."""
    text = content.get("cfg")
    found = []
    for key in ("NUM_FRAMES", "ALPHA"):
        match = re.search(rf"^  {key}: (\d{{1,4}})$", text, re.MULTILINE) if isinstance(text, str) else None
        found.append(int(match.group(1)) if match else None)
    return found[0], found[1]
