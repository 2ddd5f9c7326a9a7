import numpy as np
import pytest
from scipy.special import softmax

from avrecog.errors import ScoreError
from avrecog.fusion.log_probabilities import logarithms
from avrecog.fusion.methods.log_pool import LogPool
from avrecog.fusion.weighted_sum import BLOCK
from fusion_inputs import random_scores


def test_it_is_the_softmax_of_weighted_logarithms_also_of_many_clips():
    stack, *_ = random_scores(3, 2, 2 * BLOCK + 7, 5)
    weights = np.array([0.3, 0.7])
    summed = np.tensordot(weights, logarithms(stack).astype(np.float64), axes=1)
    fusion = LogPool(models=("a", "b"), weights=weights, exponent=1.5)
    np.testing.assert_allclose(fusion(stack), softmax(1.5 * summed, axis=1), atol=1e-6)


def test_it_tells_its_weights_and_its_exponent():
    fusion = LogPool(models=("a", "b"), weights=np.array([0.25, 0.75]), exponent=1.5)
    assert fusion.describe() == "logarithms of a 0.25 + b 0.75"
    assert fusion.parameters() == {"coefficients": {"a": 0.25, "b": 0.75}, "temperatures": None, "exponent": 1.5}
    assert fusion.mean_weights is None


def test_its_weights_are_of_logarithms():
    stack, *_ = random_scores(0)
    values, domain = LogPool(models=("a", "b"), weights=np.array([0.5, 0.5]), exponent=1.0).weighted_values(stack)
    assert domain == "log"
    assert np.array_equal(values, logarithms(stack))


@pytest.mark.parametrize("exponent", [0.0, -1.0, np.inf])
def test_the_exponent_is_above_0(exponent):
    with pytest.raises(ScoreError, match="exponent: expected numbers above 0"):
        LogPool(models=("a",), weights=np.ones(1), exponent=exponent)
