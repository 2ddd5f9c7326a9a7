"""Pictures of a late fusion: accuracy over the weights, the confusion matrix, the table of trials."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avrecog.fusion.methods.base import Fusion
from avrecog.fusion.objective import FusionObjective
from avrecog.fusion.settings import FuseConfig
from avrecog.fusion.weighted_sum import blocks
from avrecog.metrics import confusion_matrix
from avrecog.plots import BLUE, GREEN, GREY, ORANGE, RED, annotate, drawing, optional_picture, plot_confusion
from avrecog.runtime.files import write_table
from avrecog.scores.stack import ScoreStack

if TYPE_CHECKING:
    from avrecog.fusion.weight_search import WeightTrial

LABELS = {"top1": "top-1 accuracy", "mean_class_accuracy": "mean class accuracy", "log_loss": "negative log-loss"}


def draw_fusion(
    fused: Fusion,
    drawn: Fusion,
    folder: Path,
    *,
    trials: "Sequence[WeightTrial]",
    val: ScoreStack,
    test: ScoreStack,
    config: FuseConfig,
) -> list[Path]:
    """Write the table of trials and the pictures; the paths of those that there are.

    A picture that can't be drawn is left out.

    Args:
        fused: what is reported on test.
        drawn: whose weights a picture shows: `fused`, or where a picture of its weights tells nothing another one.
        folder: where to.
        trials: those of `drawn`.
        val: the scores of val.
        test: the scores of test.
        config: section `fuse`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    confusion, picture = folder / "fusion_confusion.png", folder / "fusion.png"
    probabilities, labels = test.probabilities, test.labels
    counts = (confusion_matrix(fused(probabilities[:, block]), labels[block]) for block in blocks(len(labels)))
    plot_confusion(functools.reduce(np.add, counts), test.classes, confusion, title="Confusion on test, fused")
    files = [confusion] if confusion.exists() else []
    if trials:
        files.append(folder / "fusion_trials.csv")
        write_table(
            files[-1],
            [{"number": t.number, **t.coefficients, "value": t.value, "log_loss": t.log_loss} for t in trials],
        )
    n_models = len(drawn.models)
    if drawn.drawn_weights is None or n_models == 1 or (n_models > 3 and not trials):
        return files
    if n_models == 2:
        _draw_two(drawn, drawn.drawn_weights, {"val": val, "test": test}, config, picture)
    else:
        _draw_more(drawn, drawn.drawn_weights, val, config, picture, trials=trials)
    return [picture, *files] if picture.exists() else files


def _draw_two(
    fusion: Fusion, chosen: np.ndarray, splits: Mapping[str, ScoreStack], config: FuseConfig, picture: Path
) -> None:
    steps = np.linspace(0, 1, 101)
    points = np.stack([steps, 1 - steps], axis=1)
    curves = {name: _objective_values(points, fusion, split, config) for name, split in splits.items()}
    models = fusion.models[0], fusion.models[1]
    plot_fusion_curve(steps, curves, models, float(chosen[0]), picture, label=_label(fusion, config))


def _draw_more(
    fusion: Fusion,
    chosen: np.ndarray,
    val: ScoreStack,
    config: FuseConfig,
    picture: Path,
    *,
    trials: "Sequence[WeightTrial]",
) -> None:
    label = f"{_label(fusion, config)} on val"
    weights = np.array([list(trial.coefficients.values()) for trial in trials])
    values = np.array([trial.value for trial in trials])
    if len(fusion.models) > 3:
        plot_fusion_parallel(weights, values, fusion.models, chosen, picture, label=label)
        return
    grid = np.array([(i, j, 20 - i - j) for i in range(21) for j in range(21 - i)]) / 20
    area = _objective_values(grid, fusion, val, config)
    places, values = (weights, values) if trials else (grid, area)
    plot_fusion_ternary(places, values, fusion.models, chosen, picture, background=(grid, area), label=label)


def _label(fusion: Fusion, config: FuseConfig) -> str:
    return f"{LABELS[config.objective]} ({fusion.name})"


def _objective_values(points: np.ndarray, fusion: Fusion, split: ScoreStack, config: FuseConfig) -> np.ndarray:
    """(P,) values of the objective by (P, M) weights, on what the fusion's weights are of."""
    values, domain = fusion.weighted_values(split.probabilities)
    objective = FusionObjective(values, split.labels, config.objective, domain)
    return np.array([objective(point) for point in points])


@optional_picture
def plot_fusion_curve(
    weights: np.ndarray,
    curves: Mapping[str, np.ndarray],
    models: tuple[str, str],
    chosen: float,
    path: Path,
    *,
    label: str = "top-1 accuracy",
) -> None:
    """Write a picture of accuracy over the weight of the first of two models.

    Args:
        weights: (W,) from 0 (the second model alone) to 1 (the first alone), with 0.5 among them.
        curves: split -> (W,) value of the fusion on that split.
        models: the names.
        chosen: the weight in use.
        path: the PNG to write.
        label: what the values are.
    """
    first, second = models
    with drawing(path, (7.2, 4.4)) as figure:
        axes = figure.add_subplot()
        colours = (BLUE, ORANGE, GREEN)[: len(curves)]
        for (name, values), colour in zip(curves.items(), colours, strict=True):  # a fourth is an error, not left out
            axes.plot(weights, values, color=colour, label=name)
            at = {weight: float(np.interp(weight, weights, values)) for weight in (0.0, 0.5, 1.0, chosen)}
            axes.plot([0, 1], [at[0.0], at[1.0]], "o", color=colour, markersize=6, clip_on=False)
            axes.plot([0.5], [at[0.5]], "D", color=colour, markerfacecolor="white", markersize=6)
            axes.plot([chosen], [at[chosen]], "*", color=colour, markersize=15, markeredgecolor="white")
            on_top = at[chosen] >= max(float(np.interp(chosen, weights, other)) for other in curves.values())
            annotate(axes, f"{at[chosen]:.3f}", (chosen, at[chosen]), 9 if on_top else -19, colour)
        axes.axvline(chosen, color=GREY, linestyle=":", linewidth=1.2, zorder=0)
        for marker, text, face in (
            ("o", "one model alone", GREY),
            ("D", "equal weights", "white"),
            ("*", "these weights", GREY),
        ):
            axes.plot([], [], marker, color=GREY, markerfacecolor=face, label=text)
        axes.margins(y=0.14)
        axes.set(
            xlim=(0, 1),
            xlabel=f"weight of {first}",
            ylabel=label,
            title=f"{first} {chosen:.3g} + {second} {1 - chosen:.3g}",
        )
        axes.set_xticks(np.linspace(0, 1, 6), [f"0\nonly {second}", "0.2", "0.4", "0.6", "0.8", f"1\nonly {first}"])
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


