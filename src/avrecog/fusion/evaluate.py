"""The metrics of a fusion on a split, beside the best single model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avrecog.fusion.methods.base import Fusion
from avrecog.fusion.settings import FuseConfig
from avrecog.metrics import (
    bootstrap_gain,
    bootstrap_interval,
    classification_metrics,
    correct_clips,
    mcnemar_exact,
    top_k_accuracy,
)

REPORTED = ("top1", "top5", "mean_class_accuracy")


@dataclass(frozen=True, eq=False)
class BestSingleModel:
    """The model that is best alone on a split."""

    model: str
    top1: float
    top5: float
    correct: np.ndarray  # (N,) booleans

    @classmethod
    def of(cls, models: Sequence[str], stack: np.ndarray, labels: np.ndarray) -> "BestSingleModel":
        """The one of highest top-1, then top-5, then the first, of (M, N, K) probabilities."""
        singles = [
            cls(name, top_k_accuracy(table, labels, 1), top_k_accuracy(table, labels, 5), correct_clips(table, labels))
            for name, table in zip(models, stack, strict=True)
        ]
        return max(singles, key=lambda single: (single.top1, single.top5))


def evaluate(
    fusion: Fusion, stack: np.ndarray, labels: np.ndarray, single: BestSingleModel, config: FuseConfig
) -> dict[str, dict[str, Any]]:
    """The metrics of a fusion on a split: `fused`, `best_single` and `gain`, as fuse.json has them."""
    scores = fusion(stack)
    numbers = classification_metrics(scores, labels)
    correct = correct_clips(scores, labels)
    low, high = bootstrap_interval(correct, config.n_resamples, config.seed)
    return {
        "fused": {**{name: numbers[name] for name in REPORTED}, "top1_low": low, "top1_high": high},
        "best_single": {"model": single.model, "top1": single.top1},
        "gain": {
            "top1": numbers["top1"] - single.top1,
            "top5": numbers["top5"] - single.top5,
            "top1_ci95": list(bootstrap_gain(correct, single.correct, config.n_resamples, config.seed)),
            "p_value": mcnemar_exact(correct, single.correct),
        },
    }
