"""What runs a trained network: PyTorch, compiled or not, or ONNX Runtime, in 8 bits or not; networks as ONNX models."""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from avrecog.errors import ConfigError
from avrecog.inference.export_cache import Kept, keep_export, read_export
from avrecog.inference.onnx_network import OnnxNetwork, explained, position
from avrecog.inference.settings import Engine
from avrecog.inference.trained_model import TrainedModel
from avrecog.models.folding import folded
from avrecog.models.onnx_export import as_bytes, to_onnx
from avrecog.runtime.device import lacking_to_compile, on_device

if TYPE_CHECKING:
    import onnx

Network = Callable[..., Tensor]  # batches of views -> (B, K) logits

CPU = torch.device("cpu")


def start_engine(
    engine: Engine, model: TrainedModel, device: torch.device, calibration: Sequence[tuple[Tensor, ...]] = ()
) -> Network:
    """The model's network, its batch norms folded, ready to take batches of any size on `device`.

    Args:
        engine: what is to run it.
        model: whose network.
        device: where its batches are.
        calibration: batches that show `onnxruntime-int8` how large values become; of other clips than are judged.

    Raises:
        ConfigError: if the engine can't run here, or lacks its calibration.
    """
    if engine == "onnxruntime":
        return OnnxNetwork(exported(model).onnx, torch.get_num_threads(), device.type == "cuda")
    if engine == "onnxruntime-int8":
        if device.type == "cuda":
            raise ConfigError(
                "engine onnxruntime-int8 is for CPUs, and there is a GPU here; set another, or hide the GPU"
            )
        if not calibration:
            raise ConfigError(
                "engine onnxruntime-int8 needs clips to calibrate on, which stage test takes from the training split"
            )
        return OnnxNetwork(_quantised(model, calibration).onnx, torch.get_num_threads(), on_gpu=False)
    network = on_device(folded(model.network, model.example(2, CPU)), device)
    if engine == "torch":
        return network
    if lacking := lacking_to_compile(device):
        raise ConfigError(f"test.engine: torch-compiled can't run here: {lacking}, or set another engine")
    compiled: Network = torch.compile(network, dynamic=True)
    return compiled


def engine_precision(engine: Engine, precision: str) -> str:
    """The precision that an engine computes in: ONNX Runtime's is that of its model.

    Raises:
        ConfigError: if another is asked of it.
    """
    if engine not in ("onnxruntime", "onnxruntime-int8"):
        return precision
    if precision not in ("auto", "32-true"):
        raise ConfigError(f"test.precision: expected auto or 32-true with engine {engine}, got {precision}")
    return "int8" if engine == "onnxruntime-int8" else "32-true"


def exported(model: TrainedModel) -> Kept:
    """The model's network as an ONNX model: the one that was kept, or a new one, which is kept.

    Raises:
        ConfigError: if the exporter can't follow the network.
    """
    kept = read_export("onnx", model.digest) if model.digest else None
    if kept is None:
        example = model.example(2, CPU)
        onnx_model = to_onnx(folded(model.network, example).cpu(), example)
        kept = _kept(model, onnx_model, "onnx", model.digest)
    return kept


def _quantised(model: TrainedModel, calibration: Sequence[tuple[Tensor, ...]]) -> Kept:
    """Likewise in 8 bits, which hang on the calibration too.

    Raises:
        ConfigError: if ONNX Runtime can't quantise it.
    """
    values = hashlib.sha256()
    for value in (value for batch in calibration for value in batch):
        values.update(repr(tuple(value.shape)).encode() + value.cpu().numpy().tobytes())
    of = ("int8", model.digest, values.hexdigest())
    kept = read_export(*of) if model.digest else None
    if kept is None:
        import onnx

        kept = _kept(model, _in_eight_bits(onnx.load_model_from_string(exported(model).onnx), calibration), *of)
    return kept


def _kept(model: TrainedModel, onnx_model: "onnx.ModelProto", *of: Any) -> Kept:
    kept = Kept(model.name, model.input, model.front_end, model.classes, as_bytes(onnx_model))
    if model.digest:
        keep_export(kept.onnx, model.description, *of)
    return kept


def _in_eight_bits(model: "onnx.ModelProto", calibration: Sequence[tuple[Tensor, ...]]) -> "onnx.ModelProto":
    """The model with weights and values of 8 bits, by the largest and smallest values that occur in `calibration`.

    Raises:
        ConfigError: if ONNX Runtime can't quantise it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [value.name for value in model.graph.input]

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {name: batch[position(name)].cpu().numpy() for name in names}

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, quantised = (Path(folder, name) for name in ("plain.onnx", "ready.onnx", "int8.onnx"))
        onnx.save_model(model, plain)
        logging.getLogger("onnxruntime.quantization").setLevel(logging.CRITICAL)  # its errors are raised, too
        with explained("quantise"):
            quant_pre_process(plain, ready, skip_symbolic_shape=True)
            quantize_static(
                ready,
                quantised,
                Batches(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return onnx.load_model(quantised)
