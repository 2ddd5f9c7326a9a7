import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog.errors import ScoreError
from avrecog.fusion.weighted_sum import BLOCK, normalise, weighted_sum
from fusion_inputs import random_scores

weights = st.lists(st.floats(0, 1), min_size=1, max_size=4).filter(lambda values: sum(values) > 0)


@given(coefficients=weights, seed=st.integers(0, 99))
def test_fusing_identical_tables_changes_nothing(coefficients, seed):
    single, *_ = random_scores(seed, 1, 12, 5)
    fused = weighted_sum(np.repeat(single, len(coefficients), axis=0), normalise(np.array(coefficients)))
    assert fused == pytest.approx(single[0], abs=1e-7)


def test_coefficients_are_scaled_to_sum_one():
    assert normalise(np.array([1, 3])).tolist() == [0.25, 0.75]


def test_coefficients_that_sum_to_one_come_back_bit_for_bit():
    given_coefficients = np.array([0.1, 0.7, 0.2])  # sum 0.9999999999999999
    assert normalise(given_coefficients).tolist() == given_coefficients.tolist()


@pytest.mark.parametrize("coefficients", [[0, 0], [-1, 2], [np.nan, 1], [[1, 2]], []])
def test_wrong_coefficients_are_refused(coefficients):
    with pytest.raises(ScoreError, match="coefficients: expected one number a model, none below 0 and one above, got"):
        normalise(np.array(coefficients))


def test_one_coefficient_a_model():
    with pytest.raises(ScoreError, match="one coefficient a model, got shapes"):
        weighted_sum(np.zeros((2, 3, 4)), np.array([1.0]))


def test_many_clips_taken_some_at_a_time_are_added_as_all_at_once():
    stack, *_ = random_scores(3, 2, 2 * BLOCK + 7, 5)
    coefficients = np.array([0.3, 0.7])
    expected = np.tensordot(coefficients, stack.astype(np.float64), axes=1)
    np.testing.assert_allclose(weighted_sum(stack, coefficients), expected, atol=1e-15)
