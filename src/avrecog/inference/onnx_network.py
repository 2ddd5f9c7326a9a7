"""A network in ONNX Runtime. PyTorch is not needed, but its tensors are taken."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from avrecog.errors import ConfigError, OutOfMemoryError
from avrecog.runtime.worker_pool import n_processors

log = logging.getLogger(__name__)


class OnnxNetwork:
    """A network in ONNX Runtime: inputs `input_0`, `input_1`, … of which it takes those that count."""

    def __init__(self, model: bytes, n_threads: int | None = None, on_gpu: bool | None = None) -> None:
        """Start a session.

        Args:
            model: as `to_onnx` makes it.
            n_threads: to compute on; None: as many as OMP_NUM_THREADS or the machine says.
            on_gpu: whether to compute there; None: where ONNX Runtime can.

        Raises:
            ConfigError: if ONNX Runtime can't load the model.
            OutOfMemoryError: if memory is lacking.
        """
        import onnxruntime  # late: most commands need none of it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads or _n_threads()
        options.log_severity_level = 3  # errors
        available = onnxruntime.get_available_providers()
        if on_gpu and "CUDAExecutionProvider" not in available:
            log.warning(
                "engine onnxruntime: runs on the CPU, since its package is without CUDA: onnxruntime-gpu has it"
            )
        wanted = ["CUDAExecutionProvider"] if on_gpu or on_gpu is None else []
        providers = [name for name in (*wanted, "CPUExecutionProvider") if name in available]
        with explained("load"):
            self.session = onnxruntime.InferenceSession(model, options, providers)
        self._names = [value.name for value in self.session.get_inputs()]  # of those that count in the end

    def __call__(self, *inputs: Any) -> Any:
        """Logits (B, K): an array of arrays; of tensors a tensor, on their device.

        Raises:
            ConfigError: if ONNX Runtime can't compute them.
            OutOfMemoryError: if memory is lacking.
        """
        if isinstance(inputs[0], np.ndarray):
            return self._run({name: inputs[position(name)] for name in self._names})
        import torch

        logits = self._run({name: inputs[position(name)].cpu().numpy() for name in self._names})
        return torch.from_numpy(logits).to(inputs[0].device)

    def _run(self, inputs: dict[str, np.ndarray]) -> Any:
        with explained("run"):
            outputs = self.session.run(None, inputs)
        (logits,) = outputs
        return logits


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Within the block ONNX Runtime's errors, which have no ancestor in common, become ours.

    Raises:
        ConfigError: if it can't do `what` it shall.
        OutOfMemoryError: if memory is lacking.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    failures: tuple[type[Exception], ...] = tuple(
        kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)
    )
    failures += (RuntimeError, ValueError, MemoryError)
    try:
        yield
    except failures as error:
        said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        if isinstance(error, MemoryError) or "allocate memory" in said or "bad_alloc" in said:
            raise OutOfMemoryError(f"out of memory in ONNX Runtime ({said}); free some, or use engine torch") from None
        raise ConfigError(f"ONNX Runtime can't {what} this network: {said}; use engine torch") from None


def position(name: str) -> int:
    """Which of the network's inputs is called so."""
    return int(name.removeprefix("input_"))


def _n_threads() -> int:
    """As many as PyTorch would take."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else n_processors()
