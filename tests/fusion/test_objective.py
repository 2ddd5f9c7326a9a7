import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from avrecog import metrics
from avrecog.fusion.log_probabilities import logarithms
from avrecog.fusion.objective import FusionObjective
from avrecog.fusion.weighted_sum import BLOCK, normalise, weighted_sum
from fusion_inputs import random_scores

weights = st.lists(st.floats(0, 1), min_size=1, max_size=4).filter(lambda values: sum(values) > 0)


@given(coefficients=weights, seed=st.integers(0, 99), n_classes=st.integers(1, 8), coarse=st.booleans())
def test_the_objective_equals_the_metric_of_the_fused_scores(coefficients, seed, n_classes, coarse):
    stack, labels, _ = random_scores(seed, len(coefficients), 30, n_classes)
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


def test_the_log_loss_of_many_clips_taken_some_at_a_time_is_that_of_all_at_once():
    stack, labels, _ = random_scores(3, 2, 2 * BLOCK + 7, 5)
    weights = np.array([0.3, 0.7])
    summed = np.tensordot(weights, logarithms(stack).astype(np.float64), axes=1)
    own = summed[np.arange(len(labels)), labels]
    objective = FusionObjective(logarithms(stack), labels, "log_loss", "log")
    assert objective.log_loss(weights) == pytest.approx((logsumexp(summed, axis=1) - own).mean(), abs=1e-12)


def test_accuracy_of_many_clips_counts_each_once():
    stack, labels, _ = random_scores(5, 3, 2 * BLOCK + 7, 5)
    objective = FusionObjective(stack, labels)
    for weights in np.random.default_rng(0).dirichlet(np.ones(3), 5):
        right = metrics.correct_clips(weighted_sum(stack, weights), labels).mean()
        assert objective(weights) == pytest.approx(right, abs=1e-12)
