"""Random scores of made-up models, as arrays and as score files."""

import dataclasses
from pathlib import Path

import numpy as np

from avrecog.fusion.selection import Fitted, fit_methods
from avrecog.fusion.settings import FuseConfig
from avrecog.scores.npz import write_scores
from avrecog.scores.table import ScoreTable

MODELS = ("audio", "rgb", "flow", "avslowfast")
CLASSES = tuple(f"{action}_{material}" for action in ("tap", "roll") for material in ("wood", "metal", "glass"))
CONFIG = FuseConfig(n_trials=10, n_folds=2)


def softmax_scores(logits: np.ndarray) -> np.ndarray:
    """Their probabilities over the last axis, float32."""
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)


def random_scores(seed: int, n_models: int = 2, n_clips: int = 45, n_classes: int = 4):
    """(M, N, K) probabilities, better than chance, with N labels and clip ids."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_clips)
    logits = rng.normal(size=(n_models, n_clips, n_classes)) * 1.5
    logits[:, np.arange(n_clips), labels] += rng.uniform(0.5, 2.5, (n_models, 1))
    ids = [f"clip{i:03}" for i in rng.permutation(n_clips)]
    return softmax_scores(logits), labels, ids


def fit(stack, labels, ids, models=None, **config) -> dict[str, Fitted]:
    """Every method fitted on these clips with a few trials."""
    return fit_methods(stack, labels, ids, models or list(MODELS[: len(stack)]), dataclasses.replace(CONFIG, **config))


def write_model_scores(folder: Path) -> Path:
    """Score files of models that know different halves: fusion must win. Each has its rows in an order of its own."""
    rng = np.random.default_rng(0)
    for split, n_clips in (("val", 150), ("test", 200)):
        labels = rng.integers(0, len(CLASSES), n_clips)
        for index, model in enumerate(MODELS):
            logits = rng.normal(size=(n_clips, len(CLASSES)))
            logits[np.arange(n_clips), labels] += 1.8 - 0.3 * index
            order = rng.permutation(n_clips)
            ids = np.array([f"{split}{i:03}" for i in range(n_clips)])
            table = ScoreTable(
                ids[order], labels[order], logits[order].astype(np.float32), CLASSES, "logits", model, split
            )
            write_scores(folder / model / f"{split}.npz", table)
    return folder
