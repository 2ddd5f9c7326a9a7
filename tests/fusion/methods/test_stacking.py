import numpy as np
import pytest

from avrecog.errors import ScoreError
from avrecog.fusion.methods.stacking import Stacking
from fusion_inputs import fit, random_scores


def stacking(**changes) -> Stacking:
    parts = {"weights": np.array([0.5, 0.5]), "matrix": np.zeros((6, 3)), "intercept": np.zeros(3)}
    return Stacking(models=("a", "b"), **{**parts, **changes})


def test_stacking_knows_a_class_that_val_lacks():
    stack, labels, ids = random_scores(3, n_classes=5)
    methods = fit(stack, np.where(labels == 4, 0, labels), ids)
    fused = methods["stacking"].fusion(stack)
    assert fused.shape == (45, 5)
    assert (fused.argmax(axis=1) != 4).all()


def test_it_has_no_weights_to_tell_of():
    assert stacking().describe() == "stacking of a, b"
    assert set(stacking().parameters().values()) == {None}
    assert stacking().mean_weights is None
    assert stacking().drawn_weights is None


def test_it_takes_long_where_there_are_many_clips_of_many_classes():
    assert not Stacking.takes_long(2, 1000, 50)
    assert Stacking.takes_long(2, 20_000, 400)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matrix": np.zeros((3, 3))}, "matrix: expected .models x classes, classes. for 2 models"),
        ({"intercept": np.zeros((3, 1))}, "matrix, intercept: expected those of a stacking"),
        ({"intercept": np.full(3, np.nan)}, "matrix, intercept: expected finite numbers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ScoreError, match=message):
        stacking(**changes)


def test_other_numbers_of_classes_are_refused():
    with pytest.raises(ScoreError, match="expected 3 classes, got 4"):
        stacking()(random_scores(0)[0])
