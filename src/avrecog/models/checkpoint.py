"""Saving and loading checkpoints: tensors and plain values only, so that loading one never runs code."""

import io
import logging
import os
import pickle
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avrecog.errors import CheckpointError
from avrecog.runtime.files import atomic_path

log = logging.getLogger(__name__)

FORMAT = "avrecog checkpoint 1"
KEYS: Mapping[str, type] = {
    "model": str,
    "config": dict,
    "classes": list,
    "front_end": dict,
    "typical_rows": int,
    "weights": dict,
    "epoch": int,
    "metrics": dict,
}
UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OverflowError),
    *(AssertionError, MemoryError, zipfile.BadZipFile, struct.error),
)  # what torch.load raises over files that are no checkpoints


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all; equal contents give equal bytes."""
    save_plain(path, {"format": FORMAT, **checkpoint})


def save_plain(path: Path, content: Mapping[str, Any]) -> None:
    """torch.save, whole or not at all; equal contents give equal bytes."""
    buffer = io.BytesIO()  # torch.save writes the file's name into the file, and ours is a temporary one
    torch.save(dict(content), buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, not ours, or holds anything but tensors and plain values.
    """
    if not os.path.exists(path):  # Path.exists would raise where the folder may not be read
        raise CheckpointError(f"{path}: no such checkpoint; run `dvc repro train`")
    checkpoint = load_plain(path, "train again")
    problem = _problem(checkpoint, path.stat().st_size)
    if problem:
        raise CheckpointError(f"{path}: not a checkpoint of avrecog's: {problem}")
    checkpoint["weights"] = single_precision(checkpoint["weights"], path)
    return checkpoint  # type: ignore[no-any-return]


def load_plain(path: Path, mend: str, stand_ins: Sequence[tuple[Any, str]] = (), before_zip: bool = False) -> Any:
    """What torch.save wrote, on the CPU: tensors and plain values; nothing in it runs.

    Args:
        path: the file.
        mend: what to do about a damaged one.
        stand_ins: (class, name): a class that is made in place of what the file asks for by that name.
        before_zip: read the format of torch before 1.6 too.

    Raises:
        CheckpointError: if the file is missing or damaged, may not be read, or holds anything else.
    """
    try:
        _check_archive(path, mend, before_zip)
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except PermissionError:
        raise CheckpointError(f"{path}: may not be read; give yourself the right to (`chmod u+r`)") from None
    except pickle.UnpicklingError as error:
        what = re.search(r"GLOBAL (\S+)", str(error))
        found = f" ({what.group(1)})" if what else ""
        raise CheckpointError(f"{path}: holds more than tensors and plain values{found}, so it is not loaded") from None
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: is damaged or no checkpoint ({reason}); {mend}") from None


def _check_archive(path: Path, mend: str, before_zip: bool) -> None:
    """torch.save writes a zip of uncompressed entries; anything else would go to other readers, or grow.

    Raises:
        CheckpointError: if it is none.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            if before_zip:
                return
            raise CheckpointError(f"{path}: is damaged or no checkpoint (not a zip file); {mend}")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path}: is damaged or no checkpoint (its entries are compressed); {mend}")


def _problem(checkpoint: Any, n_bytes: int) -> str | None:
    """The first thing that a checkpoint lacks or that is of the wrong kind."""
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        return f"expected format {FORMAT!r}"
    for key, kind in KEYS.items():
        if not isinstance(checkpoint.get(key), kind) or isinstance(checkpoint[key], bool):
            return f"expected {key} as {kind.__name__}, got {type(checkpoint.get(key)).__name__}"
    if not checkpoint["classes"] or not all(isinstance(name, str) for name in checkpoint["classes"]):
        return "expected the names of the classes"
    if not are_weights(checkpoint["weights"]):
        return "expected tensors as weights"
    if n_tensor_bytes(checkpoint["weights"]) > n_bytes:
        return "its weights are larger than the file"  # views that repeat one number
    if not isinstance(checkpoint.get("state", {}), dict):
        return f"expected state as dict, got {type(checkpoint['state']).__name__}"
    return None


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put all weights into a model of the same architecture.

    Raises:
        CheckpointError: naming what is missing, left over or of another shape.
    """
    check_weights(model, weights, where)
    model.load_state_dict(dict(weights))


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes of all weights with a model's, which may be without memory (device `meta`).

    Raises:
        CheckpointError: naming what is missing, left over or of another shape or type.
    """
    problems = differences(model.state_dict(), weights)
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise CheckpointError(f"{where}: is of another model: {len(problems)} differences, e.g. {shown}")


def differences(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """In words, each tensor of `weights` that is missing, left over, or of another shape or type than in `own`."""
    problems = [f"{key} is missing" for key in own.keys() - weights.keys()]
    problems += [f"{key} is left over" for key in weights.keys() - own.keys()]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if weights[key].shape != own[key].shape
    ]
    problems += [
        f"{key} holds {weights[key].dtype}, expected {own[key].dtype}"
        for key in own.keys() & weights.keys()
        if weights[key].dtype != own[key].dtype
    ]
    return problems


def single_precision(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights of a file in float32, in which all networks here are; one line says which were not.

    Whole numbers stay, and the counters of batch norms become whole numbers again where they were cast with the rest.
    """
    result = dict(weights)
    kinds: Counter[str] = Counter()
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        if name.endswith("num_batches_tracked") and bool(value.isfinite().all()):
            result[name] = value.long()
        elif value.dtype != torch.float32:
            result[name] = value.float()
        else:
            continue
        kinds[str(value.dtype).removeprefix("torch.")] += 1
    if kinds:
        shown = ", ".join(f"{n} of {kind}" for kind, n in kinds.items())
        log.info("%s: %s of its %d tensors are cast to float32", path, shown, len(weights))
    return result


def are_weights(content: Any) -> bool:
    """Whether it is names and plain tensors: not sparse or quantised, and not shapes without values."""
    return isinstance(content, Mapping) and all(
        isinstance(key, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        for key, value in content.items()
    )


def n_tensor_bytes(weights: Mapping[str, Tensor]) -> int:
    """How large the tensors would be without the views that repeat one number."""
    return sum(value.numel() * value.element_size() for value in weights.values())


def transfer_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> list[str]:
    """Put the weights that fit into a model and give the names of its parameters that stay as they were.

    A classifier of another number of classes is what usually stays.

    Raises:
        CheckpointError: if fewer than half of the model's tensors are found.
    """
    own = model.state_dict()
    fitting = {
        key: value
        for key, value in weights.items()
        if key in own and (own[key].shape, own[key].dtype) == (value.shape, value.dtype)
    }
    if 2 * len(fitting) < len(own):
        raise CheckpointError(
            f"{where}: only {len(fitting)} of the model's {len(own)} tensors are in it; expected a checkpoint of the "
            f"same architecture, depth and width"
        )
    model.load_state_dict({**own, **fitting})
    return [key for key in own if key not in fitting]
