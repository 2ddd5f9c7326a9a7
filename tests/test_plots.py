from pathlib import Path

import matplotlib
import numpy as np
import pytest

from avrecog import plots
from avrecog.metrics import reliability_bins

PNG = b"\x89PNG\r\n\x1a\n"


def draw_confusion(path: Path, n_classes: int = 4) -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (n_classes, n_classes))
    matrix[0] = 0  # a class without clips
    plots.plot_confusion(matrix, [f"class {i}" for i in range(n_classes)], path)


def draw_reliability(path: Path) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    plots.plot_reliability(reliability_bins(probabilities, np.arange(50) % 3), path)


def draw_curve(path: Path) -> None:
    weights = np.linspace(0, 1, 11)
    curves = {"val": 0.8 - (weights - 0.4) ** 2, "test": 0.7 - (weights - 0.5) ** 2}
    plots.plot_fusion_curve(weights, curves, ("audio", "rgb"), 0.4, path)


def draw_ternary(path: Path, flat: bool = False) -> None:
    coefficients = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    values = np.full(20, 0.5) if flat else coefficients[:, 0]
    plots.plot_fusion_ternary(coefficients, values, ("a", "b", "c"), coefficients[0], path, (coefficients, values))


def draw_parallel(path: Path) -> None:
    coefficients = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    plots.plot_fusion_parallel(coefficients, coefficients[:, 0], list("abcde"), coefficients[0], path)


def draw_history(path: Path) -> None:
    rows = [{"epoch": i, "lr": 0.1, "train_loss": 1 / i, "train_top1": 1 - 1 / i} for i in range(1, 9)]
    rows[3] |= {"val_loss": 0.5, "val_top1": 0.7}
    rows[7] |= {"val_loss": "", "val_top1": None}
    plots.plot_history(rows, path, title="audio")


DRAWN = {
    function.__name__: function
    for function in (draw_confusion, draw_reliability, draw_curve, draw_ternary, draw_parallel, draw_history)
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_equal_numbers_give_equal_bytes(draw, tmp_path):
    with matplotlib.rc_context({"xtick.labelsize": 30, "savefig.facecolor": "red"}):  # of a person
        draw(tmp_path / "new" / "a.png")
    draw(tmp_path / "b.png")
    content = (tmp_path / "b.png").read_bytes()
    assert content.startswith(PNG)
    assert (tmp_path / "new" / "a.png").read_bytes() == content
    assert b"Software" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "new"]


@pytest.mark.parametrize("n_classes", [1, 30, 100])
def test_confusion_of_any_number_of_classes(tmp_path, n_classes):
    draw_confusion(tmp_path / "a.png", n_classes)
    height, width, _ = matplotlib.image.imread(tmp_path / "a.png").shape
    assert max(height, width) <= 1700


def test_a_triangle_where_every_weight_is_worth_the_same(tmp_path):
    draw_ternary(tmp_path / "a.png", flat=True)
    assert (tmp_path / "a.png").exists()


def test_a_triangle_without_background(tmp_path):
    plots.plot_fusion_ternary(np.eye(3), np.arange(3.0), list("abc"), np.eye(3)[0], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_a_run_that_was_never_validated_is_drawn(tmp_path):
    plots.plot_history([{"epoch": 1, "train_loss": 1.0, "train_top1": 0.1}], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_drawing_leaves_the_backend_and_the_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    draw_curve(tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before
