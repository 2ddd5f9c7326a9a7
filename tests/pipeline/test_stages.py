"""Every stage, its main() called in this process, on synthetic clips."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pytest
import timm
from mlflow import MlflowClient

import projects
from avrecog.fusion.methods.registry import METHODS
from avrecog.models.checkpoint import load_checkpoint
from avrecog.scores.npz import read_scores
from avrecog.scores.predictions import read_predictions
from clips import make_video, write_annotation

STORE_FILES = ("values.bin", "index.csv", "store.json")


def client(folder):
    return MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")


def runs(folder, experiment):
    mlflow = client(folder)
    return mlflow.search_runs([mlflow.get_experiment_by_name(experiment).experiment_id])


def read_json(path):
    return json.loads(path.read_text())


def test_both_models_beat_chance_by_a_margin(finished_project):
    for model in ("audio", "rgb"):
        assert read_json(finished_project / f"results/metrics/test/{model}.json")["top1"] > 0.6


def test_the_metric_file_of_a_test_has_the_keys_of_the_contract(finished_project):
    metrics = read_json(finished_project / "results/metrics/test/audio.json")
    assert {
        "top1",
        "top5",
        "mean_class_accuracy",
        "n_clips",
        "inference_ms_per_clip",
        "peak_memory_mib",
        "gpu_memory_mib",
        "device",
    } <= metrics.keys()
    assert metrics["n_clips"] == 12
    low, high = metrics["top1_low"], metrics["top1_high"]
    assert low <= metrics["top1"] <= high
    assert metrics["val"].keys() == {"top1", "log_loss", "n_clips"}
    val = read_scores(finished_project / "results/scores/audio/val.npz")
    assert metrics["val"]["top1"] == np.mean(val.scores.argmax(1) == val.labels)
    assert metrics["val"]["n_clips"] == len(val.labels)


def test_the_predictions_are_those_of_the_score_file(finished_project):
    table = read_predictions(finished_project / "results/plots/test/audio/predictions.csv")
    scores = read_scores(finished_project / "results/scores/audio/test.npz")
    classes = np.array(scores.classes)
    assert dict(zip(table.clip_ids.tolist(), table.predicted.tolist(), strict=True)) == dict(
        zip(scores.clip_ids.tolist(), classes[scores.scores.argmax(1)].tolist(), strict=True)
    )
    assert table.correct.mean() == read_json(finished_project / "results/metrics/test/audio.json")["top1"]


def test_the_benchmark_file_has_the_keys_of_the_contract(finished_project):
    figures = read_json(finished_project / "results/metrics/benchmark/rgb.json")
    assert {
        *("latency_ms", "videos_per_s", "throughput_clips_per_s", "best_batch", "peak_memory_mib", "gpu_memory_mib"),
        *("parameters", "macs", "device", "precision", "torch", "repeats"),
    } <= figures.keys()
    assert [row["variant"] for row in figures["variants"]] == ["eager", "folded"]
    assert figures["latency_ms"]["median"] <= figures["latency_ms"]["p95"]
    checkpoint = load_checkpoint(finished_project / "models/rgb/best.ckpt")
    buffers = ("running_mean", "running_var", "num_batches_tracked", "standardise.mean", "standardise.std")
    n = sum(value.numel() for key, value in checkpoint["weights"].items() if not key.endswith(buffers))
    assert figures["parameters"] == n


def test_the_fusion_file_has_the_keys_of_the_contract(finished_project):
    fusion = read_json(finished_project / "results/metrics/fuse.json")
    assert fusion.keys() == {
        *("method", "coefficients", "val", "test", "best_single", "gain", "val_reused", "n_trials", "seconds"),
        *("n_clips", "n_left_out", "temperatures", "exponent"),
    }
    assert fusion["coefficients"] is None or sum(fusion["coefficients"].values()) == pytest.approx(1)
    assert fusion["test"].keys() == {"top1", "top5", "mean_class_accuracy", "top1_low", "top1_high"}
    assert fusion["gain"].keys() == {"top1", "top5", "top1_ci95", "p_value"}
    assert fusion["val_reused"] is True


def test_score_files_of_all_models_hold_the_same_clips(finished_project):
    for split in ("val", "test"):
        audio, rgb = (
            read_scores(finished_project / f"results/scores/{model}/{split}.npz") for model in ("audio", "rgb")
        )
        assert audio.clip_ids.tolist() == rgb.clip_ids.tolist()
        assert audio.split == split
        np.testing.assert_allclose(audio.scores.sum(axis=1), 1, atol=1e-5)


def test_the_zoo_has_a_row_for_each_model_and_one_for_the_fusion(finished_project):
    text = (finished_project / "results/ZOO.md").read_text()
    zoo, methods = text.split("## Fusion methods")
    rows = [line for line in zoo.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 3
    assert rows[0].startswith("| config | n_fft | gpus | backbone | pretrain | top1 acc/delta | top5 acc/delta |")
    top1 = read_json(finished_project / "results/metrics/test/audio.json")["top1"]
    assert f"{100 * top1:.2f}" in rows[2]
    for line in rows[2:4]:
        for target in [part.split(")")[0] for part in line.split("](../")[1:]]:
            assert (finished_project / target).exists(), target
    names = [line.split("|")[1].strip() for line in methods.splitlines() if line.startswith("| ")]
    assert [name.removesuffix(" *") for name in names[2:]] == list(METHODS)
    (chosen,) = (name for name in names if name.endswith(" *"))
    assert chosen == f"{read_json(finished_project / 'results/metrics/fuse.json')['method']} *"


def test_every_stage_left_a_finished_run_with_time_memory_and_tags(finished_project):
    found = runs(finished_project, "avrecog-stages")
    names = sorted(run.info.run_name for run in found)
    assert names == sorted(
        ["prepare", "extract", "fuse", "report"]
        + [f"{stage} {model}" for stage in ("train", "test", "benchmark") for model in ("audio", "rgb")]
    )
    for run in found:
        assert run.info.status == "FINISHED"
        assert {"wall_s", "peak_memory_mib"} <= run.data.metrics.keys()
        assert {"stage", "hardware", "torch", "threads"} <= run.data.tags.keys()
    (tested,) = [run for run in found if run.info.run_name == "test audio"]
    assert {"val.top1", "val.log_loss", "test.top1_low", "test.top1_high"} <= tested.data.metrics.keys()


def test_a_row_of_mlflow_has_curves_metrics_speed_and_memory_side_by_side(finished_project):
    rows = {run.info.run_name: run for run in runs(finished_project, "avrecog")}
    assert rows.keys() == {"audio", "rgb", "fusion"}
    for row in rows.values():
        assert {"test.top1", "benchmark.videos_per_s", "benchmark.peak_memory_mib"} <= row.data.metrics.keys()
        assert {
            *("val.top1", "benchmark.parameters", "benchmark.macs", "benchmark.latency_ms.median"),
        } <= row.data.metrics.keys()
        for name in ("manifest", "splits"):
            content = (finished_project / f"data/{name}.csv").read_bytes()
            assert row.data.tags[f"data.{name}"] == hashlib.md5(content).hexdigest()
        assert {"hardware", "torch", "threads"} <= row.data.tags.keys()
    audio = rows["audio"]
    assert {"test.top1_low", "test.top1_high", "val.log_loss"} <= audio.data.metrics.keys()
    assert "test.val.top1" not in audio.data.metrics
    assert audio.data.params["train.lr"] == "0.02"
    assert audio.data.params["models.audio.depth"] == "10"
    assert audio.data.tags["model"] == "audio"
    curve = client(finished_project).get_metric_history(audio.info.run_id, "val_top1")
    assert [point.step for point in curve] == [1, 2, 3, 4]
    names = {item.path for item in client(finished_project).list_artifacts(audio.info.run_id)}
    assert {
        "confusion.png",
        "history.png",
        "reliability.png",
        "per_class.csv",
        "predictions.csv",
        "config.yaml",
    } <= names


def test_artifacts_lie_below_mlruns(finished_project):
    (run, *_) = runs(finished_project, "avrecog")
    assert run.info.artifact_uri.startswith(f"file://{finished_project}/mlruns/avrecog/")


def test_the_history_has_a_row_an_epoch_and_no_time_or_memory(finished_project):
    with (finished_project / "models/audio/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert list(rows[0]) == ["epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1"]


def test_training_again_gives_the_same_bytes(project):
    before = {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()}
    projects.run(project, "train", "audio")
    after = {path.name: path.read_bytes() for path in (project / "models/audio").iterdir()}
    assert after.keys() == {"best.ckpt", "last.ckpt", "history.csv", "config.yaml"}
    assert after == before


def test_another_seed_gives_other_weights(project):
    before = (project / "models/audio/last.ckpt").read_bytes()
    projects.write_params(project, projects.SMALL, {"train": {"seed": 1, "epochs": 1}})
    projects.run(project, "train", "audio")
    assert (project / "models/audio/last.ckpt").read_bytes() != before


def test_prepare_and_extract_again_give_the_same_bytes(project):
    names = ["data/manifest.csv", "data/splits.csv", "data/labels.txt", "data/report.json"]
    names += [f"data/features/{modality}/{name}" for modality in ("audio", "video") for name in STORE_FILES]
    before = [(project / name).read_bytes() for name in names]
    projects.run(project, "prepare")
    projects.run(project, "extract")
    assert [(project / name).read_bytes() for name in names] == before


def test_an_overridden_value_is_in_force_for_its_model_only(project, caplog):
    change = {"train": {"epochs": 1, "warmup_epochs": 0}, "models": {"rgb": {"train": {"lr": 0.005}}}}
    projects.write_params(project, projects.SMALL, change)
    with caplog.at_level("INFO"):
        projects.run(project, "train", "rgb")
    assert "lr 0.005 (models.rgb.train)" in caplog.text
    rows = (project / "models/rgb/history.csv").read_text().splitlines()
    assert float(rows[1].split(",")[1]) < 0.005


def test_result_json_is_the_list_of_score_lists(project):
    projects.write_params(project, projects.SMALL, {"test": {"result_json": True, "average_clips": "score"}})
    projects.run(project, "test", "audio")
    scores = read_scores(project / "results/scores/audio/test.npz")
    assert scores.kind == "logits"
    np.testing.assert_allclose(read_json(project / "results/scores/audio/result.json"), scores.scores, rtol=1e-6)


def test_models_of_another_list_are_not_fused(project):
    projects.write_params(project, projects.SMALL, {"pipeline": {"models": ["audio"]}})
    projects.run(project, "fuse")
    assert read_json(project / "results/metrics/fuse.json")["coefficients"] == {"audio": 1.0}


def test_a_stage_that_fails_says_why_without_a_traceback_and_its_run_is_failed(project, capsys):
    (project / "models/audio/best.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(SystemExit) as stop:
        projects.run(project, "test", "audio")
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "best.ckpt: is damaged or no checkpoint" in message
    assert "Traceback" not in message
    (failed,) = [run for run in runs(project, "avrecog-stages") if run.info.status == "FAILED"]
    assert failed.info.run_name == "test audio"
    assert "best.ckpt" in failed.data.tags["error"]


def test_a_wrong_parameter_stops_a_stage_before_it_does_anything(project, capsys):
    projects.write_params(project, projects.SMALL, {"train": {"learning_rat": 1, "epochs": True}})
    with pytest.raises(SystemExit) as stop:
        projects.run(project, "train", "audio")
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "train.learning_rat: unknown key" in message
    assert "train.epochs: expected a whole number, got true" in message
    assert (project / "models/audio/best.ckpt").exists()


def test_a_store_of_another_front_end_is_refused(project, capsys):
    projects.write_params(project, projects.SMALL, {"audio": {"logmel": {"n_mels": 40}}})
    with pytest.raises(SystemExit):
        projects.run(project, "train", "audio")
    assert "n_mels: 32 there, 40 here" in capsys.readouterr().err


def test_runs_of_an_experiment_in_another_folder_land_in_the_projects_store(project, tmp_path):
    n = len(runs(project, "avrecog-stages"))
    elsewhere = projects.copy_project(project, tmp_path / "elsewhere")
    projects.run(elsewhere, "fuse", root=project)
    assert len(runs(project, "avrecog-stages")) == n + 1


def test_the_stage_ends_in_one_line_for_people_and_one_for_programs(project, capsys):
    projects.run(project, "fuse")
    *_, words, line = capsys.readouterr().out.strip().splitlines()
    assert words.startswith("fuse: ")
    assert ", chosen on val: " in words
    assert json.loads(line)["stage"] == "fuse"


def test_a_clip_without_sound_is_left_out_of_the_fusion_and_counted(finished_project, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(finished_project / "clips", folder / "clips")
    shutil.copytree(finished_project / "mlruns", folder / "mlruns")
    make_video(folder / "clips/low/mute.mp4", n_frames=12, fps=12.5, width=64, height=64, with_audio=False)
    rows = [{"path": path.relative_to(folder), "label": path.parent.name} for path in sorted(folder.glob("clips/*/*"))]
    for index, row in enumerate(rows):
        row["split"] = "test" if row["path"].stem == "mute" else ("train", "train", "val", "test")[index % 4]
    write_annotation(folder / "clips.csv", rows)
    data = {"source": "csv", "annotation": "clips.csv"}
    projects.write_params(folder, projects.SMALL, {"data": data, "train": {"epochs": 1, "warmup_epochs": 0}})
    projects.run_all(folder)
    fusion = read_json(folder / "results/metrics/fuse.json")
    assert fusion["n_left_out"] == {"audio": 1}
    assert read_json(folder / "results/metrics/test/audio.json")["n_left_out"] == 1
    n_rgb = read_json(folder / "results/metrics/test/rgb.json")["n_clips"]
    assert fusion["n_clips"] == read_json(folder / "results/metrics/test/audio.json")["n_clips"] == n_rgb - 1


def test_rows_hold_all_parameters_that_could_tell_them_apart(finished_project):
    for row in runs(finished_project, "avrecog"):
        assert {"test.n_clips", "benchmark.repeats", "data.annotation", "fuse.n_trials"} <= row.data.params.keys()
    (fusion,) = [row for row in runs(finished_project, "avrecog") if row.info.run_name == "fusion"]
    assert fusion.data.params["models.rgb.train.lr"] == "0.02"


def test_the_manifest_is_tracked_as_a_dataset_with_the_digest_of_dvc(finished_project):
    (run,) = [run for run in runs(finished_project, "avrecog-stages") if run.info.run_name == "prepare"]
    (entry,) = run.inputs.dataset_inputs
    digest = hashlib.md5((finished_project / "data/manifest.csv").read_bytes()).hexdigest()
    assert (entry.dataset.name, entry.dataset.digest) == ("manifest", digest)


def test_a_store_made_from_another_manifest_is_refused(project, capsys):
    manifest = project / "data/manifest.csv"
    manifest.write_text(manifest.read_text().replace(",1.0,", ",0.9,", 1))
    with pytest.raises(SystemExit):
        projects.run(project, "train", "audio")
    assert "was made from another manifest than is there now; run `dvc repro extract`" in capsys.readouterr().err


def test_audio_begun_from_imagenet_is_standardised_too(project, monkeypatch):
    """The weights are made here: nothing is downloaded."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: create(name, **options))
    model = {"backbone": "resnet10t", "depth": None, "width": None, "init_from": "imagenet"}
    projects.write_params(
        project, projects.SMALL, {"models": {"audio": model}, "train": {"epochs": 1, "warmup_epochs": 0}}
    )
    projects.run(project, "train", "audio")
    weights = load_checkpoint(project / "models/audio/best.ckpt")["weights"]
    (mean,) = [float(value) for name, value in weights.items() if name.endswith("standardise.mean")]
    assert mean < -1


@pytest.mark.parametrize("seed", [0, 20251125, 2**63])
def test_any_seed_will_do(project, seed):
    projects.write_params(project, projects.SMALL, {"train": {"seed": seed, "epochs": 1, "warmup_epochs": 0}})
    projects.run(project, "train", "audio")
