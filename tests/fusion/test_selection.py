import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrecog.errors import ScoreError
from avrecog.fusion.methods import stacking
from avrecog.fusion.methods.log_pool import LogPool
from avrecog.fusion.methods.registry import METHODS
from avrecog.fusion.methods.weighted_mean import EqualWeights, SearchedWeights
from avrecog.fusion.selection import Fitted, choose, objective_value
from fusion_inputs import MODELS, fit, random_scores

data = st.integers(0, 10_000)
slow_enough = settings(max_examples=5, deadline=None)


@slow_enough
@given(seed=data)
def test_permuting_the_clips_changes_nothing(seed):
    stack, labels, ids = random_scores(seed)
    order = np.random.default_rng(seed).permutation(len(ids))
    before, after = fit(stack, labels, ids), fit(stack[:, order], labels[order], [ids[i] for i in order])
    assert choose(before) == choose(after)
    for method in METHODS:
        assert before[method].held_out == after[method].held_out
        assert after[method].fusion(stack) == pytest.approx(before[method].fusion(stack), abs=1e-6)


@slow_enough
@given(seed=data, n_models=st.integers(2, 4))
def test_permuting_the_models_changes_nothing(seed, n_models):
    stack, labels, ids = random_scores(seed, n_models)
    order = np.random.default_rng(seed).permutation(n_models)
    before = fit(stack, labels, ids)
    after = fit(stack[order], labels, ids, [MODELS[:n_models][i] for i in order])
    assert choose(before) == choose(after)
    for method in METHODS:
        assert before[method].held_out == after[method].held_out
        assert after[method].fusion(stack[order]) == pytest.approx(before[method].fusion(stack), abs=1e-6)


@slow_enough
@given(seed=data)
def test_permuting_the_classes_changes_nothing(seed):
    stack, labels, ids = random_scores(seed)
    order = np.random.default_rng(seed).permutation(stack.shape[2])
    before, after = fit(stack, labels, ids), fit(stack[:, :, order], np.argsort(order)[labels], ids)
    assert choose(before) == choose(after)
    for method in METHODS:
        assert before[method].held_out == after[method].held_out
        assert after[method].fusion(stack[:, :, order]) == pytest.approx(
            before[method].fusion(stack)[:, order], abs=1e-5 if method == "stacking" else 1e-6
        )


@slow_enough
@given(seed=data, place=st.integers(0, 2), n_models=st.integers(1, 3))
def test_a_model_of_uniform_scores_does_no_harm(seed, place, n_models):
    stack, labels, ids = random_scores(seed, n_models)
    uniform = np.full((1, *stack.shape[1:]), 1 / stack.shape[2], np.float32)
    place = min(place, n_models)
    more = np.concatenate([stack[:place], uniform, stack[place:]])
    models = MODELS[:n_models]
    with_it = fit(more, labels, ids, [*models[:place], "nothing", *models[place:]])
    without = fit(stack, labels, ids)
    assert choose(with_it) == choose(without)
    assert with_it.keys() == without.keys()
    for method in with_it:
        assert with_it[method].fusion.weights[place] == 0
        assert with_it[method].fusion(more) == pytest.approx(without[method].fusion(stack), abs=1e-6)


@slow_enough
@given(seed=data, which=st.integers(0, 2), place=st.integers(0, 3))
def test_with_a_copy_of_a_model_the_fused_scores_agree(seed, which, place):
    stack, labels, ids = random_scores(seed, 3)
    more = np.insert(stack, place, stack[which], axis=0)
    models = MODELS[:3]
    with_it, without = fit(more, labels, ids, [*models[:place], "copy", *models[place:]]), fit(stack, labels, ids)
    assert choose(with_it) == choose(without)
    for method in METHODS:
        assert with_it[method].fusion(more) == pytest.approx(without[method].fusion(stack), abs=1e-6)


@slow_enough
@given(seed=data, n_models=st.integers(2, 3), objective=st.sampled_from(["top1", "mean_class_accuracy", "log_loss"]))
def test_the_choice_never_loses_to_equal_weights_on_val(seed, n_models, objective):
    stack, labels, ids = random_scores(seed, n_models)
    methods = fit(stack, labels, ids, objective=objective)
    chosen = methods[choose(methods)].fusion
    assert objective_value(chosen(stack), labels, objective) >= objective_value(
        stack.mean(axis=0, dtype=np.float64), labels, objective
    )


def fitted(method, value: float, held_out: float, held_out_log_loss: float) -> Fitted:
    fusion = method(models=("a",), weights=np.ones(1), **({"exponent": 1.0} if method is LogPool else {}))
    return Fitted(fusion=fusion, trials=(), value=value, held_out=held_out, held_out_log_loss=held_out_log_loss)


def test_a_method_that_fits_val_and_fails_on_held_out_clips_is_not_chosen():
    methods = {
        "equal": fitted(EqualWeights, 0.8, 0.8, 0.5),
        "overfitted": fitted(SearchedWeights, 1.0, 0.7, 0.9),
        "worse than equal on val": fitted(SearchedWeights, 0.79, 0.9, 0.4),
    }
    assert choose(methods) == "equal"
    methods["as good, with a lower log-loss"] = fitted(LogPool, 0.8, 0.8, 0.4)
    assert choose(methods) == "as good, with a lower log-loss"


def test_products_of_independent_doubts_beat_sums():
    """Each model knows one half of the label: only the logarithms of both together know all of it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    first, second = np.full((300, 4), 0.001), np.full((300, 4), 0.001)
    for row, label in enumerate(labels):
        sure, other = rng.uniform(0.55, 0.95), rng.uniform(0.55, 0.95)
        first[row, [label // 2 * 2, label // 2 * 2 + 1]] = rng.permutation([sure, 1 - sure])
        second[row, [label % 2, label % 2 + 2]] = rng.permutation([other, 1 - other])
    stack = np.stack([first, second]).astype(np.float32)
    stack /= stack.sum(axis=2, keepdims=True)
    methods = fit(stack, labels, [f"{i:03}" for i in range(300)])
    assert methods["log_weights"].held_out > methods["equal"].held_out + 0.1
    assert choose(methods) in ("log_weights", "stacking")


def test_a_single_model_and_its_copy_are_one_whatever_else_could_be_fitted():
    stack, labels, ids = random_scores(0, 1)
    assert list(fit(stack, labels, ids)) == list(fit(np.repeat(stack, 2, axis=0), labels, ids)) == ["equal"]


def test_ties_go_to_the_method_that_fits_fewest_numbers_in_whatever_order_they_are_named():
    stack, labels, ids = random_scores(0)
    assert choose(fit(stack[:, :1], labels[:1], ids[:1], methods=["stacking", "weights", "equal"])) == "equal"


def test_a_method_that_takes_long_is_left_out_unless_it_is_named_and_that_is_said(monkeypatch, caplog):
    stack, labels, ids = random_scores(0)
    monkeypatch.setattr(stacking, "MAX_QUICK_SIZE", 10)
    assert list(fit(stack, labels, ids)) == [method for method in METHODS if method != "stacking"]
    assert "stacking is left out: with 45 clips of 4 classes" in caplog.text
    assert list(fit(stack, labels, ids, methods=["stacking"])) == ["stacking"]


def test_models_need_names_of_their_own():
    stack, labels, ids = random_scores(0)
    with pytest.raises(ScoreError, match="expected 2 different names, got audio, audio"):
        fit(stack, labels, ids, ["audio", "audio"])
