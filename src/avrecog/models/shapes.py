"""Networks without memory: their shapes alone, for what may be false or too large to try with numbers."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """Within the block what is built has shapes and no values; no random number is drawn."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _Undrawn(), torch.no_grad():
        yield


class _Undrawn(TorchFunctionMode):
    """Random weights are not drawn: what has no memory needs none, and PyTorch would load its compiler for it (1 s)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else named["tensor"]
        return func(*args, **named)
