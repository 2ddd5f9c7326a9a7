"""Every recipe is applied to small synthetic clips and trained for an epoch."""

import shutil
import sys
from unittest import mock

import pytest
from ruamel.yaml import YAML

import projects
from avrecog import cli
from avrecog.checkpoints import load_checkpoint
from clips import make_tone, make_video, write_annotation

NAMES = sorted(path.stem for path in (projects.ROOT / "recipes").glob("*.yaml") if path.stem != "demo_clips")


def test_there_are_recipes():
    assert {"default", "esc10", "grid"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains(name, tmp_path, tracking_template):
    shutil.copytree(tracking_template, tmp_path / "mlruns")
    shutil.copytree(projects.ROOT / "recipes", tmp_path / "recipes")
    with_picture = name != "esc10"
    rows = []
    for index in range(24):
        label = ("high", "low")[index % 2]
        frequency = {"high": 900.0, "low": 300.0}[label] + index
        if with_picture:
            path = make_video(tmp_path / f"{index}.mp4", 50, 25, 180, 144, frequency_hz=frequency).path
        else:
            path = make_tone(tmp_path / f"{index}.wav", frequency, 2.0, 32_000).path
        rows.append({"path": path, "label": label, "fold": 1 + index // 2 % 3})
    annotation = write_annotation(tmp_path / "clips.csv", rows)
    with (
        projects.inside(tmp_path),
        mock.patch.object(sys, "argv", ["avrecog", "recipe", name, "--annotation", str(annotation)]),
    ):
        cli.main()
    yaml = YAML()
    params = yaml.load((tmp_path / "params.yaml").read_text())
    params["data"]["source"] = "csv"
    params["data"]["val_fraction"] = 0.3
    params["train"] |= {"epochs": 1, "warmup_epochs": 0}
    for section in params["models"].values():
        section.get("train", {}).pop("epochs", None)
        section.get("train", {}).pop("warmup_epochs", None)
    with (tmp_path / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    projects.run(tmp_path, "prepare")
    projects.run(tmp_path, "extract")
    for model in params["pipeline"]["models"]:
        projects.run(tmp_path, "train", model)
        assert load_checkpoint(tmp_path / "models" / model / "best.ckpt")["classes"] == ["high", "low"]
