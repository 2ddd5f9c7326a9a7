"""A network in ONNX Runtime. PyTorch is not needed, but its tensors are taken."""

import logging
import os
from typing import Any

import numpy as np

from avrecog.workers import n_processors

log = logging.getLogger(__name__)


class OnnxNetwork:
    """A network in ONNX Runtime: inputs `input_0`, `input_1`, … of which it takes those that count."""

    def __init__(self, model: bytes, n_threads: int | None = None, on_gpu: bool | None = None) -> None:
        """Start a session.

        Args:
            model: as `to_onnx` makes it.
            n_threads: to compute on; None: as many as OMP_NUM_THREADS or the machine says.
            on_gpu: whether to compute there; None: where ONNX Runtime can.
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
        self.session = onnxruntime.InferenceSession(model, options, providers)
        self._names = [value.name for value in self.session.get_inputs()]  # of those that count in the end

    def __call__(self, *inputs: Any) -> Any:
        """Logits (B, K): an array of arrays; of tensors a tensor, on their device."""
        if isinstance(inputs[0], np.ndarray):
            (logits,) = self.session.run(None, {name: inputs[position(name)] for name in self._names})
            return logits
        import torch

        (logits,) = self.session.run(None, {name: inputs[position(name)].cpu().numpy() for name in self._names})
        return torch.from_numpy(logits).to(inputs[0].device)


def position(name: str) -> int:
    """Which of the network's inputs is called so."""
    return int(name.removeprefix("input_"))


def _n_threads() -> int:
    """As many as PyTorch would take."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else n_processors()
