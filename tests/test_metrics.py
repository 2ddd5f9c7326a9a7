import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

from avrecog import metrics
from avrecog.errors import ScoreError


def random_probabilities(seed: int, n_clips: int = 200, n_classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_clips)
    logits = rng.normal(size=(n_clips, n_classes))
    logits[np.arange(n_clips), labels] += 1
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(1, keepdims=True)).astype(np.float32), labels


@given(seed=st.integers(0, 1000), n_clips=st.integers(1, 40), n_classes=st.integers(1, 9))
def test_row_order_does_not_change_the_metrics(seed, n_clips, n_classes):
    probabilities, labels = random_probabilities(seed, n_clips, n_classes)
    order = np.random.default_rng(seed).permutation(n_clips)
    one = metrics.classification_metrics(probabilities, labels)
    other = metrics.classification_metrics(probabilities[order], labels[order])
    assert one == pytest.approx(other, abs=1e-12)


def test_top5_of_three_classes_is_top3():
    probabilities, labels = random_probabilities(0, n_classes=3)
    assert metrics.top_k_accuracy(probabilities, labels, 5) == metrics.top_k_accuracy(probabilities, labels, 3) == 1


def test_a_constant_output_scores_what_guessing_the_first_class_deserves():
    scores, labels = np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 1])
    assert metrics.top_k_accuracy(scores, labels, 1) == 2 / 6
    assert metrics.top_k_accuracy(scores, labels, 2) == 5 / 6
    assert metrics.true_class_rank(scores, labels).tolist() == [0, 1, 2, 0, 1, 1]


def test_top1_agrees_with_argmax_under_ties():
    scores = np.random.default_rng(0).integers(0, 3, (500, 5)).astype(float)
    labels = np.random.default_rng(1).integers(0, 5, 500)
    assert (metrics.correct_clips(scores, labels) == (scores.argmax(1) == labels)).all()


def test_mean_class_accuracy_and_log_loss_equal_scikit_learn():
    probabilities, labels = random_probabilities(3)
    expected = balanced_accuracy_score(labels, probabilities.argmax(1))
    assert metrics.mean_class_accuracy(probabilities, labels) == pytest.approx(expected)
    exact = (probabilities.astype(np.float64).T / probabilities.sum(1, dtype=np.float64)).T
    expected = sklearn_log_loss(labels, exact, labels=range(6))
    assert metrics.log_loss(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_mean_class_accuracy_leaves_out_classes_without_clips():
    scores = np.eye(4)[[0, 1, 3]]
    assert metrics.mean_class_accuracy(scores, np.array([0, 0, 0])) == 1 / 3


def test_confusion_rows_are_true_classes():
    scores, labels = np.eye(3)[[1, 1, 2, 0]], np.array([0, 1, 2, 0])
    assert metrics.confusion_matrix(scores, labels).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_per_class_table_names_the_class_that_is_confused_most():
    scores, labels = np.eye(4)[[1, 1, 2, 0, 1]], np.array([0, 0, 0, 0, 1])
    table = metrics.per_class_table(scores, labels, ["a", "b", "c", "d"])
    assert table[0] == {"class": "a", "n_clips": 4, "top1": 0.25, "precision": 1.0, "most_confused_with": "b"}
    assert table[1] == {"class": "b", "n_clips": 1, "top1": 1.0, "precision": 1 / 3, "most_confused_with": None}
    assert table[3] == {"class": "d", "n_clips": 0, "top1": None, "precision": None, "most_confused_with": None}
    with pytest.raises(ScoreError, match="expected 4 names.*got 1"):
        metrics.per_class_table(scores, labels, ["a"])


def test_calibration_error_of_known_bins():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 0])  # 0.9: half right; 0.6: half right
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx((0.4 + 0.1) / 2)
    bins = metrics.reliability_bins(probabilities, labels, n_bins=5)
    assert bins.n_clips.tolist() == [0, 0, 2, 0, 2]
    assert np.isnan(bins.accuracy[0])
    assert bins.accuracy[4] == 0.5


def test_a_sure_and_right_model_has_no_calibration_error():
    labels = np.array([0, 1, 2])
    assert metrics.expected_calibration_error(np.eye(3), labels) == 0
    assert metrics.log_loss(np.eye(3), labels) == 0


def test_log_loss_of_an_impossible_truth_is_finite():
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-12))


