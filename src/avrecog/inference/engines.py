"""What runs a trained network: PyTorch, compiled or not, or ONNX Runtime, in 8 bits or not; networks as ONNX models."""

import abc
import hashlib
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from avrecog.errors import ConfigError
from avrecog.inference.export_cache import Kept, keep_export, read_export
from avrecog.inference.onnx_network import OnnxNetwork, explained, position
from avrecog.inference.settings import EngineName
from avrecog.inference.trained_model import TrainedModel
from avrecog.models.folding import fold_batch_norms
from avrecog.models.onnx_export import as_bytes, to_onnx
from avrecog.runtime.device import lacking_to_compile, on_device

if TYPE_CHECKING:
    import onnx

Network = Callable[..., Tensor]  # batches of views -> (B, K) logits
Calibration = Sequence[tuple[Tensor, ...]]

CPU = torch.device("cpu")


class Engine(abc.ABC):
    """What runs a network; one stands in `ENGINES` by the name that `test.engine` gives."""

    name: ClassVar[EngineName]
    own_precision: ClassVar[str | None] = None  # the only one that it computes in; None: any
    needs_calibration: ClassVar[bool] = False  # whether it must see how large values become

    def precision(self, asked: str) -> str:
        """The precision that it computes in where `test.precision` is `asked`.

        Raises:
            ConfigError: if it can't compute in the one that is asked for.
        """
        if self.own_precision is None:
            return asked
        if asked not in ("auto", "32-true"):
            raise ConfigError(f"test.precision: expected auto or 32-true with engine {self.name}, got {asked}")
        return self.own_precision

    @abc.abstractmethod
    def start(self, model: TrainedModel, device: torch.device, calibration: Calibration = ()) -> Network:
        """The model's network, its batch norms folded, ready to take batches of any size on `device`.

        Args:
            model: whose network.
            device: where its batches are.
            calibration: batches that show how large values become; of other clips than are judged.

        Raises:
            ConfigError: if the engine can't run here, or lacks its calibration.
        """


class TorchEngine(Engine):
    """PyTorch as it is."""

    name: ClassVar[EngineName] = "torch"

    def start(self, model: TrainedModel, device: torch.device, calibration: Calibration = ()) -> Network:
        """The folded network."""
        return on_device(fold_batch_norms(model.network, model.example(2, CPU)), device)


class CompiledEngine(TorchEngine):
    """PyTorch, compiled."""

    name = "torch-compiled"

    def start(self, model: TrainedModel, device: torch.device, calibration: Calibration = ()) -> Network:
        """The folded network, which its first batch compiles.

        Raises:
            ConfigError: if there is no compiler here.
        """
        if lacking := lacking_to_compile(device):
            raise ConfigError(f"test.engine: torch-compiled can't run here: {lacking}, or set another engine")
        compiled: Network = torch.compile(super().start(model, device), dynamic=True)
        return compiled


class OnnxEngine(Engine):
    """ONNX Runtime in single precision."""

    name = "onnxruntime"
    own_precision = "32-true"

    def start(self, model: TrainedModel, device: torch.device, calibration: Calibration = ()) -> Network:
        """The exported network."""
        return OnnxNetwork(exported(model).onnx, torch.get_num_threads(), device.type == "cuda")


class Int8Engine(Engine):
    """ONNX Runtime in 8 bits, on the CPU."""

    name = "onnxruntime-int8"
    own_precision = "int8"
    needs_calibration = True

    def start(self, model: TrainedModel, device: torch.device, calibration: Calibration = ()) -> Network:
        """The exported network, quantised by the calibration.

        Raises:
            ConfigError: if there is a GPU, or no calibration.
        """
        if device.type == "cuda":
            raise ConfigError(
                "engine onnxruntime-int8 is for CPUs, and there is a GPU here; set another, or hide the GPU"
            )
        if not calibration:
            raise ConfigError(
                "engine onnxruntime-int8 needs clips to calibrate on, which stage test takes from the training split"
            )
        return OnnxNetwork(_quantised(model, calibration).onnx, torch.get_num_threads(), on_gpu=False)


ENGINES: dict[EngineName, Engine] = {
    engine.name: engine for engine in (TorchEngine(), CompiledEngine(), OnnxEngine(), Int8Engine())
}


def exported(model: TrainedModel) -> Kept:
    """The model's network as an ONNX model: the one that was kept, or a new one, which is kept.

    Raises:
        ConfigError: if the exporter can't follow the network.
    """
    kept = read_export("onnx", model.digest) if model.digest else None
    if kept is None:
        example = model.example(2, CPU)
        onnx_model = to_onnx(fold_batch_norms(model.network, example).cpu(), example)
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
