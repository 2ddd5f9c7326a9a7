import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from avrecog import plots
from avrecog.fusion import plots as fusion_plots
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
    fusion_plots.plot_fusion_curve(weights, curves, ("audio", "rgb"), 0.4, path)


def draw_ternary(path: Path, flat: bool = False) -> None:
    coefficients = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    values = np.full(20, 0.5) if flat else coefficients[:, 0]
    fusion_plots.plot_fusion_ternary(
        coefficients, values, ("a", "b", "c"), coefficients[0], path, background=(coefficients, values)
    )


def draw_parallel(path: Path) -> None:
    coefficients = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    fusion_plots.plot_fusion_parallel(coefficients, coefficients[:, 0], list("abcde"), coefficients[0], path)


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
    fusion_plots.plot_fusion_ternary(np.eye(3), np.arange(3.0), list("abc"), np.eye(3)[0], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_a_run_that_was_never_validated_is_drawn(tmp_path):
    plots.plot_history([{"epoch": 1, "train_loss": 1.0, "train_top1": 0.1}], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_drawing_leaves_the_backend_and_the_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    draw_curve(tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


HARD = ["Ba$$ guitar", "$x", "a_b^c {d}", r"\alpha$\frac{$", "音 \u0e01 \U0001f3b8", "_hidden", "%s", "\u05d0"]


def test_names_are_drawn_as_they_are_written(tmp_path, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = np.eye(len(HARD), dtype=int)
        plots.plot_confusion(matrix, HARD, tmp_path / "confusion.png", title="$$")
        weights = np.linspace(0, 1, 11)
        fusion_plots.plot_fusion_curve(
            weights, {"$val": weights}, (HARD[0], HARD[3]), 0.4, tmp_path / "curve.png", label="$$"
        )
        fusion_plots.plot_fusion_ternary(
            np.eye(3), np.arange(3.0), HARD[:3], np.eye(3)[0], tmp_path / "ternary.png", label="$$"
        )
        fusion_plots.plot_fusion_parallel(
            np.eye(8), np.arange(8.0), HARD, np.eye(8)[0], tmp_path / "parallel.png", label="$$"
        )
        plots.plot_history([{"epoch": 1, "train_loss": 1.0, "train_top1": 0.1}], tmp_path / "history.png", "$$")
    assert len(list(tmp_path.glob("*.png"))) == 5
    assert caplog.messages == []


def test_no_text_of_a_picture_is_taken_for_a_formula(tmp_path):
    with plots.drawing(tmp_path / "a.png", (3, 3)) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], label="$a$")
        axes.set_xticks([0, 1], ["$b$", "$c$"])
        axes.set(title="$d$", xlabel="$e$")
        axes.legend()
        figure.suptitle("$f$")
    texts = {text.get_text(): text.get_parse_math() for text in figure.findobj(matplotlib.text.Text)}
    assert {f"${letter}$" for letter in "abcdef"} <= texts.keys()
    assert not any(texts.values())


@pytest.mark.parametrize("fault", [ValueError("no"), RuntimeError("matplotlib"), MemoryError()])
def test_a_picture_that_cannot_be_drawn_is_a_warning_and_leaves_no_old_one(tmp_path, monkeypatch, caplog, fault):
    path = tmp_path / "a.png"
    draw_confusion(path)

    def fail(*args, **kwargs):
        raise fault

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    draw_confusion(path)
    assert list(tmp_path.iterdir()) == []
    assert f"a.png: can't be drawn and is left out ({type(fault).__name__}: " in caplog.text


def test_numbers_that_no_picture_can_show_are_a_warning_too(tmp_path, caplog):
    weights = np.linspace(0, 1, 11)
    curves = dict.fromkeys(["train", "val", "test", "more"], weights)
    fusion_plots.plot_fusion_curve(weights, curves, ("audio", "rgb"), 0.4, tmp_path / "a.png")
    assert "a.png: can't be drawn" in caplog.text


def test_a_full_disk_is_told_as_everywhere(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        draw_confusion(tmp_path / "a.png")
