"""The top classes of any media file, with one trained model or several fused."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from avrecog.config import load_params
from avrecog.datasets.augment import AugmentConfig
from avrecog.errors import CheckpointError, ConfigError, MediaError, ScoreError
from avrecog.exports import digest_of, read_export
from avrecog.front_end import log_mel
from avrecog.fusion_methods import Fusion, read_fusion
from avrecog.inputs import FrontEnd, check_names_classes, make_dataset, needs
from avrecog.late_fusion import fixed_fusion, said_fusion
from avrecog.media.clip_sound import whole_sound
from avrecog.media.container import Probe, probe
from avrecog.media.video import decode_video
from avrecog.models.settings import ModelConfig, PipelineConfig
from avrecog.onnx_network import OnnxNetwork
from avrecog.predict import Engine, TestConfig, predict_scores
from avrecog.store import MemoryStore

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

FUSION = Path("results/fuse/fusion.npz")


class Described(Protocol):
    """What is known of a model without its network."""

    @property
    def config(self) -> ModelConfig:
        """Its section below `models`."""

    @property
    def front_end(self) -> FrontEnd:
        """How it hears and sees."""


@dataclass(frozen=True)
class Speaker:
    """A trained model that is ready to predict."""

    name: str
    config: ModelConfig
    front_end: FrontEnd
    classes: list[str]
    network: Callable[..., Any]
    device: "torch.device | None"  # None: it takes NumPy's arrays, and PyTorch was not loaded


def predict_files(
    files: Sequence[Path],
    checkpoints: Sequence[Path] | None,
    coefficients: Sequence[float] | None,
    top: int,
    engine: Engine = "torch",
) -> Iterator[str]:
    """A few lines for each file: its likeliest classes with their probabilities.

    The whole file is one clip, covered by as many views as it takes. Where it lacks a model's modality the others
    speak.

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
        from avrecog.engines import exported  # late: PyTorch takes seconds
        from avrecog.inference import load_model

        model = load_model(path)
        check_names_classes(model.config, path)
        kept = exported(model)
    check_names_classes(kept.config, path)
    return Speaker(kept.name, kept.config, kept.front_end, kept.classes, OnnxNetwork(kept.onnx), None)


def _of_torch(path: Path, engine: Engine) -> Speaker:
    from avrecog.engines import start_engine
    from avrecog.hardware import pick_device
    from avrecog.inference import load_model

    model, device = load_model(path), pick_device()
    check_names_classes(model.config, path)
    network = start_engine(engine, model, device)
    return Speaker(model.name, model.config, model.front_end, model.classes, network, device)


def _predict_file(file: Path, models: Sequence[Speaker], fusion: Fusion, top: int) -> str:
    spoken, said, silent = [], [], []
    remarks: list[str] = []
    for index, model in enumerate(models):
        try:
            rows = decode_rows(file, model, remarks)
        except MediaError as error:
            silent.append(str(error))
            continue
        dataset = make_dataset(model.config, model.front_end, rows, ["clip"], np.zeros(1, np.int64), AugmentConfig())
        spoken.append(predict_scores(model.network, dataset, None, 64, model.device, "prob"))
        said.append(index)
    tell(file, remarks)
    if not spoken:
        raise MediaError("; ".join(dict.fromkeys(silent)))
    (fused,) = fusion.of_those(said, np.stack(spoken))
    best = np.argsort(-fused, kind="stable")[:top]
    names = [models[index].name for index in said]
    who = said_fusion(fusion) if len(said) == len(models) and len(said) > 1 else ", ".join(names)
    lines = [f"{file} ({who})", *(f"  {fused[index]:6.1%}  {models[0].classes[index]}" for index in best)]
    return "\n".join(lines)


def tell(file: Path, remarks: Sequence[str]) -> None:
    """Log what is to be told of a file, in one line, each thing once."""
    if remarks:
        log.warning("%s: %s", file, "; ".join(dict.fromkeys(remarks)))


def decode_rows(file: Path, model: Described, remarks: list[str] | None = None) -> dict[str, MemoryStore]:
    """The whole file as the rows that the model's stores would hold; of two, one may be empty.

    Args:
        file: any file FFmpeg reads.
        model: whose front end and needs count.
        remarks: takes what is to be told: tracks that were passed over, sound that is missing.

    Raises:
        MediaError: if the file has nothing that the model needs.
    """
    remarks = [] if remarks is None else remarks
    found, lacking = {}, []
    probed = probe(file)
    remarks += probed.notes
    for section in needs(model.config):
        try:
            found[section] = MemoryStore({"clip": _decode_section(file, model, section, probed, remarks)})
        except MediaError as error:
            lacking.append(error)
    if not found:
        raise lacking[0]
    for section in needs(model.config):
        if section not in found:
            found[section] = MemoryStore({}, _no_rows(model, section))
    return found


def _decode_section(file: Path, model: Described, section: str, probed: Probe, remarks: list[str]) -> np.ndarray:
    if section == "audio":
        assert model.front_end.audio is not None
        front_end = model.front_end.audio.logmel
        waveform, told = whole_sound(file, front_end.sample_rate, probed)
        remarks += told
        return log_mel(waveform, front_end).astype(np.float16)
    assert model.front_end.video is not None
    return decode_video(file, model.front_end.video)


def _no_rows(model: Described, section: str) -> np.ndarray:
    if section == "audio":
        assert model.front_end.audio is not None
        return np.zeros((0, model.front_end.audio.logmel.n_mels), np.float16)
    assert model.front_end.video is not None
    return np.zeros((0, model.front_end.video.height, model.front_end.video.width, 3), np.uint8)


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
