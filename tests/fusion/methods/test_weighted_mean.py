import numpy as np
import pytest

from avrecog.errors import ScoreError
from avrecog.fusion.methods.weighted_mean import EqualWeights, GivenWeights, SearchedWeights, fixed_fusion
from fusion_inputs import random_scores


@pytest.mark.parametrize("method", [EqualWeights, SearchedWeights, GivenWeights])
def test_it_is_the_weighted_mean_and_its_weights_repeat_it(method):
    stack, *_ = random_scores(0)
    fusion = method(models=("a", "b"), weights=np.array([0.25, 0.75]))
    assert fusion(stack) == pytest.approx(0.25 * stack[0].astype(float) + 0.75 * stack[1])
    assert fusion.mean_weights is fusion.weights
    assert fusion.describe() == "a 0.25 + b 0.75"
    assert fusion.parameters() == {"coefficients": {"a": 0.25, "b": 0.75}, "temperatures": None, "exponent": None}


def test_given_coefficients_are_scaled_to_sum_1():
    assert fixed_fusion(["a", "b"], [1, 3]).weights.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.25, 0.25], "weights: expected one for each of 2 models"),
        ([2.0, 2.0], "weights: expected a sum of 1, got 4"),
        ([-1.0, 2.0], "coefficients: expected one number a model, none below 0"),
    ],
)
def test_weights_are_one_a_model_and_sum_to_1(weights, message):
    with pytest.raises(ScoreError, match=message):
        GivenWeights(models=("a", "b"), weights=np.array(weights))


def test_scores_of_other_numbers_of_models_are_refused():
    with pytest.raises(ScoreError, match="expected scores of a, b, got those of 3 models"):
        fixed_fusion(["a", "b"], [1, 1])(random_scores(0, 3)[0])