@optional_picture
def plot_fusion_ternary(
    coefficients: np.ndarray,
    values: np.ndarray,
    models: Sequence[str],
    chosen: np.ndarray,
    path: Path,
    *,
    background: tuple[np.ndarray, np.ndarray] | None = None,
    label: str = "top-1 accuracy on val",
) -> None:
    """Write a triangle whose corners are three models alone, with a point for each set of coefficients tried.

    Args:
        coefficients: (T, 3), rows sum to 1.
        values: (T,) of the objective.
        models: three names.
        chosen: (3,) the coefficients in use.
        path: the PNG to write.
        background: (B, 3) coefficients and (B,) values over the whole triangle, drawn as areas below the points.
        label: what the values are.
    """
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    everything = np.concatenate([values, background[1] if background else values[:0]])
    low, high = float(everything.min()), float(everything.max())
    with drawing(path, (6.6, 5.2)) as figure:
        axes = figure.add_subplot()
        axes.axis("off")
        axes.set_aspect("equal")
        if background is not None:
            x, y = (background[0] @ corners).T
            levels = np.linspace(low, high + 1e-9, 12) if high > low else np.array([low - 1e-3, low + 1e-3])
            axes.tricontourf(x, y, background[1], levels=levels, cmap="viridis", alpha=0.55)
        axes.plot(*corners[[0, 1, 2, 0]].T, color="#4a5568", linewidth=1.2)
        for share in (0.25, 0.5, 0.75):
            for index in range(3):
                other, third = (index + 1) % 3, (index + 2) % 3
                ends = share * corners[index] + (1 - share) * corners[[other, third]]
                axes.plot(*ends.T, color="white" if background else "#e2e8f0", linewidth=0.7, zorder=1)
        x, y = (coefficients @ corners).T
        points = axes.scatter(
            x, y, c=values, cmap="viridis", vmin=low, vmax=high, s=26, edgecolor="white", linewidth=0.5, zorder=3
        )
        star = {"color": RED, "markersize": 18, "markeredgecolor": "white"}
        axes.plot(*(chosen @ corners), "*", **star, zorder=4, label="chosen")
        axes.plot(*corners.mean(axis=0), "D", color="white", markeredgecolor="#1a202c", zorder=4, label="equal weights")
        for corner, name, lift in zip(corners, models, (-0.07, -0.07, 0.035), strict=True):
            axes.text(corner[0], corner[1] + lift, name, ha="center", fontweight="bold")
        axes.legend(loc="upper left", bbox_to_anchor=(-0.08, 1.0))
        figure.colorbar(points, ax=axes, fraction=0.04, pad=0.04, label=label)
        title = " + ".join(f"{name} {weight:.3g}" for name, weight in zip(models, chosen, strict=True))
        figure.suptitle(title, fontsize=11, fontweight="bold")


@optional_picture
def plot_fusion_parallel(
    coefficients: np.ndarray,
    values: np.ndarray,
    models: Sequence[str],
    chosen: np.ndarray,
    path: Path,
    *,
    label: str = "top-1 accuracy on val",
) -> None:
    """Write parallel coordinates: an axis a model, a line for each of (T, M) coefficients tried, the best on top."""
    order = np.argsort(values, kind="stable")
    low, high = float(values.min()), float(values.max())
    with drawing(path, (max(6.0, 1.5 * len(models) + 2), 4.4)) as figure:
        axes = figure.add_subplot()
        positions = np.arange(len(models))
        colours = _colours((values - low) / max(high - low, 1e-12))
        for index in order:
            axes.plot(positions, coefficients[index], color=colours[index], linewidth=1, alpha=0.6)
        axes.plot(positions, chosen, color=RED, linewidth=2.6, marker="*", markersize=12, label="chosen")
        axes.axhline(1 / len(models), color=GREY, linestyle="--", linewidth=1, label="equal weights")
        axes.grid(axis="y", visible=False)
        axes.set_xticks(positions, models, fontweight="bold")
        top = min(1.02, float(max(coefficients.max(), chosen.max())) + 0.02)
        axes.set(ylabel="coefficient", ylim=(-0.02, top), xlim=(-0.15, len(models) - 0.85))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        figure.suptitle(f"{len(values)} trials", fontsize=11, fontweight="bold")
        figure.colorbar(_scale(low, high), ax=axes, fraction=0.04, pad=0.03, label=label)


def _colours(shares: np.ndarray) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](shares)


def _scale(low: float, high: float) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(low, high), "viridis")
