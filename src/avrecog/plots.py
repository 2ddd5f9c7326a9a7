"""Pictures of results, as PNG files whose bytes are the same for the same numbers.

matplotlib is imported when a picture is drawn, never before, and needs no screen. A picture that can't be drawn never
ends a stage, whose numbers stand in tables. Text is drawn as it is written: a class may be called `Ba$$ guitar`.
"""

import contextlib
import functools
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np

from avrecog.atomic import atomic_path
from avrecog.metrics import ReliabilityBins

log = logging.getLogger(__name__)

DPI = 110
BLUE, ORANGE, GREY, GREEN, RED = "#2b6cb0", "#dd6b20", "#718096", "#2f855a", "#e53e3e"
MAX_NAMED_CLASSES = 40  # above, a confusion matrix shows class indices
MAX_NUMBERED_CLASSES = 20  # above, its cells are too small for numbers

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#4a5568",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.parse_math": False,
}

Arguments = ParamSpec("Arguments")


def _picture(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorator for what writes a picture to its argument `path`: where it fails, a warning and no picture."""

    @functools.wraps(draw)
    def drawn_or_told(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except OSError:  # a full disk: what stands beside the picture meets it too
            raise
        except Exception as error:  # noqa: BLE001  matplotlib raises anything
            path: Path = inspect.signature(draw).bind(*args, **kwargs).arguments["path"]
            path.unlink(missing_ok=True)  # of a run before
            log.warning("%s: can't be drawn and is left out (%s: %s)", path, type(error).__name__, str(error)[:300])

    return drawn_or_told


@_picture
def plot_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path, title: str = "") -> None:
    """Write a picture of a (K, K) confusion matrix: rows true, columns predicted.

    Colours are shares of each true class, numbers (up to 20 classes) are clips.
    """
    n_classes = len(classes)
    side = min(14.0, max(4.2, 0.45 * n_classes + 2.2)) if n_classes <= MAX_NAMED_CLASSES else 9.0
    totals = matrix.sum(axis=1, keepdims=True)
    share = matrix / np.maximum(totals, 1)
    with drawing(path, (side + 0.8, side)) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="top class", ylabel="true class", title=title or f"Confusion of {int(matrix.sum()):,} clips")
        figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="share of the true class")
        if n_classes <= MAX_NAMED_CLASSES:
            axes.set_xticks(range(n_classes), classes, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(n_classes), classes)
        if n_classes <= MAX_NUMBERED_CLASSES:
            for row, column in zip(*np.nonzero(matrix), strict=True):
                colour = "white" if share[row, column] > 0.5 else "#1a202c"
                axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color=colour, fontsize=9)


@_picture
def plot_reliability(bins: ReliabilityBins, path: Path, title: str = "") -> None:
    """Write a reliability diagram: accuracy by confidence above, how many clips below."""
    filled = bins.n_clips > 0
    width = float(bins.edges[1] - bins.edges[0])
    centres = (bins.edges[:-1] + bins.edges[1:]) / 2
    error = float(np.average(np.abs(bins.accuracy - bins.confidence)[filled], weights=bins.n_clips[filled]))
    with drawing(path, (5.2, 5.8)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        upper.bar(centres[filled], bins.accuracy[filled], width * 0.94, color=BLUE, label="accuracy")
        left, right = centres[filled] - width * 0.47, centres[filled] + width * 0.47
        upper.hlines(bins.confidence[filled], left, right, color=ORANGE, linewidth=3, label="mean confidence")
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=title or f"Expected calibration error {error:.3f}")
        upper.legend(loc="upper left")
        lower.bar(centres, bins.n_clips, width * 0.94, color=GREY)
        lower.set(xlabel="confidence in the top class", ylabel="clips")


@_picture
def plot_fusion_curve(
    weights: np.ndarray,
    curves: Mapping[str, np.ndarray],
    models: tuple[str, str],
    chosen: float,
    path: Path,
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
            _note(axes, f"{at[chosen]:.3f}", (chosen, at[chosen]), 9 if on_top else -19, colour)
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


@_picture
def plot_fusion_ternary(
    coefficients: np.ndarray,
    values: np.ndarray,
    models: Sequence[str],
    chosen: np.ndarray,
    path: Path,
    background: tuple[np.ndarray, np.ndarray] | None = None,
    label: str = "top-1 accuracy on val",
) -> None:
    """Write a triangle whose corners are three models alone, with a point for each set of coefficients tried.

    Args:
        coefficients: (T, 3), rows sum to 1.
        values: (T,) what each was worth.
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
        said = " + ".join(f"{name} {weight:.3g}" for name, weight in zip(models, chosen, strict=True))
        figure.suptitle(said, fontsize=11, fontweight="bold")


@_picture
def plot_fusion_parallel(
    coefficients: np.ndarray,
    values: np.ndarray,
    models: Sequence[str],
    chosen: np.ndarray,
    path: Path,
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


@_picture
def plot_history(history: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Write loss and top-1 by epoch.

    Args:
        history: rows with `epoch, train_loss, train_top1` and, where the epoch was validated, `val_loss, val_top1`
            (absent, None or empty text elsewhere).
        path: the PNG to write.
        title: stands above both panels.
    """
    with drawing(path, (9.0, 3.8)) as figure:
        for axes, quantity, label in zip(
            figure.subplots(1, 2), ("loss", "top1"), ("loss", "top-1 accuracy"), strict=True
        ):
            for split, colour in (("train", BLUE), ("val", ORANGE)):
                rows = [row for row in history if row.get(f"{split}_{quantity}") not in (None, "")]
                epochs = [float(row["epoch"]) for row in rows]
                values = [float(row[f"{split}_{quantity}"]) for row in rows]
                marker = "o" if len(rows) <= 30 else None
                axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, label=split)
                if quantity == "top1" and split == "val" and values:
                    best = int(np.argmax(values))
                    axes.plot(epochs[best], values[best], "*", color=colour, markersize=13, markeredgecolor="white")
                    _note(axes, f"{values[best]:.3f}", (epochs[best], values[best]), 8, colour)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="epoch", ylabel=label)
            axes.set_ylim(bottom=0, top=1.05 if quantity == "top1" else None)
            axes.legend(loc="upper right" if quantity == "loss" else "lower right")
        if title:
            figure.suptitle(title, fontweight="bold")


def _note(axes: Any, text: str, point: tuple[float, float], lift: float, colour: str) -> None:
    axes.annotate(text, point, (0, lift), textcoords="offset points", ha="center", color=colour, fontweight="bold")


@contextlib.contextmanager
def drawing(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """A figure to draw on, written to `path` when the block ends. No pyplot: nothing global is touched."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = {**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        for letters_without_shape in ("Glyph ", "Matplotlib currently does not support"):
            warnings.filterwarnings("ignore", letters_without_shape, UserWarning)  # they are drawn as boxes
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png", metadata={"Software": None})


def _colours(shares: np.ndarray) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](shares)


def _scale(low: float, high: float) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(low, high), "viridis")