def test_bootstrap_by_counts_equals_resampling_the_clips():
    rng = np.random.default_rng(0)
    a, b = rng.random(150) < 0.8, rng.random(150) < 0.6
    difference = a.astype(float) - b
    gains = [difference[rng.integers(0, 150, 150)].mean() for _ in range(20_000)]
    assert metrics.bootstrap_gain(a, b, 20_000, 0) == pytest.approx(np.percentile(gains, [2.5, 97.5]), abs=0.008)
    assert metrics.bootstrap_gain(a, b, 500, 3) == metrics.bootstrap_gain(a, b, 500, 3)


def test_bootstrap_of_equal_models_is_a_point():
    correct = np.array([True, False, True])
    assert metrics.bootstrap_gain(correct, correct) == (0, 0)


def test_the_interval_of_shares_equals_resampling_the_clips():
    rng = np.random.default_rng(0)
    a, b = (rng.random((3, 150)) < 0.8).mean(0), (rng.random((3, 150)) < 0.6).mean(0)
    gains = [(a - b)[rng.integers(0, 150, 150)].mean() for _ in range(20_000)]
    found = metrics.bootstrap_difference(a, b, 20_000, 0)
    assert found == pytest.approx(np.percentile(gains, [2.5, 97.5]), abs=0.004)
    one = metrics.bootstrap_difference(a > 0.5, b > 0.5, 20_000, 0)
    assert one == pytest.approx(metrics.bootstrap_gain(a > 0.5, b > 0.5, 20_000, 0), abs=0.008)


def test_bootstrap_interval_holds_the_mean():
    correct = np.arange(100) < 70
    low, high = metrics.bootstrap_interval(correct, 4000, 0)
    assert (low, high) == pytest.approx((0.61, 0.79), abs=0.02)


def test_mcnemar_counts_discordant_clips_only():
    a = np.array([True] * 10 + [False] * 2 + [True] * 50)
    b = np.array([False] * 10 + [True] * 2 + [True] * 50)
    assert metrics.mcnemar_exact(a, b) == pytest.approx(2 * sum([1, 12, 66]) / 2**12)
    assert metrics.mcnemar_exact(a, b) == metrics.mcnemar_exact(b, a)
    assert metrics.mcnemar_exact(a, a) == 1


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros(3), np.zeros(3, int), r"scores: expected \(clips, classes\)"),
        (np.zeros((0, 3)), np.zeros(0, int), "at least one of each"),
        (np.zeros((2, 3)), np.zeros(3, int), r"labels: expected shape \(2,\)"),
        (np.zeros((2, 3)), np.zeros(2), "labels: expected whole numbers, got float64"),
        (np.array([[0.0, 1], [np.nan, 0]]), np.zeros(2, int), "1 rows hold NaN or infinity, the first is row 1"),
        (np.zeros((2, 3)), np.array([0, 3]), "labels: expected 0 to 2, got 3 in row 1"),
        (np.zeros((2, 3)), np.array([-1, 0]), "got -1 in row 0"),
    ],
)
def test_wrong_arrays_are_refused(scores, labels, message):
    for metric in (metrics.mean_class_accuracy, metrics.confusion_matrix, metrics.classification_metrics):
        with pytest.raises(ScoreError, match=message):
            metric(scores, labels)


def test_logits_are_refused_where_probabilities_are_needed():
    with pytest.raises(ScoreError, match="expected 0 to 1, got -2 to 3; logits need a softmax first"):
        metrics.log_loss(np.array([[3.0, -2.0]]), np.array([0]))


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="k: expected at least 1, got 0"):
        metrics.top_k_accuracy(np.eye(2), np.array([0, 1]), 0)
    with pytest.raises(ValueError, match="n_bins: expected at least 1"):
        metrics.reliability_bins(np.eye(2), np.array([0, 1]), 0)
    with pytest.raises(ValueError, match="n_resamples: expected at least 1"):
        metrics.bootstrap_gain(np.array([True]), np.array([True]), 0)
    with pytest.raises(ValueError, match="n_resamples: expected at least 1"):
        metrics.bootstrap_difference(np.array([1.0]), np.array([1.0]), 0)


def test_clips_must_pair_up():
    with pytest.raises(ScoreError, match="arrays of one length"):
        metrics.mcnemar_exact(np.array([True]), np.array([True, False]))
    with pytest.raises(ScoreError, match="expected booleans.*int64"):
        metrics.bootstrap_gain(np.array([1]), np.array([0]))
    with pytest.raises(ScoreError, match="arrays of one length"):
        metrics.bootstrap_difference(np.zeros(2), np.zeros(3))
    with pytest.raises(ScoreError, match="expected finite numbers"):
        metrics.bootstrap_difference(np.array([np.nan]), np.array([0.0]))
