"""Batch norms folded into the convolutions before them: the same scores from fewer operations."""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from avrecog.models.timm_backbone import FAILURES

CLOSE = 1e-4  # by so much, relative to the largest value, folding may move what comes out
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def fold_batch_norms(network: nn.Module, example: Sequence[Tensor]) -> nn.Module:
    """A copy of a network in evaluation mode, each batch norm folded into the convolution or linear layer before it.

    Pairs are found by looking on while the network computes: a batch norm that is given the very values that a
    convolution has just put out, which one layer in place of both gives as well. So it doesn't matter how the network
    is written, and what is odd (weights that are standardised as they are used, layers that are used twice) stays.

    Args:
        network: to copy.
        example: its inputs.
    """
    network = network.eval()
    result = copy.deepcopy(network)
    with torch.inference_mode(False), torch.no_grad():
        device = next(result.parameters()).device
        inputs = [value.to(device, copy=True) for value in example]  # inference tensors can't be used here
        watched = _Watched(result)
        expected = result(*inputs)
        pairs = watched.ended()
        together = copy.deepcopy(result)
        for pair in pairs:
            _fold(together, *pair)
        if _are_close(together, inputs, expected):
            return together
        for pair in pairs:  # something else sees what one of the convolutions puts out: which one, each alone will tell
            before = [(name, result.get_submodule(name)) for name in pair]
            _fold(result, *pair)
            if not _are_close(result, inputs, expected):
                for name, module in before:
                    _put(result, name, module)
    return result


def _fold(network: nn.Module, layer_name: str, norm_name: str) -> None:
    layer, norm = network.get_submodule(layer_name), network.get_submodule(norm_name)
    _put(network, layer_name, _fused(layer, norm))
    _put(network, norm_name, _rest(norm))


def _are_close(network: nn.Module, inputs: Sequence[Tensor], expected: Tensor | tuple[Tensor, ...]) -> bool:
    try:
        found = network(*inputs)
    except FAILURES:
        return False  # it reads a layer that is no longer there
    outputs = [(found, expected)] if isinstance(expected, Tensor) else list(zip(found, expected, strict=True))
    return all(_is_close(a, b) for a, b in outputs)


def _is_close(found: Tensor, expected: Tensor) -> bool:
    """Whether all values are there and near; not if one is no finite number."""
    return found.shape == expected.shape and bool(((found - expected).abs() <= CLOSE * expected.abs().max()).all())


@dataclass(frozen=True)
class _Call:
    """What a layer was given and gave."""

    name: str
    layer: nn.Module
    inputs: Tensor
    output: Tensor
    version: int  # PyTorch's count of the changes in place, as the layer gave it

    def gave(self, values: Tensor) -> bool:
        """Whether these are the layer's very values, which nothing has worked on, even if it changed none."""
        same = (values.data_ptr(), values.numel()) == (self.output.data_ptr(), self.output.numel())
        return same and self.output._version == self.version


class _Watched:
    """Hooks on the layers of a network, which note what could be folded."""

    def __init__(self, network: nn.Module) -> None:
        self._n_calls: Counter[str] = Counter()
        self._pairs: list[tuple[str, str]] = []
        self._last: _Call | None = None  # the latest layer's
        self._hooks = []
        names: dict[nn.Module, str] = {}
        for name, module in network.named_modules(remove_duplicate=False):
            if module in names:
                self._n_calls[names[module]] += 1  # it stands in two places: as if it were used twice
            elif isinstance(module, (*CONVOLUTIONS, nn.Linear, _BatchNorm)):
                names[module] = name
                self._hooks.append(module.register_forward_hook(self._looking(name)))

    def ended(self) -> list[tuple[str, str]]:
        """Take the hooks off; the names of (convolution, batch norm) that can be folded."""
        for hook in self._hooks:
            hook.remove()
        return [pair for pair in self._pairs if all(self._n_calls[name] == 1 for name in pair)]

    def _looking(self, name: str) -> Any:
        def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._n_calls[name] += 1
            if not isinstance(module, _BatchNorm):
                is_plain = len(inputs) == 1 and isinstance(output, Tensor)
                self._last = _Call(name, module, inputs[0], output, output._version) if is_plain else None
                return
            last, self._last = self._last, None
            if last is not None and last.gave(inputs[0]) and _can_fold(last.layer, module, last.inputs, output):
                self._pairs.append((last.name, name))

        return look


def _can_fold(layer: nn.Module, norm: nn.Module, inputs: Tensor, expected: Tensor) -> bool:
    """Whether the two as one, and what else the batch norm does, give what they give one after the other."""
    rest = _rest(norm)
    if rest is None or getattr(norm, "running_var", None) is None:
        return False
    try:
        return _is_close(rest(_fused(layer, norm)(inputs).reshape(expected.shape)), expected)
    except FAILURES:
        return False


def _fused(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """One layer that does what both do."""
    fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    result: nn.Module = fuse(layer, norm)
    result._forward_hooks.clear()  # it is a copy of a layer that is looked at
    return result


def _rest(norm: nn.Module) -> nn.Module | None:
    """What a batch norm does besides; None: nobody knows."""
    if type(norm) in BATCH_NORMS:
        return nn.Identity()
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)  # of timm's, with an activation inside
    return nn.Sequential(drop, act) if isinstance(drop, nn.Module) and isinstance(act, nn.Module) else None


def _put(network: nn.Module, name: str, module: nn.Module | None) -> None:
    parent, _, own = name.rpartition(".")
    assert module is not None
    setattr(network.get_submodule(parent), own, module)
