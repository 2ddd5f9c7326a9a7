import tracemalloc

import numpy as np
import pytest

from avrecog.fusion.distinct import DistinctModels
from avrecog.fusion.fitting import FitClips, FitContext
from avrecog.fusion.methods.log_pool import LogPool
from avrecog.fusion.methods.temperature import TemperatureScaling
from fusion_inputs import CONFIG, random_scores

# of four models the first is uniform, and the last a copy of the second
DISTINCT = DistinctModels((2, 1), ((2,), (1, 3)))
CONTEXT = FitContext(models=("uniform", "audio", "rgb", "copy"), distinct=DISTINCT, config=CONFIG)


def test_weights_are_shared_by_copies_and_0_for_uniform_models():
    assert CONTEXT.equal_weights().tolist() == [0, 0.25, 0.5, 0.25]
    assert CONTEXT.spread(np.array([0.2, 0.8])).tolist() == [0, 0.4, 0.2, 0.4]
    assert CONTEXT.repeated(np.array([2.0, 3.0])).tolist() == [1, 3, 2, 3]


def test_a_search_gives_weights_of_distinct_models_and_trials_of_all():
    stack, labels, _ = random_scores(0)
    weights, trials = CONTEXT.search_weights(stack, labels)
    assert weights.shape == (2,)
    assert weights.sum() == pytest.approx(1)
    assert list(trials[0].coefficients) == ["uniform", "audio", "rgb", "copy"]
    assert list(trials[0].coefficients.values()) == [0, 0.25, 0.5, 0.25]


def test_clips_to_fit_on_are_those_that_are_kept_of_the_distinct_models():
    stack, labels, ids = random_scores(0, 4)
    kept = labels == 1
    clips = FitClips.of(stack, labels, ids, DISTINCT, kept)
    assert np.array_equal(clips.probabilities, stack[[2, 1]][:, kept])
    assert set(clips.labels) == {1}
    assert clips.clip_ids == [name for name, label in zip(ids, labels, strict=True) if label == 1]
    assert np.array_equal(FitClips.of(stack, labels, ids, DISTINCT).probabilities, stack[[2, 1]])


def test_scores_are_not_copied_where_nothing_is_left_out():
    stack, labels, ids = random_scores(0)
    assert FitClips.of(stack, labels, ids, DistinctModels((0, 1), ((0,), (1,)))).probabilities is stack


def test_a_fit_holds_no_copy_of_the_scores_that_it_no_longer_needs():
    """The logarithms of a fold take the place of its probabilities in memory."""
    stack, labels, ids = random_scores(0, 2, 4000, 20)
    seen = []

    class Watched(FitContext):
        def search_weights(self, values, labels, domain="probability"):
            seen.append(tracemalloc.get_traced_memory()[0])
            return np.array([0.5, 0.5]), []

    context = Watched(models=("a", "b"), distinct=DistinctModels((1, 0), ((1,), (0,))), config=CONFIG)
    for method in (LogPool, TemperatureScaling):
        tracemalloc.start()
        method.fit(FitClips.of(stack, labels, ids, context.distinct), context)
        tracemalloc.stop()
        assert seen.pop() < 1.5 * stack.nbytes
