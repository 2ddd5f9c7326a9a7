"""Checkpoints of MMAction2 (both generations), torchvision, timm and PySlowFast -> ours, and ours -> MMAction2's.

The network is recognised from the names and shapes of its tensors: the one-channel ResNets and ResNetAudio on log-mel,
ResNets on RGB as a temporal segment network, SlowFast and AVSlowFast. Foreign files are loaded as tensors and plain
values only; what MMAction2's training state holds besides (histories, NumPy's numbers) is replaced by a stand-in that
does nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avrecog.errors import CheckpointError
from avrecog.interop.mmaction2_checkpoints import external_names, recognise
from avrecog.interop.pyslowfast import STEM, is_caffe2, read_caffe2, recognise_slowfast
from avrecog.interop.recognised import Recognised
from avrecog.models.checkpoint import are_weights, differences, load_plain, n_tensor_bytes, single_precision
from avrecog.models.registry import build_model


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


@dataclass(frozen=True)
class ImportedModel:
    """A network read from another program's checkpoint."""

    recognised: Recognised
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
    return read_external_checkpoint(Path(path)).network


def load_slowfast(path: Path | str, frames: int | None = None, alpha: int | None = None) -> nn.Module:
    """The SlowFast or AVSlowFast in a checkpoint of facebookresearch/SlowFast, in evaluation mode, on the CPU.

    Both their PyTorch files and those of Caffe2 (.pkl). It takes frames (B, T, 3, H, W) in 0..1, AVSlowFast their
    log-mel (B, 1, S, M) as front end `slowfast` gives it beside them, and gives logits (B, K).

    Args:
        path: the checkpoint.
        frames: T; None: as the file's settings say, else its kernels (7: 8 x 8; 5: 4 x 16, or 16 x 8 of R101).
        alpha: Slow sees every alpha-th frame; None: likewise.

    Raises:
        CheckpointError: as `load_mmaction2`, or if the file is of another network.
    """
    foreign = read_external_checkpoint(Path(path), frames, alpha)
    if foreign.recognised.origin != "slowfast":
        raise CheckpointError(f"{path}: is no SlowFast but {foreign.recognised.config.describe()}; use load_mmaction2")
    return foreign.network


def read_external_checkpoint(path: Path, frames: int | None = None, alpha: int | None = None) -> ImportedModel:
    """The network in a checkpoint of MMAction2, torchvision, timm or PySlowFast; `frames` and `alpha` of a SlowFast.

    Raises:
        CheckpointError: if the file is missing, damaged, holds more than tensors and plain values, or its tensors make
            no network that avrecog knows.
    """
    content, state = _content(path)
    recognised = recognise_slowfast(state, content, path, frames, alpha) if STEM in state else recognise(state, path)
    origin, config, n_classes = recognised.origin, recognised.config, recognised.n_classes
    prefixes = ("backbone.", "cls_head.") if origin == "mmaction2" else ("",)
    given = single_precision({key: value.detach() for key, value in state.items() if key.startswith(prefixes)}, path)
    unused = (
        [str(key) for key in content if content[key] is not state and key != "meta"] if state is not content else []
    )
    unused += [key for key in state if key not in given]
    with torch.device("meta"):  # the shapes alone first
        shapes = build_model(config, n_classes)
    names = external_names(shapes, origin)
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
            f"{path}: was taken for {config.describe()}, and {len(problems)} of its tensors don't fit, e.g. "
            f"{'; '.join(problems[:5])}"
        )
    network = build_model(config, n_classes)
    network.load_state_dict({**network.state_dict(), **{key: given[names[key]] for key in names}})
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    epoch = meta.get("epoch")
    return ImportedModel(
        recognised, network.eval(), _named_classes(meta, n_classes), epoch if type(epoch) is int else 0, unused
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


def _named_classes(meta: Mapping[Any, Any], n_classes: int) -> list[str] | None:
    """The names in a checkpoint of either generation, where they are there and make sense."""
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes") if isinstance(dataset, Mapping) else meta.get("CLASSES")
    if not isinstance(names, list | tuple) or len(names) != n_classes or not all(isinstance(n, str) for n in names):
        return None
    return list(names) if len(set(names)) == n_classes else None
