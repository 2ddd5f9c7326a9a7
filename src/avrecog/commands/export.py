"""Trained models as ONNX files: for an audio model a waveform goes in and the names of classes come out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from avrecog.errors import ConfigError
from avrecog.inference.onnx import add_labels, of_views, of_waveforms
from avrecog.inference.trained_model import load_model
from avrecog.inputs import LogMelInput, check_names_classes
from avrecog.models.onnx_export import as_bytes
from avrecog.runtime.files import atomic_path

if TYPE_CHECKING:
    import onnx


def export_model(checkpoint: Path, target: Path) -> str:
    """Write a trained model as an ONNX file and say what goes in and what comes out.

    Of an audio model the front end and the views are inside: `waveform` (clips, samples) goes in. Of the others a view
    goes in, as the model sees it. Out come `probabilities` (clips, classes), `label` (clips,), the name of the
    likeliest class, and `classes` (classes,), all names. The file says its front end, too.

    Raises:
        ConfigError: if the target is not called .onnx, or the model can't be exported.
        CheckpointError: if the checkpoint can't be read.
    """
    if target.suffix != ".onnx":
        raise ConfigError(f"{target}: expected a name that ends with .onnx")
    model = load_model(checkpoint)
    check_names_classes(model.input, checkpoint)
    onnx_model = of_waveforms(model) if isinstance(model.input, LogMelInput) else of_views(model)
    add_labels(onnx_model, model.classes)
    facts = {
        "model": model.name,
        "architecture": model.config.describe(),
        "classes": json.dumps(model.classes),
        "front_end": json.dumps(model.plain_front_end),
        "epoch": str(model.epoch),
    }
    for key, value in facts.items():
        onnx_model.metadata_props.add(key=key, value=value)
    content = as_bytes(onnx_model)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    inputs = ", ".join(_format_value(value) for value in onnx_model.graph.input)
    rate = (
        f" at {model.front_end.audio.logmel.sample_rate} Hz" if model.front_end.audio and "waveform" in inputs else ""
    )
    return (
        f"{target} ({len(content) / 1e6:.1f} MB): {model.config.describe()}, {len(model.classes)} classes\n"
        f"  in:  {inputs}{rate}\n  out: {', '.join(_format_value(value) for value in onnx_model.graph.output)}"
    )


def _format_value(value: "onnx.ValueInfoProto") -> str:
    axes = [axis.dim_param or str(axis.dim_value) for axis in value.type.tensor_type.shape.dim]
    return f"{value.name} ({', '.join(axes)}{',' if len(axes) == 1 else ''})"
