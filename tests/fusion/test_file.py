import numpy as np
import pytest

from avrecog.errors import ScoreError
from avrecog.fusion.file import read_fusion, write_fusion
from avrecog.fusion.methods.stacking import Stacking
from avrecog.fusion.methods.weighted_mean import fixed_fusion
from fusion_inputs import fit, random_scores


@pytest.mark.parametrize(
    ("content", "message"), [(b"nothing", "expected a fusion file"), (None, "there is no such fusion file")]
)
def test_a_file_that_is_no_fusion_is_refused(tmp_path, content, message):
    path = tmp_path / "fusion.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScoreError, match=message):
        read_fusion(path, "abcd")


def test_a_fusion_file_whose_parts_do_not_fit_is_refused(tmp_path):
    path = tmp_path / "fusion.npz"
    stack, labels, ids = random_scores(1)
    good = fit(stack, labels, ids)["stacking"].fusion
    write_fusion(path, good, "abcd")
    parts = dict(np.load(path))
    for change, message in (
        ({"method": np.array("magic")}, "method: expected one of equal"),
        ({"matrix": np.zeros((3, 3))}, "matrix: expected"),
        ({"weights": np.array([-1.0, 2.0])}, "coefficients: expected"),
        ({"weights": np.array([2.0, 2.0])}, "weights: expected a sum of 1, got 4"),
        ({"temperatures": np.zeros(2)}, "expected numbers above 0"),
        ({"exponent": np.array(np.inf)}, "expected numbers above 0"),
        ({"intercept": np.zeros((4, 1))}, "matrix, intercept: expected those of a stacking"),
        ({"classes": np.array(["b", "a", "c", "d"])}, "was fitted on other classes than a, b, c"),
        ({"models": np.array([{}], dtype=object)}, "can't be read"),
    ):
        np.savez(path, **{**parts, **change})
        with pytest.raises(ScoreError, match=message):
            read_fusion(path, "abcd")
    del parts["temperatures"]
    np.savez(path, **parts)
    with pytest.raises(ScoreError, match="expected a fusion file, got other entries"):
        read_fusion(path, "abcd")


def test_a_fusion_file_of_complex_numbers_is_refused(tmp_path):
    path = tmp_path / "fusion.npz"
    write_fusion(path, fixed_fusion(("a", "b"), [1, 1]), ["x", "y"])
    assert read_fusion(path, ["x", "y"]).models == ("a", "b")
    with np.load(path) as loaded:
        parts = dict(loaded)
    np.savez(path, **{**parts, "weights": parts["weights"].astype(np.complex128)})
    with pytest.raises(ScoreError, match=r"fusion\.npz: weights: expected real numbers, got complex128"):
        read_fusion(path, ["x", "y"])


OLD = {
    "models": np.array(["audio", "rgb"]),
    "classes": np.array(["x", "y"]),
    "weights": np.array([0.25, 0.75]),
    "temperatures": np.ones(2),
    "exponent": np.array(1.0),
    "matrix": np.zeros(0),
    "intercept": np.zeros(0),
}
SCORES = np.array([[[0.9, 0.1]], [[0.2, 0.8]]], np.float32)


@pytest.mark.parametrize(
    ("method", "changes", "told", "fused"),
    [
        ("coefficients", {}, "audio 0.25 + rgb 0.75", 0.25 * 0.9 + 0.75 * 0.2),
        ("equal", {"weights": np.array([0.5, 0.5])}, "audio 0.5 + rgb 0.5", 0.55),
        ("weights", {}, "audio 0.25 + rgb 0.75", 0.25 * 0.9 + 0.75 * 0.2),
        (
            "temperature",
            {"temperatures": np.array([0.5, 1.0])},
            "audio 0.25 + rgb 0.75; T 0.5, 1",
            0.25 * 0.81 / 0.82 + 0.75 * 0.2,
        ),
        (
            "log_weights",
            {"exponent": np.array(2.0)},
            "logarithms of audio 0.25 + rgb 0.75",
            (0.9**0.25 * 0.2**0.75) ** 2 / ((0.9**0.25 * 0.2**0.75) ** 2 + (0.1**0.25 * 0.8**0.75) ** 2),
        ),
        (
            "stacking",
            {"matrix": np.zeros((4, 2)), "intercept": np.log([0.3, 0.7]), "weights": np.array([0.5, 0.5])},
            "stacking of audio, rgb",
            0.3,
        ),
    ],
)
def test_a_file_of_an_earlier_version_loads(tmp_path, method, changes, told, fused):
    """The entries that avrecog wrote before each method had a class."""
    path = tmp_path / "fusion.npz"
    np.savez(path, method=np.array(method), **{**OLD, **changes})
    fusion = read_fusion(path, ["x", "y"])
    assert fusion.models == ("audio", "rgb")
    assert fusion.describe() == told
    assert fusion(SCORES)[0] == pytest.approx([fused, 1 - fused], abs=1e-6)


def test_a_file_has_the_entries_of_an_earlier_version_in_their_order(tmp_path):
    path = tmp_path / "fusion.npz"
    matrix, intercept = np.arange(8.0).reshape(4, 2), np.zeros(2)
    stacking = Stacking(models=("audio", "rgb"), weights=np.array([0.5, 0.5]), matrix=matrix, intercept=intercept)
    for fusion, changes in (
        (fixed_fusion(("audio", "rgb"), [1, 3]), {}),
        (stacking, {"weights": np.array([0.5, 0.5]), "matrix": matrix, "intercept": intercept}),
    ):
        write_fusion(path, fusion, ["x", "y"])
        with np.load(path) as written:
            assert written.files == ["method", *OLD]
            for name, expected in {**OLD, **changes}.items():
                assert np.array_equal(written[name], expected)
                assert written[name].dtype == expected.dtype
