import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog import metrics
from avrecog.errors import ScoreError
from avrecog.interop import mmaction2_metrics


def test_a_class_that_is_predicted_but_never_true_counts_as_0():
    scores = np.eye(4)[[0, 0, 1, 3]]
    labels = np.array([0, 0, 1, 1])
    assert mmaction2_metrics.mean_class_accuracy(scores, labels) == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics.mean_class_accuracy(scores, labels) == pytest.approx((1 + 0.5) / 2)


@given(n_clips=st.integers(1, 30), n_classes=st.integers(1, 8), seed=st.integers(0, 99))
def test_without_ties_and_strange_classes_the_rules_are_ours(n_clips, n_classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_clips)
    scores = rng.permuted(np.tile(np.linspace(0, 1, n_classes), (n_clips, 1)), axis=1)
    for k in (1, 5):
        assert mmaction2_metrics.top_k_accuracy(scores, labels, k) == metrics.top_k_accuracy(scores, labels, k)
    if set(scores.argmax(axis=1)) <= set(labels):
        ours = metrics.mean_class_accuracy(scores, labels)
        assert mmaction2_metrics.mean_class_accuracy(scores, labels) == pytest.approx(ours)


def test_scores_are_added_as_they_are():
    probabilities, logits = np.array([[0.9, 0.1]], np.float32), np.array([[-3.0, 5.0]], np.float32)
    fused = mmaction2_metrics.fuse([probabilities, logits], [2, -1])
    assert fused.dtype == np.float64
    assert fused == pytest.approx(np.array([[4.8, -4.8]]))
    twice = mmaction2_metrics.fuse([probabilities], [1], apply_softmax=True)
    assert twice == pytest.approx(np.exp([[0.9, 0.1]]) / np.exp([0.9, 0.1]).sum())


def test_files_that_do_not_fit_are_refused():
    with pytest.raises(ScoreError, match="--coefficients: expected 1, one a score file, got 2"):
        mmaction2_metrics.fuse([np.zeros((2, 3))], [1, 1])
    with pytest.raises(ScoreError, match="hold 2 clips of 3 classes and 3 of 3"):
        mmaction2_metrics.fuse([np.zeros((2, 3)), np.zeros((3, 3))], [1, 1])
