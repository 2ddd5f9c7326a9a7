"""Networks as ONNX models."""

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from avrecog.errors import ConfigError, OutOfMemoryError
from avrecog.models.timm_backbone import FAILURES, reason
from avrecog.runtime.device import lacks_memory

if TYPE_CHECKING:
    import onnx

OPSET = 18  # of the ONNX models that are written
TALKATIVE = ("onnxscript", "onnx_ir", "torch.onnx", "torch.export", "torch._dynamo", "torch.fx")  # loggers


def to_onnx(network: nn.Module, example: Sequence[Tensor]) -> "onnx.ModelProto":
    """A network in evaluation mode as an ONNX model: inputs `input_0`, `input_1`, …, output `logits`.

    Args:
        network: on the CPU.
        example: its inputs, two views at least; the first axis of each stays open.

    Raises:
        ConfigError: if the exporter can't follow the network.
    """
    names = [f"input_{index}" for index in range(len(example))]
    dimension = torch.export.Dim("batch")
    return export_onnx(network, example, names, ["logits"], [{0: dimension} for _ in example])


def export_onnx(
    network: nn.Module,
    example: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    open_axes: Sequence[dict[int, Any]],
) -> "onnx.ModelProto":
    """What torch.onnx makes of a network in evaluation mode.

    Raises:
        ConfigError: if it can't follow the network, or closes an axis that was to stay open.
        OutOfMemoryError: if memory is lacking, which says nothing of the network.
    """
    with _silence(), torch.inference_mode(False), torch.no_grad():
        try:
            program = torch.onnx.export(
                network.eval(),
                tuple(value.clone() for value in example),  # inference tensors can't be traced
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=(tuple(open_axes),) if _takes_any(network) else tuple(open_axes),
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
        except (torch.onnx.errors.OnnxExporterError, *FAILURES) as error:
            if lacks_memory(error):
                what = f"out of memory while exporting {type(network).__name__} to ONNX ({_cause(error)})"
                raise OutOfMemoryError(f"{what}; free some, or choose a smaller model") from None
            raise ConfigError(f"{type(network).__name__} can't be exported to ONNX: {_cause(error)}") from None
    for value, axes in zip(model.graph.input, open_axes, strict=True):
        closed = [axis for axis in axes if value.type.tensor_type.shape.dim[axis].HasField("dim_value")]
        if closed:
            raise ConfigError(f"{type(network).__name__} can't be exported to ONNX: its axis {closed[0]} is not open")
    return model


def as_bytes(model: "onnx.ModelProto") -> bytes:
    """The model as a file holds it.

    Raises:
        ConfigError: if it is larger than one may be.
    """
    from google.protobuf.message import EncodeError

    try:
        return model.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ConfigError(f"the network can't be an ONNX file, which holds 2 GB at most: {reason(error)}") from None


def _takes_any(network: nn.Module) -> bool:
    """Whether `forward` has `*inputs`, which the exporter counts as one."""
    kinds = [parameter.kind for parameter in inspect.signature(network.forward).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Within the block the exporter tells nothing of its steps; its errors are raised as ever."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """What went wrong first: the exporter wraps it in pages of advice to its developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(error)
