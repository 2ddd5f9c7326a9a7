"""What this machine has, what params.yaml says, and what is missing."""

import importlib
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from avrecog.benchmarking import BenchmarkConfig
from avrecog.config import At, load_params, read_yaml
from avrecog.errors import AvrecogError
from avrecog.fusion import FuseConfig
from avrecog.hardware import hardware
from avrecog.logmel import AudioConfig
from avrecog.manifests.clip import media_path
from avrecog.manifests.prepare import DataConfig
from avrecog.media.settings import VideoConfig
from avrecog.models.build import ModelSection, PipelineConfig
from avrecog.predict import TestConfig
from avrecog.tracking import project_root
from avrecog.training.settings import TrainConfig, settings_in_force

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
    lines = [f"Python {platform.python_version()}, {hardware()}, {_memory()}"]
    lines += [f"  {name} {_version(name, problems)}" for name in PACKAGES]
    lines.append("device: " + (torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU (no GPU is seen)"))
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError) as error:
        problems.append(
            f"torchaudio can't be loaded ({error}); install the torch of constraints.txt, not a CPU-only build"
        )
    for tool, why in (("git", "DVC keeps experiments in it"), ("g++", "torch.compile needs it")):
        if shutil.which(tool) is None:
            lines.append(f"{tool}: not found; {why}")
    free_gib = shutil.disk_usage(".").free / 2**30
    lines.append(f"disk: {free_gib:.1f} GiB free here; tracking store: {_store()}")
    problems += _params_problems()
    lines += [f"problem: {problem}" for problem in problems] or ["all is well"]
    return lines, not problems


def _version(package: str, problems: list[str]) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        problems.append(f"{package} is not installed; run `make install`")
        return "is missing"


def _memory() -> str:
    import psutil

    return f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory"


def _store() -> str:
    path = project_root() / "mlruns" / "mlflow.db"
    return f"{path} ({path.stat().st_size / 2**20:.1f} MiB)" if path.exists() else "not yet made"


def _params_problems() -> list[str]:
    """Every section of params.yaml, validated at once; then what hangs on several."""
    try:
        named = [str(name) for name in (read_yaml(Path("params.yaml")).get("models") or {})]
        models: dict[str, Any] = {f"model {name}": At(f"models.{name}", ModelSection) for name in named}
        params = load_params(
            data=DataConfig,
            audio=AudioConfig | None,
            video=VideoConfig | None,
            pipeline=PipelineConfig,
            train=TrainConfig,
            test=TestConfig,
            benchmark=BenchmarkConfig,
            fuse=FuseConfig,
            **models,
        )
    except AvrecogError as error:
        return [str(error)]
    problems = []
    for name in named:
        try:
            settings_in_force(params.train, getattr(params, f"model {name}").train, name)
        except AvrecogError as error:
            problems.append(str(error))
    problems += [
        f"pipeline.models: {name} is no section below models ({', '.join(named)})"
        for name in params.pipeline.models
        if name not in named
    ]
    if not media_path(params.data.annotation).exists():
        problems.append(f"data.annotation: {params.data.annotation} does not exist")
    return problems
