"""The audiovisual models through the stages, on small clips."""

import json

import numpy as np
import pytest
from mlflow import MlflowClient

import projects
from avrecog.commands.predict import predict_files
from avrecog.commands.sync import sync_files
from avrecog.errors import CheckpointError, MediaError
from avrecog.models.checkpoint import load_checkpoint
from avrecog.scores.npz import read_scores
from clips import make_tone, make_video

SMALL_AV = {
    "architecture": "avslowfast",
    "depth": 14,
    "width": 8,
    "frames": 4,
    "alpha": 2,
    "crop_height": 32,
    "crop_width": 32,
    "mel_frames": 16,
    "dropout": 0.0,
    "drop_per_clip": True,
    "train": {"epochs": 6},
}


def with_model(folder, name, **config):
    models = {"avslowfast": SMALL_AV, name: {**SMALL_AV, **config}}
    projects.write_params(folder, projects.SMALL, {"models": models, "pipeline": {"models": ["audio", name]}})


@pytest.fixture
def fitted(project):
    """A project with a trained and tested avslowfast beside audio and rgb."""
    with_model(project, "avslowfast", sync_weight=0.5)
    for stage in ("train", "test", "benchmark"):
        projects.run(project, stage, "avslowfast")
    return project


def read_json(path):
    return json.loads(path.read_text())


def test_it_is_trained_tested_benchmarked_fused_and_asked_like_the_others(fitted, capsys):
    metrics = read_json(fitted / "results/metrics/test/avslowfast.json")
    assert (metrics["n_clips"], metrics["n_left_out"]) == (12, 0)
    assert metrics["top1"] > 0.6
    speed = read_json(fitted / "results/metrics/benchmark/avslowfast.json")
    assert speed["macs"] > 0
    projects.run(fitted, "fuse")
    assert read_json(fitted / "results/metrics/fuse.json")["n_left_out"] == {}
    projects.run(fitted, "report")
    assert "AVSlowFast-R14 2x2 (width 8)" in (fitted / "results/ZOO.md").read_text()
    clip = next((fitted / "clips/high").iterdir())
    with projects.inside(fitted):
        said = "\n".join(predict_files([clip], [fitted / "models/avslowfast/best.ckpt"], None, 3))
        make_tone(fitted / "alone.wav", 900.0, 2.0, 16_000)
        alone = "\n".join(predict_files([fitted / "alone.wav"], [fitted / "models/avslowfast/best.ckpt"], None, 3))
    assert said.splitlines()[1].split()[1] == "high"
    assert len(alone.splitlines()) == 4


def test_a_slowfast_begins_it_and_what_is_new_is_said(project):
    small = {key: value for key, value in SMALL_AV.items() if key not in ("mel_frames", "drop_per_clip")}
    models = {"slowfast": {**small, "architecture": "slowfast"}}
    projects.write_params(project, projects.SMALL, {"models": models})
    projects.run(project, "train", "slowfast")
    begun = {**SMALL_AV, "init_from": str(project / "models/slowfast/best.ckpt"), "train": {"epochs": 1, "lr": 0.0001}}
    projects.write_params(project, projects.SMALL, {"models": {"avslowfast": begun}})
    projects.run(project, "train", "avslowfast")
    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    (run,) = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()],
        "tags.model = 'avslowfast' and tags.stage = 'train'",
    )
    assert run.data.tags["fresh_weights"].startswith("standardise.mean, standardise.std, audio.stem")


@pytest.fixture
def synchronised(project):
    """A project with a network that learned without labels, its test and its probe."""
    pathways = {key: value for key, value in SMALL_AV.items() if key not in ("dropout", "drop_per_clip")}
    config = {**pathways, "architecture": "avsync", "hard_share": 0.5, "train": {"epochs": 2}}
    projects.write_params(project, projects.SMALL, {"models": {"sync": config}})
    here = ["--data", "data"]
    folder = "selfsupervised"
    projects.run_stage(project, "train", "--model", "sync", *here, "--out", f"{folder}/models/sync")
    checkpoints = ["--checkpoints", f"{folder}/models/sync"]
    outs = ["--scores", f"{folder}/scores", "--metrics", f"{folder}/sync.json", "--plots", f"{folder}/plots"]
    projects.run_stage(project, "test", "--model", "sync", *checkpoints, *here, *outs)
    best = ["--checkpoint", f"{folder}/models/sync/best.ckpt"]
    outs = ["--metrics", f"{folder}/probe.json", "--curve", f"{folder}/sync.csv"]
    projects.run_stage(project, "probe", "--model", "sync", *best, *here, *outs)
    return project


def test_what_is_learned_without_labels_is_tested_on_pairs_and_probed(synchronised):
    folder = synchronised / "selfsupervised"
    assert load_checkpoint(folder / "models/sync/best.ckpt")["classes"] == ["first sound", "second sound"]
    table = read_scores(folder / "scores/test.npz")
    assert np.bincount(table.labels).tolist() == [6, 6]
    assert read_json(folder / "sync.json")["n_clips"] == 12
    probe = read_json(folder / "probe.json")
    assert probe["n_clips"] == 12
    assert probe["top1_low"] <= probe["top1"] <= probe["top1_high"]
    assert probe["gain"] == pytest.approx(probe["top1"] - probe["random_top1"])
    client = MlflowClient(f"sqlite:///{synchronised}/mlruns/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    stages = {run.data.tags["stage"] for run in client.search_runs(experiments, "tags.model = 'sync'")}
    assert stages >= {"train", "test", "probe"}
    clip = make_video(synchronised / "long.mp4", 50, frequency_hz=900.0).path
    said = sync_files([clip], folder / "models/sync/best.ckpt", 0.4)
    assert said.startswith(f"{clip}: ")
    assert "score as it stands" in said
    short = next((synchronised / "clips/high").iterdir())
    with pytest.raises(MediaError, match=f"{short}: expected a clip of 1.00 s at least"):
        sync_files([short], folder / "models/sync/best.ckpt", 0.4)


def test_a_classifier_is_no_network_that_compares(fitted):
    clip = next((fitted / "clips/high").iterdir())
    with pytest.raises(CheckpointError, match="expected a model that compares sound and picture, got AVSlowFast"):
        sync_files([clip], fitted / "models/avslowfast/best.ckpt", 0.4)
