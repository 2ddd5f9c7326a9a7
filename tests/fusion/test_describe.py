import numpy as np
import pytest

from avrecog.fusion.describe import format_gain, format_left_out, format_result, repeat_command
from avrecog.fusion.methods.log_pool import LogPool
from avrecog.fusion.methods.weighted_mean import fixed_fusion

REPORT = {
    "method": "weights",
    "test": {"top1": 0.9},
    "best_single": {"model": "audio"},
    "gain": {"top1": 0.1, "top1_ci95": [0.05, 0.15], "p_value": 0.01},
    "val_reused": True,
}
GAIN = "+0.100 over audio (95 % interval 0.050 to 0.150, p = 0.01)"


@pytest.mark.parametrize(
    ("coefficients", "words"), [([2, 2], "1 1"), ([1, 3], "0.25 0.75"), ([1, 0], "1 0"), ([1 / 3, 2 / 3], None)]
)
def test_a_weighted_mean_is_repeated_by_its_coefficients_to_the_last_digit(coefficients, words):
    fusion = fixed_fusion(("a", "b"), coefficients)
    line = repeat_command(["A.npz", "B.npz"], fusion, "f.npz")
    if words is not None:
        assert line == f"avrecog fuse --scores A.npz B.npz --coefficients {words}"
    given = [float(word) for word in line.split("--coefficients ")[1].split()]
    assert fixed_fusion(("a", "b"), given).weights.tolist() == fusion.weights.tolist()


def test_any_other_fusion_is_repeated_by_its_file():
    fusion = LogPool(models=("a", "b"), weights=np.array([0.5, 0.5]), exponent=1.0)
    assert repeat_command(["A.npz", "B.npz"], fusion, "f.npz") == "avrecog fuse --scores A.npz B.npz --fusion f.npz"


def test_the_result_says_the_method_if_it_was_chosen_and_the_gain_if_there_are_several_models():
    two, one = fixed_fusion(("audio", "rgb"), [1, 1]), fixed_fusion(("audio",), [1])
    assert format_gain(REPORT) == GAIN
    fused = f"audio 0.5 + rgb 0.5: top-1 0.900 on test, {GAIN}"
    assert format_result(REPORT, two) == f"weights, chosen on val: {fused}"
    assert format_result({**REPORT, "val_reused": False}, two) == fused
    assert format_result(REPORT, one) == "audio 1: top-1 0.900 on test"


def test_clips_that_are_left_out_are_counted_by_model():
    assert format_left_out({"audio": 2, "rgb": 1}) == "; left out: 2 that audio can't score, 1 that rgb can't score"
    assert format_left_out({}) == ""
