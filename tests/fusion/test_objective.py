import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from avrecog import metrics
from avrecog.config import validate
from avrecog.errors import ConfigError, ScoreError
from avrecog.fusion.methods import Fusion, calibrated, fit_temperature, logarithms
from avrecog.fusion.objective import FusionObjective
from avrecog.fusion.settings import FuseConfig
from avrecog.fusion.weighted_sum import BLOCK, normalise, weighted_sum


def random_stack(seed: int, n_models: int, n_clips: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_clips)
    logits = rng.normal(size=(n_models, n_clips, n_classes)) * 2
    logits[:, np.arange(n_clips), labels] += rng.uniform(0, 3, (n_models, 1))
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(2, keepdims=True)).astype(np.float32), labels


weights = st.lists(st.floats(0, 1), min_size=1, max_size=4).filter(lambda values: sum(values) > 0)


@given(coefficients=weights, seed=st.integers(0, 99))
def test_fusing_identical_tables_changes_nothing(coefficients, seed):
    single, _ = random_stack(seed, 1, 12, 5)
    fused = weighted_sum(np.repeat(single, len(coefficients), axis=0), normalise(np.array(coefficients)))
    assert fused == pytest.approx(single[0], abs=1e-7)


@given(coefficients=weights, seed=st.integers(0, 99), n_classes=st.integers(1, 8), coarse=st.booleans())
def test_the_objective_equals_the_metric_of_the_fused_scores(coefficients, seed, n_classes, coarse):
    stack, labels = random_stack(seed, len(coefficients), 30, n_classes)
    if coarse:  # many ties
        stack = np.round(stack * 4).astype(np.float32) / 4
    normalised = normalise(np.array(coefficients))
    fused = weighted_sum(stack, normalised)
    for name in ("top1", "mean_class_accuracy"):
        expected = {
            "top1": metrics.top_k_accuracy(fused, labels, 1),
            "mean_class_accuracy": metrics.mean_class_accuracy(fused, labels),
        }[name]
        assert FusionObjective(stack, labels, name)(normalised) == pytest.approx(expected, abs=1e-9)
    own = fused[np.arange(30), labels]
    assert FusionObjective(stack, labels, "log_loss")(normalised) == -metrics.mean_negative_log(own)


def test_only_the_weights_decide_between_two_models():
    stack = np.array([[[0.9, 0.1]], [[0.2, 0.8]]], np.float32)
    objective = FusionObjective(stack, np.array([0]))
    assert [objective(np.array([w, 1 - w])) for w in (0.0, 0.42, 0.43, 0.44, 1.0)] == [0, 0, 1, 1, 1]
    assert weighted_sum(stack, np.array([0.5, 0.5])) == pytest.approx(np.array([[0.55, 0.45]]))


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


def test_the_section_is_validated():
    assert validate(FuseConfig, {}, "fuse") == FuseConfig()
    assert validate(FuseConfig, {"coefficients": {"audio": 1}}, "fuse").coefficients == {"audio": 1}
    with pytest.raises(ConfigError, match="fuse.*coefficients: expected at least one above 0"):
        validate(FuseConfig, {"coefficients": {"audio": 0.0}}, "fuse")
    with pytest.raises(ConfigError, match="fuse.objective: expected 'top1'"):
        validate(FuseConfig, {"objective": "top2"}, "fuse")
    with pytest.raises(ConfigError, match="fuse.n_trials: expected a number above 0, got 0"):
        validate(FuseConfig, {"n_trials": 0}, "fuse")


def test_many_clips_taken_some_at_a_time_are_fused_as_all_at_once():
    stack, labels = random_stack(3, 2, 2 * BLOCK + 7, 5)
    weights, temperatures = np.array([0.3, 0.7]), np.array([0.5, 2.0])
    logs = logarithms(stack).astype(np.float64)
    summed = np.tensordot(weights, logs, axes=1)
    own = summed[np.arange(len(labels)), labels]

    objective = FusionObjective(logarithms(stack), labels, "log_loss", "log")
    assert objective.log_loss(weights) == pytest.approx((logsumexp(summed, axis=1) - own).mean(), abs=1e-12)
    np.testing.assert_allclose(
        weighted_sum(stack, weights), np.tensordot(weights, stack.astype(np.float64), axes=1), atol=1e-15
    )
    np.testing.assert_allclose(
        calibrated(stack, temperatures), softmax(logs / temperatures[:, None, None], axis=2), atol=1e-6
    )
    by_logs = Fusion("log_weights", ("a", "b"), weights, np.ones(2), exponent=1.5)
    np.testing.assert_allclose(by_logs(stack), softmax(1.5 * summed, axis=1), atol=1e-6)


def test_the_temperature_is_the_one_of_least_log_loss_over_many_clips():
    stack, labels = random_stack(4, 1, 2 * BLOCK + 7, 5)
    logs = logarithms(stack[0]).astype(np.float64)

    def loss(temperature: float) -> float:
        scaled = logs / temperature
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]).mean())

    found = fit_temperature(logs[None], np.ones(1), labels)
    assert loss(found) <= min(loss(found * 0.99), loss(found * 1.01), loss(1.0))


def test_accuracy_of_many_clips_counts_each_once():
    stack, labels = random_stack(5, 3, 2 * BLOCK + 7, 5)
    objective = FusionObjective(stack, labels)
    for weights in np.random.default_rng(0).dirichlet(np.ones(3), 5):
        right = metrics.correct_clips(weighted_sum(stack, weights), labels).mean()
        assert objective(weights) == pytest.approx(right, abs=1e-12)
