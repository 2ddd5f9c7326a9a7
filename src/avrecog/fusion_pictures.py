"""Pictures of a late fusion: accuracy over the weights, the confusion matrix, the table of trials."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avrecog import plots
from avrecog.fusion import Domain, FuseConfig, FusionObjective, blocks
from avrecog.fusion_methods import Fusion, calibrated, logarithms
from avrecog.metrics import confusion_matrix
from avrecog.scores import ScoreTable
from avrecog.tables import write_table

if TYPE_CHECKING:
    from avrecog.tuning import Trial

LABELS = {"top1": "top-1 accuracy", "mean_class_accuracy": "mean class accuracy", "log_loss": "negative log-loss"}


def draw_fusion(
    fused: Fusion,
    shown: Fusion,
    tried: "Sequence[Trial]",
    val: tuple[np.ndarray, ScoreTable],
    test: tuple[np.ndarray, ScoreTable],
    config: FuseConfig,
    folder: Path,
) -> list[Path]:
    """Write the table of trials and the pictures; the paths of those that there are.

    A picture that can't be drawn is left out.

    Args:
        fused: what is reported on test.
        shown: what the picture of the weights is of: `fused`, or where that has no weights another one.
        tried: the trials of `shown`.
        val: the (M, N, K) probabilities and a table with the labels.
        test: likewise.
        config: section `fuse`.
        folder: where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    confusion = folder / "fusion_confusion.png"
    probabilities, labels = test[0], test[1].labels
    counts = (confusion_matrix(fused(probabilities[:, block]), labels[block]) for block in blocks(len(labels)))
    matrix = functools.reduce(np.add, counts)
    plots.plot_confusion(matrix, test[1].classes, confusion, title="Confusion on test, fused")
    files = [confusion] if confusion.exists() else []
    if tried:
        files.append(folder / "fusion_trials.csv")
        write_table(
            files[-1],
            [{"number": t.number, **t.coefficients, "value": t.value, "log_loss": t.log_loss} for t in tried],
        )
    picture = folder / "fusion.png"
    label = f"{LABELS[config.objective]} ({shown.method})"
    models = shown.models
    weights = np.array([list(trial.coefficients.values()) for trial in tried])
    values = np.array([trial.value for trial in tried])
    if shown.method == "stacking":
        return files
    if len(models) == 2:
        steps = np.linspace(0, 1, 101)
        points = np.stack([steps, 1 - steps], axis=1)
        curves = {split: _worth(points, shown, *each, config) for split, each in {"val": val, "test": test}.items()}
        plots.plot_fusion_curve(steps, curves, (models[0], models[1]), float(shown.weights[0]), picture, label)
    elif len(models) == 3:
        grid = np.array([(i, j, 20 - i - j) for i in range(21) for j in range(21 - i)]) / 20
        area = _worth(grid, shown, *val, config)
        places, worths = (weights, values) if tried else (grid, area)
        plots.plot_fusion_ternary(places, worths, models, shown.weights, picture, (grid, area), f"{label} on val")
    elif tried and len(models) > 3:
        plots.plot_fusion_parallel(weights, values, models, shown.weights, picture, f"{label} on val")
    else:
        return files
    return [picture, *files] if picture.exists() else files


def _worth(points: np.ndarray, shown: Fusion, stack: np.ndarray, table: ScoreTable, config: FuseConfig) -> np.ndarray:
    """What (P, M) weights are worth, in the domain in which the method takes them: (P,)."""
    domain: Domain = "probability"
    if shown.method == "log_weights":
        stack, domain = logarithms(stack), "log"
    elif shown.method == "temperature":
        stack = calibrated(stack, shown.temperatures)
    objective = FusionObjective(stack, table.labels, config.objective, domain)
    return np.array([objective(point) for point in points])
