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

from avrecog.metrics import ReliabilityBins
from avrecog.runtime.files import atomic_path

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


def optional_picture(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
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


@optional_picture
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


@optional_picture
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


@optional_picture
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
                    annotate(axes, f"{values[best]:.3f}", (epochs[best], values[best]), 8, colour)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="epoch", ylabel=label)
            axes.set_ylim(bottom=0, top=1.05 if quantity == "top1" else None)
            axes.legend(loc="upper right" if quantity == "loss" else "lower right")
        if title:
            figure.suptitle(title, fontweight="bold")


def annotate(axes: Any, text: str, point: tuple[float, float], lift: float, colour: str) -> None:
    """Write a bold text beside a point, `lift` typographic points above it."""
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
