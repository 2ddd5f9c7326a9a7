import numpy as np

from avrecog.fusion.folds import validation_folds


def test_folds_are_stratified_and_hang_on_the_ids_alone():
    labels = np.repeat([0, 1, 2], 10)
    ids = [f"{i:02}" for i in range(30)]
    folds = validation_folds(ids, labels, 5)
    assert np.array_equal(np.bincount(folds), [6] * 5)
    assert all((np.bincount(folds[labels == label]) == 2).all() for label in range(3))
    order = np.random.default_rng(0).permutation(30)
    assert np.array_equal(validation_folds([ids[i] for i in order], (2 - labels)[order], 5), folds[order])
