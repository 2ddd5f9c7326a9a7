"""The top classes of any media file, with one trained model or several fused."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avrecog.config import load_params
from avrecog.datasets.build import StoredClips, make_dataset
from avrecog.datasets.view_scores import predict_scores
from avrecog.errors import CheckpointError, ConfigError, MediaError, ScoreError
from avrecog.extraction.media_file import decode_rows, log_remarks
from avrecog.features.front_end import FrontEnd
from avrecog.fusion.file import read_fusion
from avrecog.fusion.methods.base import Fusion
from avrecog.fusion.methods.weighted_mean import fixed_fusion
from avrecog.inference.export_cache import digest_of, read_export
from avrecog.inference.onnx_network import OnnxNetwork
from avrecog.inference.settings import EngineName, TestConfig
from avrecog.inputs import ModelInput, check_names_classes
from avrecog.pipeline import PipelineConfig

if TYPE_CHECKING:
    import torch


FUSION = Path("results/fuse/fusion.npz")


@dataclass(frozen=True)
class Speaker:
    """A trained model that is ready to predict."""

    name: str
    input: ModelInput
    front_end: FrontEnd
    classes: list[str]
    network: Callable[..., Any]
    device: "torch.device | None"  # None: it takes NumPy's arrays, and PyTorch was not loaded


def predict_files(
    files: Sequence[Path],
    checkpoints: Sequence[Path] | None,
    coefficients: Sequence[float] | None,
    top: int,
    engine: EngineName = "torch",
) -> Iterator[str]:
    """A few lines for each file: its likeliest classes with their probabilities.

    The whole file is one clip, covered by as many views as it takes. Where it lacks a model's modality, the others
    are fused without that model.

    Args:
        files: media files.
        checkpoints: trained models; None: those of `pipeline.models`, the checkpoints that stage test takes.
        coefficients: one weight a model; None: with `checkpoints` equal ones, else the fusion that stage fuse found.
        top: classes a file.
        engine: what runs the networks.

    Raises:
        CheckpointError: if there is no checkpoint, or two are of different classes.
        ConfigError: if `top` is below 1, the coefficients are of another number, the engine can't run here, or a model
            names no classes.
        MediaError: after the others, if files can't be read, or have nothing that one of the models needs.
        ScoreError: if stage fuse has not fused the models of `pipeline.models`.
    """
    if top < 1:
        raise ConfigError(f"--top: expected 1 or more, got {top}")
    paths = list(checkpoints) if checkpoints else _tested_checkpoints()
    models = [_of_onnx(path) if engine == "onnxruntime" else _of_torch(path, engine) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if model.classes != models[0].classes:
            raise CheckpointError(
                f"{path}: was trained on other classes than {paths[0]}; name some that belong together (--checkpoint)"
            )
    fusion = _fusion(models, coefficients, fused=not checkpoints)
    problems = []
    for file in files:
        try:
            yield _predict_file(file, models, fusion, top)
        except MediaError as error:
            problems.append(str(error))
    if problems:
        raise MediaError("\n".join(problems))


def _of_onnx(path: Path) -> Speaker:
    """The model in a checkpoint, in ONNX Runtime; without PyTorch where it was exported before."""
    try:
        kept = read_export("onnx", digest_of(path))
    except OSError:
        kept = None  # load_model says why
    if kept is None:
        from avrecog.inference.engines import exported  # late: PyTorch takes seconds
        from avrecog.inference.trained_model import load_model

        model = load_model(path)
        check_names_classes(model.input, path)
        kept = exported(model)
    check_names_classes(kept.input, path)
    return Speaker(kept.name, kept.input, kept.front_end, kept.classes, OnnxNetwork(kept.onnx), None)


def _of_torch(path: Path, engine: EngineName) -> Speaker:
    from avrecog.inference.engines import ENGINES
    from avrecog.inference.trained_model import load_model
    from avrecog.runtime.device import pick_device

    model, device = load_model(path), pick_device()
    check_names_classes(model.input, path)
    network = ENGINES[engine].start(model, device)
    return Speaker(model.name, model.input, model.front_end, model.classes, network, device)


def _predict_file(file: Path, models: Sequence[Speaker], fusion: Fusion, top: int) -> str:
    scores, available, errors = [], [], []
    remarks: list[str] = []
    for index, model in enumerate(models):
        try:
            rows = decode_rows(file, model, remarks)
        except MediaError as error:
            errors.append(str(error))
            continue
        dataset = make_dataset(model.input, StoredClips(model.front_end, rows, ["clip"], np.zeros(1, np.int64)))
        scores.append(
            predict_scores(model.network, dataset, n_views=None, batch_size=64, device=model.device, average="prob")
        )
        available.append(index)
    log_remarks(file, remarks)
    if not scores:
        raise MediaError("; ".join(dict.fromkeys(errors)))
    (fused,) = fusion.with_available(available, np.stack(scores))
    best = np.argsort(-fused, kind="stable")[:top]
    names = [models[index].name for index in available]
    who = fusion.describe() if len(names) == len(models) and len(names) > 1 else ", ".join(names)
    lines = [f"{file} ({who})", *(f"  {fused[index]:6.1%}  {models[0].classes[index]}" for index in best)]
    return "\n".join(lines)


def _tested_checkpoints() -> list[Path]:
    """The checkpoints of the models in `pipeline.models` that stage test takes."""
    params = load_params(pipeline=PipelineConfig, test=TestConfig)
    return [Path("models") / name / f"{params.test.checkpoint}.ckpt" for name in params.pipeline.models]


def _fusion(models: Sequence[Speaker], coefficients: Sequence[float] | None, fused: bool) -> Fusion:
    """How the models are fused.

    Raises:
        ConfigError: if the coefficients are of another number.
        ScoreError: if that of stage fuse is needed and is not there, or is of other models or classes.
    """
    names = [model.name for model in models]
    if coefficients is not None:
        if len(coefficients) != len(names):
            raise ConfigError(f"--coefficients: expected {len(names)}, one a checkpoint, got {len(coefficients)}")
        return fixed_fusion(names, coefficients)
    if not fused or len(names) == 1:
        return fixed_fusion(names, [1.0] * len(names))
    fusion = read_fusion(FUSION, models[0].classes)
    if list(fusion.models) != list(names):
        raise ScoreError(
            f"{FUSION}: fuses {', '.join(fusion.models)}, expected {', '.join(names)}; run `dvc repro fuse`, or give "
            f"--coefficients"
        )
    return fusion
