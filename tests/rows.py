"""Rows of MLflow's experiment `avrecog` as plain data, and what their models said, made up from a seed."""

from typing import Any

import numpy as np

from avrecog.experiments.tracked_rows import TrackedRun
from avrecog.scores.predictions import Predictions, predictions_from

CLASSES = ("a", "b", "c")
SHARES_RIGHT = {"audio": 0.6, "rgb": 0.5, "fusion": 0.8}
BASE = {"data.annotation": "clips.csv", "pipeline.models": "['audio', 'rgb']", "test.n_clips": "3"}


def said(clips: list[str], share_right: float, seed: int) -> Predictions:
    """A model's word on clips; a clip's label follows from its name."""
    labels = np.array([sum(clip.encode()) % 3 for clip in clips])
    rng = np.random.default_rng(seed)
    top = np.where(rng.random(len(clips)) < share_right, labels, (labels + 1) % 3)
    return predictions_from(clips, labels, 0.7 * np.eye(3)[top] + 0.1, CLASSES)


def experiment(
    fold: int | None, seed: int, *, n_clips: int = 20, started: int = 0, lr: str = "0.1", **tags: str
) -> tuple[list[TrackedRun], dict[str, Predictions]]:
    """The three rows of a report, and their predictions by run id."""
    rows, predictions = [], {}
    for number, (model, share) in enumerate(SHARES_RIGHT.items()):
        run_id = f"{number}{0 if fold is None else fold + 1:02}{seed:02}{started:07}{'' if lr == '0.1' else 'f'}"
        run_id = run_id.ljust(32, "0")
        table = said([f"f{fold}c{i}" for i in range(n_clips)], share, int(run_id[:12]))
        own: dict[str, Any] = {"train.lr": lr, "train.seed": str(seed)}
        params = {**BASE, "data.test_fold": str(fold)}
        if model == "fusion":
            params |= {f"models.{name}.{key}": value for name in ("audio", "rgb") for key, value in own.items()}
            params["coefficients.audio"] = f"0.{started}"
        else:
            params |= own
        top1 = float(table.correct.mean())
        metrics = {"test.top1": top1, "test.mean_class_accuracy": top1, "test.n_clips": float(n_clips)}
        origin = {"process": f"vm boot {fold}{seed}{started}{lr} 1", "stage": "report", "model": model}
        rows.append(TrackedRun(run_id, model, started, params, origin | {"git.commit": "a" * 40} | tags, metrics))
        predictions[run_id] = table
    return rows, predictions


def grid(
    folds: list[int | None], seeds: list[int], n_clips: int = 20, **more: Any
) -> tuple[list[TrackedRun], dict[str, Predictions]]:
    """Rows and predictions of every fold with every seed."""
    rows, predictions = [], {}
    for fold in folds:
        for seed in seeds:
            found, tables = experiment(fold, seed, n_clips=n_clips, **more)
            rows += found
            predictions |= tables
    return rows, predictions
