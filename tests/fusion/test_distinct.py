import numpy as np

from avrecog.fusion.distinct import find_distinct_models
from fusion_inputs import random_scores


def test_copies_and_uniform_models_are_found():
    stack, labels, _ = random_scores(0, 2)
    uniform = np.full_like(stack[:1], 1 / stack.shape[2])
    distinct = find_distinct_models(np.concatenate([uniform, stack, stack[:1]]), labels)
    assert sorted(distinct.copies) == [(1, 3), (2,)]
    assert distinct.spread(np.ones(2), 4).tolist() == [0, 0.5, 1, 0.5]
    assert distinct.repeated(np.full(2, 3.0), 4).tolist() == [1, 3, 3, 3]
    assert find_distinct_models(np.concatenate([uniform, uniform]), labels).copies == ((0, 1),)


def test_the_order_of_distinct_models_is_that_of_their_scores():
    stack, labels, _ = random_scores(1, 3)
    forwards, backwards = find_distinct_models(stack, labels), find_distinct_models(stack[::-1], labels)
    assert [2 - index for index in backwards.index] == list(forwards.index)
