"""A fusion method is one class: the toy below is fitted, chosen, reported, saved and used without other changes."""

import csv
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from avrecog.commands.fuse import fuse_files
from avrecog.config import validate
from avrecog.fusion.describe import repeat_command
from avrecog.fusion.file import read_fusion, write_fusion
from avrecog.fusion.fuse import fuse_models
from avrecog.fusion.methods.base import FusionMethod
from avrecog.fusion.methods.registry import METHODS, register
from avrecog.fusion.selection import choose
from avrecog.fusion.settings import FuseConfig
from fusion_inputs import CLASSES, MODELS, fit, random_scores, write_model_scores


@dataclass(frozen=True, eq=False, kw_only=True)
class PowerMean(FusionMethod):
    """The mean of the models' probabilities to a power that is fitted on val."""

    name: ClassVar[str] = "power_mean"
    power: float

    @classmethod
    def fit(cls, clips, context):
        def loss(power: float) -> float:
            fused = cls(models=context.models[: len(clips.probabilities)], power=power)(clips.probabilities)
            return -np.log(fused[np.arange(len(clips.labels)), clips.labels]).mean()

        return cls(models=context.models, power=min((0.5, 1.0, 2.0), key=loss)), ()

    def fuse_block(self, probabilities: np.ndarray) -> np.ndarray:
        raised = (probabilities.astype(np.float64) ** self.power).mean(axis=0)
        return raised / raised.sum(axis=1, keepdims=True)

    def describe(self) -> str:
        return f"power {self.power:g} of {', '.join(self.models)}"

    def arrays(self) -> dict[str, np.ndarray]:
        return {"power": np.array(self.power)}

    @classmethod
    def from_arrays(cls, models: tuple[str, ...], arrays: Mapping[str, np.ndarray]):
        return cls(models=models, power=float(arrays["power"]))


@pytest.fixture(autouse=True)
def registered():
    register(PowerMean)
    yield
    del METHODS["power_mean"]


def test_it_is_compared_with_the_others_and_can_be_chosen():
    stack, labels, ids = random_scores(0, 3)
    methods = fit(stack, labels, ids)
    assert list(methods)[-1] == "power_mean"
    assert methods["power_mean"].held_out is not None
    assert choose({"power_mean": methods["power_mean"]}) == "power_mean"


def test_params_yaml_can_name_it():
    assert validate(FuseConfig, {"methods": ["power_mean"]}, "fuse").methods == ["power_mean"]


def test_it_survives_its_file_and_does_without_a_model(tmp_path):
    stack, *_ = random_scores(1)
    fusion = PowerMean(models=("a", "b"), power=2.0)
    write_fusion(tmp_path / "fusion.npz", fusion, "abcd")
    again = read_fusion(tmp_path / "fusion.npz", "abcd")
    assert again.power == 2.0
    assert np.array_equal(again(stack), fusion(stack))
    assert again.with_available([0], stack[:1]).sum(axis=1) == pytest.approx(1)
    assert repeat_command(["TEST.npz"], again, "f.npz") == "avrecog fuse --scores TEST.npz --fusion f.npz"


@pytest.mark.parametrize("methods", [["power_mean"], ["equal", "weights", "power_mean"]])
def test_stage_fuse_reports_it_and_the_command_repeats_it(tmp_path, methods):
    scores = write_model_scores(tmp_path / "scores")
    config = FuseConfig(methods=methods, n_trials=5, n_folds=2, n_resamples=200)
    paths = {"metrics_path": tmp_path / "f.json", "fusion_dir": tmp_path / "fuse", "plots_dir": tmp_path / "plots"}
    outcome = fuse_models(MODELS[:3], scores, config, **paths)
    report = json.loads(paths["metrics_path"].read_text())
    with (tmp_path / "plots/methods.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == methods
    assert rows["power_mean"]["coefficients"].startswith("power ")
    if report["method"] == "power_mean":
        assert {report[key] for key in ("coefficients", "temperatures", "exponent")} == {None}
        words = shlex.split(outcome.summary.split("repeat with: ")[1])
        assert words[-2:] == ["--fusion", str(tmp_path / "fuse/fusion.npz")]
        told = fuse_files([Path(word) for word in words[3:6]], config, fusion_file=Path(words[-1]))
        assert f"{report['test']['top1']:.4f}" in next(line for line in told.splitlines() if line.startswith("fused"))
        assert read_fusion(Path(words[-1]), CLASSES).describe() in outcome.summary
    assert len(methods) > 1 or report["method"] == "power_mean"
