"""A small project in a folder of the tests': synthetic clips, params.yaml, and the stages run in this process."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent

SMALL: dict[str, Any] = {
    "data": {"source": "folder", "annotation": "clips", "val_fraction": 0.25, "test_fraction": 0.25},
    "audio": {"logmel": {"n_mels": 32}},
    "video": {"fps": 5.0, "height": 36, "width": 36},
    "train": {"epochs": 4, "batch_size": 8, "base_batch_size": 8, "lr": 0.02, "warmup_epochs": 0.5, "ema_decay": 0.5},
    "models": {
        "audio": {"depth": 10, "width": 8, "mel_frames": 48, "dropout": 0.0},
        "rgb": {"width": 8, "n_segments": 2, "crop_height": 32, "crop_width": 32, "dropout": 0.0},
    },
    "benchmark": {"variants": ["eager", "folded"], "repeats": 3, "warmup": 1, "batch_sizes": [1, 2], "seconds": 0.05},
    "fuse": {"n_resamples": 200, "n_trials": 20, "n_folds": 2},
}


def params(*changes: dict[str, Any]) -> dict[str, Any]:
    """The shipped params.yaml with changes laid over it."""
    document = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for change in changes:
        lay_over(document, change)
    return document


def lay_over(document: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            lay_over(document[key], value)
        else:
            document[key] = value


def write_params(folder: Path, *changes: dict[str, Any]) -> None:
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(params(*changes), file)


def shrink_kinetics(folder: Path, section: dict[str, Any]) -> dict[str, Any]:
    """Rewrite the params.yaml of a Kinetics recipe for the clips of `make_kinetics`, a network trained in seconds."""
    yaml = YAML()
    document = yaml.load((folder / "params.yaml").read_text(encoding="utf-8"))
    document["data"] |= {"kinetics": section, "val_fraction": 0.2}
    document["train"] |= {"epochs": 1, "warmup_epochs": 0, "batch_size": 16}
    document["models"]["audio"] |= {"width": 8, "mel_frames": 48}
    document["models"]["rgb"] |= {"crop_height": 32, "crop_width": 32, "init_from": None}
    if "avslowfast" in document["models"]:
        small = {"depth": 14, "width": 8, "frames": 8, "alpha": 4, "mel_frames": 16}
        document["models"]["avslowfast"] |= {**small, "crop_height": 32, "crop_width": 32}
    if document["video"] is not None:
        document["video"] |= {"height": 36, "width": 48}
    lay_over(document, {"benchmark": SMALL["benchmark"], "fuse": SMALL["fuse"]})
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    return document


@contextmanager
def inside(folder: Path, root: Path | None = None) -> Iterator[None]:
    """Work in `folder` as a stage of the project `root` does."""
    before = Path.cwd()
    with mock.patch.dict(os.environ, {"DVC_ROOT": str(root or folder)}):
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def run_stage(folder: Path, stage: str, *arguments: str, root: Path | None = None) -> None:
    """Call the `main()` of a stage in this process, as dvc would call the script."""
    spec = importlib.util.spec_from_file_location(f"stage_{stage}", ROOT / "stages" / f"{stage}.py")
    module = importlib.util.module_from_spec(spec)
    with inside(folder, root), mock.patch.object(sys, "argv", [stage, *arguments]):
        spec.loader.exec_module(module)
        module.main()


ARGUMENTS = {
    "prepare": ["--out", "data"],
    "extract": ["--manifest", "data/manifest.csv", "--out", "data/features"],
    "train": ["--model", "{model}", "--data", "data", "--out", "models/{model}"],
    "test": [
        *["--model", "{model}", "--checkpoints", "models/{model}", "--data", "data"],
        *["--scores", "results/scores/{model}", "--metrics", "results/metrics/test/{model}.json"],
        *["--plots", "results/plots/test/{model}"],
    ],
    "benchmark": [
        *["--model", "{model}", "--checkpoints", "models/{model}"],
        *["--out", "results/metrics/benchmark/{model}.json"],
    ],
    "fuse": [
        *["--scores", "results/scores", "--metrics", "results/metrics/fuse.json"],
        *["--fusion", "results/fuse", "--plots", "results/plots/fuse"],
    ],
    "report": [
        *["--data", "data", "--models", "models", "--metrics", "results/metrics"],
        *["--plots", "results/plots", "--out", "results/ZOO.md", "--curves", "results/curves"],
    ],
}


def run(folder: Path, stage: str, model: str = "", root: Path | None = None) -> None:
    """A stage with the arguments that dvc.yaml gives it."""
    run_stage(folder, stage, *(argument.format(model=model) for argument in ARGUMENTS[stage]), root=root)


def run_all(folder: Path, models: tuple[str, ...] = ("audio", "rgb")) -> None:
    run(folder, "prepare")
    run(folder, "extract")
    for model in models:
        for stage in ("train", "test", "benchmark"):
            run(folder, stage, model)
    run(folder, "fuse")
    run(folder, "report")


def copy_project(source: Path, target: Path) -> Path:
    """A copy of a project that a test may change."""
    return Path(shutil.copytree(source, target, symlinks=True))
