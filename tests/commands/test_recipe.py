"""Every recipe is applied to small synthetic clips and trained for an epoch."""

import shutil
import sys
from unittest import mock

import pytest
from ruamel.yaml import YAML

import projects
from avrecog import cli
from avrecog.annotations.sources import DataSection
from avrecog.config import load_params, read_yaml, validate
from avrecog.models.checkpoint import load_checkpoint
from avrecog.models.registry import model_section
from avrecog.training.settings import TrainConfig
from clips import make_kinetics, make_tone, make_video, write_annotation

NAMES = sorted(path.stem for path in (projects.ROOT / "recipes").glob("*.yaml") if path.stem != "demo_clips")
KINETICS = [name for name in NAMES if name.startswith("kinetics")]


def apply(folder, name, annotation):
    with (
        projects.inside(folder),
        mock.patch.object(sys, "argv", ["avrecog", "recipe", name, "--annotation", str(annotation)]),
    ):
        cli.main()


def test_there_are_recipes():
    assert {"default", "esc10", "grid"} <= set(NAMES)
    assert {
        *(f"kinetics400_{name}{own}" for name in ("audio_r18", "audio_r50", "tsn_r50_rgb") for own in ("", "_own")),
        *("kinetics400_avslowfast_r50_4x16", "kinetics400_avslowfast_r50_8x8"),
    } == set(KINETICS)


@pytest.mark.parametrize("name", sorted({*NAMES} - {*KINETICS}))
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
    apply(tmp_path, name, annotation)
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
    for model in [*params["pipeline"]["models"], *{"sync"} & {*params["models"]}]:
        projects.run(tmp_path, "train", model)
        classes = ["first sound", "second sound"] if model == "sync" else ["high", "low"]
        assert load_checkpoint(tmp_path / "models" / model / "best.ckpt")["classes"] == classes


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    return make_kinetics(tmp_path_factory.mktemp("kinetics"))


@pytest.mark.parametrize("name", KINETICS)
def test_a_kinetics_recipe_trains_in_small(name, tmp_path, tracking_template, kinetics):
    shutil.copytree(tracking_template, tmp_path / "mlruns")
    shutil.copytree(projects.ROOT / "recipes", tmp_path / "recipes")
    apply(tmp_path, name, kinetics.lists)
    assert load_params(tmp_path / "params.yaml", data=DataSection).data.kinetics.test.endswith("val_list_videos.txt")
    (model,) = projects.shrink_kinetics(tmp_path, kinetics.section)["pipeline"]["models"]
    projects.run(tmp_path, "prepare")
    projects.run(tmp_path, "extract")
    projects.run(tmp_path, "train", model)
    checkpoint = load_checkpoint(tmp_path / "models" / model / "best.ckpt")
    assert checkpoint["classes"] == ["whistling", "air drumming", "zumba"]


@pytest.mark.parametrize(
    ("name", "base_lr", "lr", "batch_size"),
    [("audio_r18", 0.1, 0.0125, 320), ("audio_r50", 2.0, 0.25, 160), ("tsn_r50_rgb", 0.01, 0.00125, 32)],
)
def test_the_kinetics_recipes_have_the_schedule_of_the_reference(name, base_lr, lr, batch_size):
    """One of the reference's eight GPUs: an eighth of its batch and of its learning rate."""
    train = validate(TrainConfig, read_yaml(projects.ROOT / f"recipes/kinetics400_{name}.yaml")["train"], "train")
    assert (train.lr, train.scaled_lr, train.batch_size) == (base_lr, lr, batch_size)
    assert (train.optimizer, train.momentum, train.weight_decay, train.decay_norm_and_bias) == ("sgd", 0.9, 1e-4, True)
    assert (train.clip_grad_norm, train.epochs, train.val_interval, train.warmup_epochs) == (40.0, 100, 5, 0)
    assert (train.label_smoothing, train.ema_decay, train.augment.mixup_alpha) == (0.0, None, 0.0)
    assert train.lr_updates == "epoch"


@pytest.mark.parametrize(("name", "alpha", "kernel", "batch_size"), [("4x16", 8, 5, 8), ("8x8", 4, 7, 4)])
def test_the_audiovisual_recipes_have_the_schedule_of_the_paper(name, alpha, kernel, batch_size):
    """One of eight GPUs."""
    recipe = read_yaml(projects.ROOT / f"recipes/kinetics400_avslowfast_r50_{name}.yaml")
    train = validate(TrainConfig, recipe["train"], "train")
    model = validate(model_section(), recipe["models"]["avslowfast"], "models.avslowfast")
    assert (model.frames, model.alpha, model.lateral_kernel, model.mel_frames) == (32, alpha, kernel, 128)
    assert (model.drop_pathway, model.sync_weight, model.hard_from_epoch, model.hard_share) == (0.8, 1.0, 96, 0.25)
    assert (train.lr, train.batch_size, train.scaled_lr) == (0.1, batch_size, 0.0125)
    assert (train.epochs, train.warmup_epochs, train.lr_updates) == (196, 34, "step")
    assert (train.weight_decay, train.decay_norm_and_bias) == (1e-4, False)
    assert (recipe["test"]["n_clips"], model.n_crops) == (10, 3)


def test_a_kinetics_recipe_refuses_a_folder_that_holds_media(tmp_path, kinetics, capsys):
    shutil.copytree(projects.ROOT / "recipes", tmp_path / "recipes")
    with pytest.raises(SystemExit) as stopped:
        apply(tmp_path, "kinetics400_audio_r18", kinetics.lists.parent)
    assert stopped.value.code == 1
    assert "holds lists, a folder; DVC hashes everything in data.annotation" in capsys.readouterr().err
    assert not (tmp_path / "params.yaml").exists()
