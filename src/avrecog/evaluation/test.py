"""Stage test: clip scores of a trained model on val and test, and what they are worth."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avrecog.config import flatten
from avrecog.datasets.open import Features, open_features, open_split
from avrecog.datasets.view_scores import predict_scores
from avrecog.errors import CheckpointError
from avrecog.inference.engines import ENGINES
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
    gpu_memory_mib,
    oom_advice,
    peak_memory_mib,
    pick_device,
    reduced_precision,
    resolve_precision,
    synchronise,
)
from avrecog.runtime.files import atomic_path, write_table
from avrecog.scores.npz import write_scores
from avrecog.scores.predictions import FILE, write_predictions
from avrecog.scores.table import ScoreTable, Split, probabilities
from avrecog.tracking.history import EpochMetrics, read_history
from avrecog.tracking.outcome import Outcome

CALIBRATION_VIEWS = 128  # of training clips, for engines that need them


@dataclass(frozen=True)
class EvaluationPaths:
    """Where stage test reads and writes."""

    checkpoints: Path  # folder that stage train wrote
    data: Path  # folder of the tables and the stores
    scores: Path  # folder for the score files
    metrics: Path  # JSON file
    plots: Path  # folder for pictures and tables


def evaluate_model(name: str, paths: EvaluationPaths, config: TestConfig) -> Outcome:
    """Score val and test with a trained model.

    Writes `val.npz` and `test.npz`, the metrics of test with the few of val that people choose by, and into
    `paths.plots` what it said about every test clip, the per-class table, the confusion matrix, the reliability diagram
    and the training curves.

    Raises:
        CheckpointError: if the checkpoint is of other classes than the manifest has.
    """
    model = load_model(paths.checkpoints / f"{config.checkpoint}.ckpt", name)
    tables = LabelledClips.read(paths.data)
    if list(model.input.classes or tables.classes) != model.classes:
        raise CheckpointError(
            f"{paths.checkpoints}: was trained on other classes than {paths.data}/labels.txt has; run `dvc repro train`"
        )
    precision = resolve_precision(ENGINES[config.engine].precision(config.precision))
    features = open_features(model.input, model.front_end, paths.data / "features", tables)
    val, table, seconds = _score_splits(model, features, config, precision)
    for each in (val, table):
        write_scores(paths.scores / f"{each.split}.npz", each)
    test_probabilities = probabilities(table)
    test = classification_metrics(test_probabilities, table.labels)
    low, high = bootstrap_interval(correct_clips(test_probabilities, table.labels))
    # a list would not be shown by dvc
    test |= {"top1_low": low, "top1_high": high, "n_left_out": len(table.left_out)}
    test["inference_ms_per_clip"] = seconds / len(table.labels) * 1000
    on_val = classification_metrics(probabilities(val), val.labels)
    measured = {"test": test, "val": {key: on_val[key] for key in ("top1", "log_loss", "n_clips")}}
    facts = {"precision": precision, "engine": config.engine}
    device = device_name(pick_device())
    metrics = {
        **measured["test"],
        "val": measured["val"],
        "checkpoint": config.checkpoint,
        **facts,
        "peak_memory_mib": peak_memory_mib(),
        "gpu_memory_mib": gpu_memory_mib(),
        "device": device,
    }
    with atomic_path(paths.metrics) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    if config.result_json:
        _write_result_json(paths.scores / "result.json", table)
    files = _write_plots(paths.plots, table, test_probabilities, read_history(paths.checkpoints / "history.csv"))
    summary = (
        f"{name} (epoch {model.epoch}), {test['n_clips']:,} test clips: top-1 {test['top1']:.3f}, top-5 "
        f"{test['top5']:.3f}, mean class accuracy {test['mean_class_accuracy']:.3f}; {test['n_left_out']} clips lack "
        f"what it needs; {test['inference_ms_per_clip']:.1f} ms a clip on {device}"
    )
    return Outcome(summary, {key: float(value) for key, value in flatten(measured)}, files=files, facts=facts)


def _score_splits(
    model: TrainedModel, features: Features, config: TestConfig, precision: str
) -> tuple[ScoreTable, ScoreTable, float]:
    """The scores of val and of test, and the seconds that those of test took."""
    device, tables, seconds = pick_device(), [], 0.0
    engine = ENGINES[config.engine]
    network = engine.start(model, device, _calibration(model, features) if engine.needs_calibration else ())
    splits: tuple[Split, Split] = ("val", "test")
    for split in splits:
        opened = open_split(model.input, features, split)
        began = time.perf_counter()
        with reduced_precision(device, precision), oom_advice("lower test.batch_size"):
            values = predict_scores(
                network,
                opened.clips,
                n_views=config.n_clips,
                batch_size=config.batch_size,
                device=device,
                average=config.average_clips,
                progress=True,
            )
        synchronise(device)
        seconds = time.perf_counter() - began  # of the last split, test
        tables.append(
            ScoreTable(
                clip_ids=np.array(opened.clips.clip_ids),
                labels=opened.clips.labels,
                scores=values,
                classes=tuple(model.classes),
                kind="probabilities" if config.average_clips == "prob" else "logits",
                model=model.name,
                split=split,
                left_out=np.array(opened.left_out, dtype=str),
            )
        )
    val, test = tables
    return val, test, seconds


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


def _write_plots(
    plots: Path, table: ScoreTable, test_probabilities: np.ndarray, history: list[EpochMetrics]
) -> list[Path]:
    plots.mkdir(parents=True, exist_ok=True)
    files = [plots / name for name in ("per_class.csv", "confusion.png", "reliability.png", "history.png", FILE)]
    write_table(files[0], per_class_table(test_probabilities, table.labels, table.classes))
    matrix = confusion_matrix(test_probabilities, table.labels)
    plot_confusion(matrix, table.classes, files[1])
    plot_reliability(reliability_bins(test_probabilities, table.labels), files[2])
    plot_history(history, files[3])
    write_predictions(files[4], table.clip_ids, table.labels, test_probabilities, table.classes)
    return [file for file in files if file.exists()]  # a picture that can't be drawn is left out
