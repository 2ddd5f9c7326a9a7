"""Stage test: clip scores of a trained model on val and test, and what they are worth."""

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avrecog.datasets.open import Features, open_features, open_split
from avrecog.datasets.view_scores import predict_scores
from avrecog.errors import CheckpointError
from avrecog.inference.engines import engine_precision, start_engine
from avrecog.inference.settings import TestConfig
from avrecog.inference.trained_model import TrainedModel, load_model
from avrecog.manifest import LabelledClips
from avrecog.metrics import (
    bootstrap_interval,
    classification_metrics,
    confusion_matrix,
    correct_clips,
    per_class_table,
    reliability_bins,
)
from avrecog.plots import plot_confusion, plot_history, plot_reliability
from avrecog.runtime.device import (
    device_name,
    explained_out_of_memory,
    gpu_memory_mib,
    peak_memory_mib,
    pick_device,
    precision_in_force,
    reduced_precision,
    synchronise,
)
from avrecog.runtime.files import atomic_path, write_table
from avrecog.scores.npz import write_scores
from avrecog.scores.predictions import FILE, write_predictions
from avrecog.scores.table import ScoreTable, probabilities
from avrecog.tracking.history import Row, read_history, write_history
from avrecog.tracking.outcome import Outcome

CALIBRATION_VIEWS = 128  # of training clips, for engine onnxruntime-int8


def evaluate_model(
    name: str,
    checkpoints: Path,
    data: Path,
    config: TestConfig,
    scores: Path,
    metrics_path: Path,
    plots: Path,
    curve: Path,
) -> Outcome:
    """Score val and test with a trained model.

    Writes `scores/val.npz` and `scores/test.npz`, the metrics of test with the few of val that people choose by, and
    into `plots` what it said about every test clip, the per-class table, the confusion matrix, the reliability diagram
    and the training curves; those go to `curve` as numbers too, a file that DVC can draw, unlike one of many in
    `checkpoints`.

    Raises:
        CheckpointError: if the checkpoint is of other classes than the manifest has.
    """
    model = load_model(checkpoints / f"{config.checkpoint}.ckpt", name)
    tables = LabelledClips.read(data)
    if list(model.input.classes or tables.classes) != model.classes:
        raise CheckpointError(
            f"{checkpoints}: was trained on other classes than {data}/labels.txt has; run `dvc repro train`"
        )
    device = pick_device()
    results: dict[str, ScoreTable] = {}
    precision = precision_in_force(engine_precision(config.engine, config.precision))
    features = open_features(model.input, model.front_end, data / "features", tables)
    calibration = _calibration(model, features) if config.engine == "onnxruntime-int8" else ()
    network = start_engine(config.engine, model, device, calibration)
    seconds = 0.0
    for split in ("val", "test"):
        opened = open_split(model.input, features, split)
        clips = opened.clips
        began = time.perf_counter()
        with reduced_precision(device, precision), explained_out_of_memory("lower test.batch_size"):
            values = predict_scores(
                network, clips, config.n_clips, config.batch_size, device, config.average_clips, progress=True
            )
        synchronise(device)
        seconds = time.perf_counter() - began  # of the last split, test
        results[split] = ScoreTable(
            clip_ids=np.array(clips.clip_ids),
            labels=clips.labels,
            scores=values,
            classes=tuple(model.classes),
            kind="probabilities" if config.average_clips == "prob" else "logits",
            model=name,
            split=split,
            left_out=np.array(opened.left_out, dtype=str),
        )
        write_scores(scores / f"{split}.npz", results[split])
    table = results["test"]
    test_probabilities = probabilities(table)
    numbers = classification_metrics(test_probabilities, table.labels)
    low, high = bootstrap_interval(correct_clips(test_probabilities, table.labels))
    on_val = classification_metrics(probabilities(results["val"]), results["val"].labels)
    val = {key: on_val[key] for key in ("top1", "log_loss", "n_clips")}
    ms_per_clip = seconds / len(table.labels) * 1000
    metrics = {
        **numbers,
        "top1_low": low,  # of the 95 % interval; a list would not be shown by dvc
        "top1_high": high,
        "val": val,
        "n_left_out": len(table.left_out),
        "checkpoint": config.checkpoint,
        "precision": precision,
        "engine": config.engine,
        "inference_ms_per_clip": ms_per_clip,
        "peak_memory_mib": peak_memory_mib(),
        "gpu_memory_mib": gpu_memory_mib(),
        "device": device_name(device),
    }
    with atomic_path(metrics_path) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    if config.result_json:
        _write_result_json(scores / "result.json", table)
    history = read_history(checkpoints / "history.csv")
    write_history(curve, history)
    files = _write_plots(plots, table, test_probabilities, history)
    summary = (
        f"{name} (epoch {model.epoch}), {numbers['n_clips']:,} test clips: top-1 {numbers['top1']:.3f}, top-5 "
        f"{numbers['top5']:.3f}, mean class accuracy {numbers['mean_class_accuracy']:.3f}; "
        f"{len(table.left_out)} clips lack what it needs; {ms_per_clip:.1f} ms a clip "
        f"on {metrics['device']}"
    )
    logged: dict[str, float | None] = {f"test.{key}": float(value) for key, value in numbers.items()}
    logged |= {f"val.{key}": float(value) for key, value in val.items()}
    logged |= {"test.top1_low": low, "test.top1_high": high}
    logged |= {"test.inference_ms_per_clip": ms_per_clip, "test.n_left_out": len(table.left_out)}
    return Outcome(summary, logged, files=files, facts={"precision": precision, "engine": config.engine})


def _calibration(model: TrainedModel, features: Features) -> list[tuple[Tensor, ...]]:
    """Views of training clips, evenly picked."""
    clips = open_split(model.input, features, "train").clips
    views = clips.views(1)
    chosen = views[np.linspace(0, len(views) - 1, min(len(views), CALIBRATION_VIEWS)).astype(int)]
    return [clips.view_batch(batch, torch.device("cpu")) for batch in np.array_split(chosen, -(-len(chosen) // 16))]


def _write_result_json(path: Path, table: ScoreTable) -> None:
    """A list of score lists in the order of the clips, as MMAction2's `--out result.json`."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(table.scores.tolist()), encoding="utf-8")


def _write_plots(plots: Path, table: ScoreTable, test_probabilities: np.ndarray, history: list[Row]) -> list[Path]:
    plots.mkdir(parents=True, exist_ok=True)
    files = [plots / name for name in ("per_class.csv", "confusion.png", "reliability.png", "history.png", FILE)]
    write_table(files[0], per_class_table(test_probabilities, table.labels, table.classes))
    matrix = confusion_matrix(test_probabilities, table.labels)
    plot_confusion(matrix, table.classes, files[1])
    plot_reliability(reliability_bins(test_probabilities, table.labels), files[2])
    plot_history(history, files[3])
    write_predictions(files[4], table.clip_ids, table.labels, test_probabilities, table.classes)
    return [file for file in files if file.exists()]  # a picture that can't be drawn is left out
