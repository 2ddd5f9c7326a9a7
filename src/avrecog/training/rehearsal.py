"""One batch through a copy of a model before its training begins, so that what must fail fails at once."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avrecog.errors import ConfigError, OutOfMemoryError
from avrecog.inference.export_cache import keep_trial, tried_before
from avrecog.inference.onnx_network import OnnxNetwork
from avrecog.models.folding import fold_batch_norms
from avrecog.models.onnx_export import as_bytes, to_onnx
from avrecog.models.timm_backbone import FAILURES, reason
from avrecog.runtime.device import lacks_memory, on_device, oom_advice, reduced_precision

log = logging.getLogger(__name__)

SMALLER = "choose a smaller model or smaller inputs"  # advice where memory is lacking


def rehearse(
    model: nn.Module,
    batch: Sequence[Tensor],
    example: Sequence[Tensor],
    *,
    n_classes: int,
    device: torch.device,
    precision: str,
    what: str,
) -> None:
    """Forward and backward on a training batch, then folding and what a test does, all on a copy of the model.

    Random numbers are left as they were.

    Args:
        model: on the CPU.
        batch: inputs as in training, on the device.
        example: inputs as in a test, of two views.
        n_classes: that the model tells apart.
        device: to train on.
        precision: to train in.
        what: the model, for the message.

    Raises:
        ConfigError: naming the model, the step and the reason.
        FAILURES: as they came, where memory is lacking.
        ValueError: within, and told as a ConfigError.
    """
    step = "forward"
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), oom_advice(SMALLER):
        trial = on_device(copy.deepcopy(model), device)
        try:
            with reduced_precision(device, precision):
                out = trial.train()(*batch)
                parts = out if isinstance(out, tuple) else (out,)  # a model may add a loss of its own
                step = "backward"
                torch.stack([part.float().square().mean() for part in parts]).sum().backward()
            step = "fold"
            with torch.no_grad():
                logits = fold_batch_norms(trial, example)(*(value.to(device) for value in example))
            if logits.shape != (len(example[0]), n_classes):
                raise ValueError(f"expected logits ({len(example[0])}, {n_classes}), got {tuple(logits.shape)}")
        except FAILURES as error:
            if lacks_memory(error):
                raise
            shapes = " and ".join(" x ".join(map(str, value.shape[1:])) for value in batch)
            raise ConfigError(
                f"{what} can't be trained on inputs of {shapes}: {step}: {reason(error)}; choose another backbone, or "
                f"inputs of another size"
            ) from None


def say_missing_engines(name: str, model: nn.Module, example: Sequence[Tensor], section: Any) -> None:
    """Try to export the model and to run it, once for each `section` of it and each version.

    A line names what the model will lack where that fails. Where memory is lacking nobody knows, and a later training
    tries again.

    Args:
        name: the model's.
        model: on the CPU.
        example: inputs as in a test, of two views.
        section: what makes the network what it is, as plain values.
    """
    problem = tried_before("trial", section)
    if problem is None:
        try:
            with torch.random.fork_rng(devices=[]), oom_advice(SMALLER):
                content = as_bytes(to_onnx(fold_batch_norms(copy.deepcopy(model), example), example))
                OnnxNetwork(content, torch.get_num_threads(), on_gpu=False)(*example)
            problem = ""
        except ConfigError as error:
            problem = str(error)
        except OutOfMemoryError as error:
            log.warning("train %s: whether ONNX Runtime can run it was not found out: %s", name, error)
            return
        keep_trial(problem, "trial", section)
    if problem:
        log.warning(
            "train %s: engines onnxruntime and onnxruntime-int8, and `avrecog export`, will be missing: %s",
            name,
            problem,
        )
