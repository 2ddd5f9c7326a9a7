import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

from avrecog.errors import ScoreError
from avrecog.fusion.log_probabilities import logarithms
from avrecog.fusion.methods.temperature import TemperatureScaling, calibrated, fit_temperature
from avrecog.fusion.weighted_sum import BLOCK, weighted_sum
from fusion_inputs import random_scores


def test_an_overconfident_model_gets_a_temperature_above_one():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 2000)
    logits = rng.normal(size=(2000, 3))
    logits[np.arange(2000), labels] += 1
    exact = log_softmax(logits, axis=1)
    drawn = (rng.random((2000, 1)) > np.cumsum(np.exp(exact), axis=1)).sum(axis=1)  # labels as sure as the model says
    assert fit_temperature(exact[None], np.ones(1), drawn) == pytest.approx(1, abs=0.1)
    assert fit_temperature(3 * exact[None], np.ones(1), drawn) == pytest.approx(3, abs=0.3)
    assert calibrated(np.exp(exact)[None], np.ones(1))[0] == pytest.approx(np.exp(exact), abs=1e-5)


def test_the_temperature_is_the_one_of_least_log_loss_over_many_clips():
    stack, labels, _ = random_scores(4, 1, 2 * BLOCK + 7, 5)
    logs = logarithms(stack[0]).astype(np.float64)

    def loss(temperature: float) -> float:
        scaled = logs / temperature
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]).mean())

    found = fit_temperature(logs[None], np.ones(1), labels)
    assert loss(found) <= min(loss(found * 0.99), loss(found * 1.01), loss(1.0))


def test_many_clips_taken_some_at_a_time_are_calibrated_as_all_at_once():
    stack, *_ = random_scores(3, 2, 2 * BLOCK + 7, 5)
    weights, temperatures = np.array([0.3, 0.7]), np.array([0.5, 2.0])
    expected = softmax(logarithms(stack).astype(np.float64) / temperatures[:, None, None], axis=2)
    np.testing.assert_allclose(calibrated(stack, temperatures), expected, atol=1e-6)
    fusion = TemperatureScaling(models=("a", "b"), weights=weights, temperatures=temperatures)
    np.testing.assert_allclose(fusion(stack), weighted_sum(expected, weights), atol=1e-6)


def test_it_tells_its_weights_and_its_temperatures():
    fusion = TemperatureScaling(models=("a", "b"), weights=np.array([0.25, 0.75]), temperatures=np.array([1.5, 2.0]))
    assert fusion.describe() == "a 0.25 + b 0.75; T 1.5, 2"
    assert fusion.parameters() == {
        "coefficients": {"a": 0.25, "b": 0.75},
        "temperatures": {"a": 1.5, "b": 2.0},
        "exponent": None,
    }
    assert fusion.mean_weights is None


@pytest.mark.parametrize("temperatures", [np.zeros(2), np.array([np.nan, 1]), np.ones(3)])
def test_temperatures_are_one_a_model_above_0(temperatures):
    with pytest.raises(ScoreError, match="temperatures: expected"):
        TemperatureScaling(models=("a", "b"), weights=np.array([0.5, 0.5]), temperatures=temperatures)
