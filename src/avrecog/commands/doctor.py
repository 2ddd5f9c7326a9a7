"""What this machine has, what params.yaml says, and what is missing.

Packages are looked up before any is imported, so that a missing or broken one is named instead of a traceback.
"""

import importlib
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avrecog.errors import AvrecogError

if TYPE_CHECKING:
    from avrecog.config import Params

PACKAGES = (
    "torch",
    "torchaudio",
    "torchvision",
    "timm",
    "lightning-fabric",
    "av",
    "mlflow",
    "dvc",
    "optuna",
    "scikit-learn",
    "pydantic",
)


def examine() -> tuple[list[str], bool]:
    """Lines to print, and whether all that the pipeline needs is there and params.yaml has no problem."""
    problems: list[str] = []
    lines = [f"Python {platform.python_version()}", *(f"  {name} {_version(name, problems)}" for name in PACKAGES)]
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError) as error:
        problems.append(
            f"torchaudio can't be loaded ({error}); install the torch of constraints.txt, not a CPU-only build"
        )
    if not problems:
        lines += [*_machine(), _store(problems)]
        of_params, notes = params_findings()
        if Path("params.yaml").exists():  # else the one problem is where it is run
            problems += _repository_problems()
            lines += _environment_notes()
        problems += of_params
        lines += notes
    lines += [f"problem: {problem}" for problem in problems] or ["all is well"]
    return lines, not problems


def _version(package: str, problems: list[str]) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        problems.append(f"{package} is not installed; run `make install`")
        return "is missing"


def _machine() -> list[str]:
    import psutil
    import torch

    from avrecog.runtime.device import hardware

    memory_gib, free_gib = psutil.virtual_memory().total / 2**30, shutil.disk_usage(".").free / 2**30
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU (no GPU is seen)"
    return [
        f"machine: {hardware()}, {memory_gib:.0f} GiB of memory, {free_gib:.1f} GiB of disk free here",
        f"device: {device}",
    ]


def _store(problems: list[str]) -> str:
    """Where the tracking store is; runs of killed processes in it are marked so, unless it has a problem."""
    from avrecog.tracking.address import given_address, shown_address
    from avrecog.tracking.client import database_path, store_problems, tracking_client

    found = store_problems()
    problems += found
    given, path = given_address(), database_path()
    if not given and not path.exists():
        return f"tracking store: {path}, not yet made"
    if not found:
        try:
            tracking_client()
        except AvrecogError as error:  # it can be read, but not written
            problems.append(str(error))
    if given:
        return f"tracking store: {shown_address(given)} (MLFLOW_TRACKING_URI)"
    return f"tracking store: {path} ({path.stat().st_size / 2**20:.1f} MiB)"


def _repository_problems() -> list[str]:
    """What keeps dvc from making experiments here."""
    from avrecog.experiments.sweep.trial import check_repository

    try:
        check_repository()
    except AvrecogError as error:
        return [str(error)]
    return []


def _environment_notes() -> list[str]:
    """A virtual environment that was moved or copied along runs the code of the place that it was made for."""
    import avrecog

    ours, loaded = Path("src/avrecog"), Path(avrecog.__file__).parent
    if not ours.is_dir() or ours.resolve() == loaded.resolve():
        return []
    return [f"the command `avrecog` runs {loaded}, not this project's; `rm -rf .venv`, then `make install`"]


def params_findings() -> tuple[list[str], list[str]]:
    """Problems of params.yaml, every section validated at once, then what hangs on several and on this machine.

    Returns: the problems, and what the pipeline goes on without.
    """
    from avrecog.annotations.sources import DataSection
    from avrecog.config import At, load_params, read_yaml
    from avrecog.features.settings import AudioConfig
    from avrecog.features.video_settings import VideoConfig
    from avrecog.fusion.settings import FuseConfig
    from avrecog.inference.settings import BenchmarkConfig, TestConfig
    from avrecog.models.registry import model_section
    from avrecog.pipeline import PipelineConfig, SelfSupervisedConfig
    from avrecog.training.settings import TrainConfig

    try:
        named = [str(name) for name in (read_yaml(Path("params.yaml")).get("models") or {})]
        models: dict[str, Any] = {f"model {name}": At(f"models.{name}", model_section()) for name in named}
        params = load_params(
            data=DataSection,
            audio=AudioConfig | None,
            video=VideoConfig | None,
            pipeline=PipelineConfig,
            selfsupervised=SelfSupervisedConfig,
            train=TrainConfig,
            test=TestConfig,
            benchmark=BenchmarkConfig,
            fuse=FuseConfig,
            **models,
        )
    except AvrecogError as error:
        return [str(error)], []
    model_problems, compiled = _model_findings(params, named)
    compile_problems, notes = _compile_findings(params, compiled)
    return [*model_problems, *compile_problems, *_annotation_problems(params.data.annotation)], notes


def _model_findings(params: "Params", named: Sequence[str]) -> tuple[list[str], list[str]]:
    """Problems of the sections below `models`, and what asks for compiling: words for `… here: no compiler`."""
    from avrecog.features.front_end import FrontEnd
    from avrecog.training.settings import resolve_train_config

    problems: list[str] = []
    compiled: list[str] = []
    in_use = {"pipeline": params.pipeline.models, "selfsupervised": params.selfsupervised.models}
    for name in named:
        model = getattr(params, f"model {name}")
        try:
            settings, _ = resolve_train_config(params.train, model.train, name)
        except AvrecogError as error:
            problems.append(str(error))
            continue
        if any(name in models for models in in_use.values()):
            compiled += [f"train.compile: {name} can't be compiled"] if settings.compile else []
            try:
                model.input().check(FrontEnd(params.audio, params.video))
            except AvrecogError as error:
                problems.append(f"models.{name}: {str(error).removeprefix('params.yaml: ')}")
    for section, models in in_use.items():
        problems += [
            f"{section}.models: {name} is no section below models ({', '.join(named)})"
            for name in models
            if name not in named
        ]
    problems += [
        f"selfsupervised.models: {name} is of architecture {model.architecture}, which needs labels; expected one that "
        f"learns without them, as avsync"
        for name in params.selfsupervised.models
        if name in named and (model := getattr(params, f"model {name}")).input().classes is None
    ]
    return problems, compiled


def _compile_findings(params: "Params", compiled: Sequence[str]) -> tuple[list[str], list[str]]:
    """Problems, and what is gone on without, where networks are to be compiled and can't be here."""
    from avrecog.runtime.device import lacking_to_compile, pick_device

    asked = ["test.engine: torch-compiled can't run"] if params.test.engine == "torch-compiled" else []
    if params.benchmark.report == "compiled":
        asked.append("benchmark.report: compiled can't be timed")
    asked += compiled
    problems: list[str] = []
    notes: list[str] = []
    timed = "compiled" in params.benchmark.variants
    if (asked or timed) and (lacking := lacking_to_compile(pick_device())):
        problems += [f"{what} here: {lacking}, or choose another" for what in asked]
        if timed and params.benchmark.report != "compiled":
            notes.append(f"benchmark.variants: compiled is left out here: {lacking}")
    return problems, notes


def _annotation_problems(path: str) -> list[str]:
    from avrecog.annotations.folder_source import why_unwatchable
    from avrecog.manifest import media_path

    annotation = media_path(path)
    problems = [] if os.path.exists(annotation) else [f"data.annotation: {path} does not exist"]
    if unwatchable := why_unwatchable(annotation, path):
        problems.append(f"data.annotation: {unwatchable}")
    return problems
