"""Whole recognisers as ONNX models: the front end and the views inside, names of classes coming out."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from avrecog.errors import ConfigError
from avrecog.features.log_mel import LogMel
from avrecog.features.settings import LogMelConfig
from avrecog.inference.trained_model import TrainedModel
from avrecog.inputs import LogMelInput
from avrecog.models.folding import fold_batch_norms
from avrecog.models.onnx_export import export_onnx

if TYPE_CHECKING:
    import onnx


def of_waveforms(model: TrainedModel) -> "onnx.ModelProto":
    """An audio model that takes `waveform` (clips, samples), all of one length, and gives `probabilities`.

    Raises:
        ConfigError: if its crops don't lie by time, or the exporter can't follow it.
    """
    view = model.input
    assert isinstance(view, LogMelInput)
    assert model.front_end.audio is not None
    if view.sampling != "time":
        raise ConfigError(
            f"sampling {view.sampling} counts video frames, which a waveform has none of; export a model with "
            f"sampling: time"
        )
    front_end = model.front_end.audio.logmel
    network = WaveformNetwork(
        fold_batch_norms(model.network, model.example(2, torch.device("cpu"))), front_end, view.mel_frames
    )
    n_samples = 3 * view.mel_frames * front_end.hop_length
    waveform = torch.rand(2, n_samples, generator=torch.Generator().manual_seed(0)) - 0.5
    axes = {0: torch.export.Dim("clips"), 1: torch.export.Dim("samples", min=front_end.n_fft)}
    return export_onnx(network, [waveform], ["waveform"], ["probabilities"], [axes])


def of_views(model: TrainedModel) -> "onnx.ModelProto":
    """A model that takes views as the network does and gives `probabilities`.

    Raises:
        ConfigError: if the exporter can't follow it.
    """
    example = model.example(2, torch.device("cpu"))
    names = [each.name for each in model.input.tensors(model.front_end)]
    clips = torch.export.Dim("clips")
    return export_onnx(
        _Probabilities(fold_batch_norms(model.network, example)),
        example,
        names,
        ["probabilities"],
        [{0: clips} for _ in example],
    )


class _Probabilities(nn.Module):
    """Probabilities of a network's logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """(B, K)."""
        return self.network(*inputs).softmax(dim=1)


class WaveformNetwork(nn.Module):
    """Waveforms (B, n_samples) -> (B, K) probabilities: the front end, the views that cover a clip, their mean.

    The spectrum is a convolution with windowed cosines and sines, which every ONNX runtime has, in place of an FFT.
    """

    def __init__(self, network: nn.Module, front_end: LogMelConfig, mel_frames: int) -> None:
        super().__init__()
        self.network, self.front_end, self.mel_frames = network, front_end, mel_frames
        exact = LogMel(front_end, torch.float64)
        window: Tensor = exact.spectrum.window
        turns = torch.outer(torch.arange(front_end.n_fft // 2 + 1.0), torch.arange(float(front_end.n_fft)))
        angles = 2 * math.pi / front_end.n_fft * (turns.double() % front_end.n_fft)
        waves = torch.cat([angles.cos(), angles.sin()]) * window
        self.register_buffer("waves", waves[:, None].float())  # (2 F, 1, n_fft)
        self.register_buffer("basis", exact.mel.fb.float())  # (F, M)

    waves: Tensor
    basis: Tensor

    def forward(self, waveform: Tensor) -> Tensor:
        """Probabilities (B, K)."""
        views = self._views(self._log_mel(waveform))  # (B, V, T, M)
        n_views = views.shape[1]
        probabilities = self.network(views.flatten(0, 1)[:, None]).softmax(dim=1)  # (B V, K)
        return probabilities.unflatten(0, (-1, n_views)).mean(dim=1)

    def _log_mel(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, rows, M), as `LogMel` and the store's float16."""
        front_end = self.front_end
        if front_end.rms_level is not None:
            level = waveform.square().mean(dim=-1, keepdim=True).sqrt()
            waveform = waveform * (front_end.rms_level / level.clamp(min=1e-4))
        if front_end.center:
            n_hops = (waveform.shape[-1] + front_end.hop_length - 1) // front_end.hop_length
            fill = n_hops * front_end.hop_length - waveform.shape[-1]
            half = waveform.new_zeros(waveform.shape[0], front_end.n_fft // 2)
            waveform = torch.cat([half, waveform, waveform.new_zeros(waveform.shape[0], fill), half], dim=1)
        parts = nn.functional.conv1d(waveform[:, None], self.waves, stride=front_end.hop_length)  # (B, 2 F, rows)
        spectrum = parts.square().unflatten(1, (2, -1)).sum(dim=1)
        if front_end.power == 1:
            spectrum = spectrum.sqrt()
        mel = spectrum.transpose(1, 2) @ self.basis
        return LogMel.logarithm(mel, front_end).half().float()

    def _views(self, log_mel: Tensor) -> Tensor:
        """(B, rows, M) -> (B, V, T, M): evenly spaced from the first row to the last, as `sampling.view_starts`."""
        window, n_rows = self.mel_frames, log_mel.shape[1]
        before = torch.sym_max(window - n_rows + 1, 0) // 2
        after = torch.sym_max(window - n_rows, 0) - before
        shape = (log_mel.shape[0], log_mel.shape[2])
        silence = self.front_end.silence
        log_mel = torch.cat(
            [
                log_mel.new_full((shape[0], before, shape[1]), silence),
                log_mel,
                log_mel.new_full((shape[0], after, shape[1]), silence),
            ],
            dim=1,
        )
        free = torch.sym_max(n_rows - window, 0)
        n_views = torch.sym_max((n_rows + window - 1) // window, 1)
        steps = torch.arange(n_views, dtype=torch.float64)
        places: Tensor = steps * free / torch.sym_max(n_views - 1, 1)  # type: ignore[assignment]
        rows = places.round().long()[:, None] + torch.arange(window)
        return log_mel[:, rows]


def add_labels(model: "onnx.ModelProto", classes: list[str]) -> None:
    """Give the model two more outputs: `label`, the likeliest class's name, and `classes`, all names."""
    from onnx import TensorProto, helper

    graph = model.graph
    names = helper.make_tensor("class_names", TensorProto.STRING, [len(classes)], [name.encode() for name in classes])
    graph.initializer.append(names)
    graph.node.append(helper.make_node("ArgMax", ["probabilities"], ["likeliest"], axis=1, keepdims=0))
    graph.node.append(helper.make_node("Gather", ["class_names", "likeliest"], ["label"]))
    graph.node.append(helper.make_node("Identity", ["class_names"], ["classes"]))
    clips = graph.output[0].type.tensor_type.shape.dim[0].dim_param or None
    graph.output.append(helper.make_tensor_value_info("label", TensorProto.STRING, [clips]))
    graph.output.append(helper.make_tensor_value_info("classes", TensorProto.STRING, [len(classes)]))
