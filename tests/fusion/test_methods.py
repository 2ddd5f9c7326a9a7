import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from avrecog.errors import ScoreError
from avrecog.fusion import selection
from avrecog.fusion.distinct import distinct_voices
from avrecog.fusion.file import read_fusion, write_fusion
from avrecog.fusion.methods import Fusion, calibrated, fit_temperature, logarithms
from avrecog.fusion.selection import Fitted, choose, fit_methods, validation_folds, worth
from avrecog.fusion.settings import METHODS, FuseConfig

CONFIG = FuseConfig(n_trials=10, n_folds=2)
data = st.integers(0, 10_000)
slow_enough = settings(max_examples=5, deadline=None)


def random_scores(seed: int, n_models: int = 2, n_clips: int = 45, n_classes: int = 4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_clips)
    logits = rng.normal(size=(n_models, n_clips, n_classes)) * 1.5
    logits[:, np.arange(n_clips), labels] += rng.uniform(0.5, 2.5, (n_models, 1))
    exponentials = np.exp(logits)
    ids = [f"clip{i:03}" for i in rng.permutation(n_clips)]
    return (exponentials / exponentials.sum(2, keepdims=True)).astype(np.float32), labels, ids


def names(n_models: int) -> list[str]:
    return ["audio", "rgb", "flow", "both"][:n_models]


def fit(stack, labels, ids, models=None, **config) -> dict[str, Fitted]:
    return fit_methods(stack, labels, ids, models or names(len(stack)), dataclasses.replace(CONFIG, **config))


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
    after = fit(stack[order], labels, ids, [names(n_models)[i] for i in order])
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
    models = names(n_models)
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
    models = names(3)
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
    assert worth(chosen(stack), labels, objective) >= worth(stack.mean(axis=0, dtype=np.float64), labels, objective)


def test_a_method_that_fits_val_and_fails_on_held_out_clips_is_not_chosen():
    fusion = Fusion("equal", ("a",), np.ones(1), np.ones(1))
    methods = {
        "equal": Fitted(fusion, (), value=0.8, held_out=0.8, held_out_log_loss=0.5),
        "stacking": Fitted(fusion, (), value=1.0, held_out=0.7, held_out_log_loss=0.9),
        "weights": Fitted(fusion, (), value=0.79, held_out=0.9, held_out_log_loss=0.4),  # loses to equal on val
    }
    assert choose(methods) == "equal"
    methods["log_weights"] = Fitted(fusion, (), value=0.8, held_out=0.8, held_out_log_loss=0.4)
    assert choose(methods) == "log_weights"


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


def test_folds_are_stratified_and_hang_on_the_ids_alone():
    labels = np.repeat([0, 1, 2], 10)
    ids = [f"{i:02}" for i in range(30)]
    folds = validation_folds(ids, labels, 5)
    assert np.array_equal(np.bincount(folds), [6] * 5)
    assert all((np.bincount(folds[labels == label]) == 2).all() for label in range(3))
    order = np.random.default_rng(0).permutation(30)
    assert np.array_equal(validation_folds([ids[i] for i in order], (2 - labels)[order], 5), folds[order])


def test_copies_and_silent_models_are_found():
    stack, labels, _ = random_scores(0, 2)
    silent = np.full_like(stack[:1], 1 / stack.shape[2])
    voices = distinct_voices(np.concatenate([silent, stack, stack[:1]]), labels)
    assert sorted(voices.copies) == [(1, 3), (2,)]
    assert voices.spread(np.ones(2), 4).tolist() == [0, 0.5, 1, 0.5]
    assert distinct_voices(np.concatenate([silent, silent]), labels).copies == ((0, 1),)


@pytest.mark.parametrize("method", METHODS)
def test_a_fusion_survives_its_file(tmp_path, method):
    stack, labels, ids = random_scores(1)
    fusion = fit(stack, labels, ids)[method].fusion
    write_fusion(tmp_path / "fusion.npz", fusion, "abcd")
    assert np.array_equal(read_fusion(tmp_path / "fusion.npz", "abcd")(stack), fusion(stack))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_is_silent_counts_as_saying_nothing(method):
    stack, labels, ids = random_scores(2, 3)
    fusion = fit(stack, labels, ids)[method].fusion
    assert fusion.of_those([0, 1, 2], stack) == pytest.approx(fusion(stack), abs=1e-9)
    alone = fusion.of_those([1], stack[1:2])
    assert alone.sum(axis=1) == pytest.approx(1, abs=1e-5)
    if method != "stacking":
        assert np.array_equal(alone.argmax(axis=1), stack[1].argmax(axis=1))


@pytest.mark.parametrize(
    ("content", "message"), [(b"nothing", "expected a fusion file"), (None, "there is no such fusion file")]
)
def test_a_file_that_is_no_fusion_is_refused(tmp_path, content, message):
    path = tmp_path / "fusion.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScoreError, match=message):
        read_fusion(path, "abcd")


def test_a_fusion_file_whose_parts_do_not_fit_is_refused(tmp_path):
    path = tmp_path / "fusion.npz"
    stack, labels, ids = random_scores(1)
    good = fit(stack, labels, ids)["stacking"].fusion
    write_fusion(path, good, "abcd")
    parts = dict(np.load(path))
    for change, message in (
        ({"method": np.array("magic")}, "method: expected one of equal"),
        ({"matrix": np.zeros((3, 3))}, "matrix: expected"),
        ({"weights": np.array([-1.0, 2.0])}, "coefficients: expected"),
        ({"weights": np.array([2.0, 2.0])}, "weights: expected a sum of 1, got 4"),
        ({"temperatures": np.zeros(2)}, "expected numbers above 0"),
        ({"exponent": np.array(np.inf)}, "expected numbers above 0"),
        ({"intercept": np.zeros((4, 1))}, "matrix, intercept: expected those of a stacking"),
        ({"classes": np.array(["b", "a", "c", "d"])}, "was fitted on other classes than a, b, c"),
        ({"models": np.array([{}], dtype=object)}, "can't be read"),
    ):
        np.savez(path, **{**parts, **change})
        with pytest.raises(ScoreError, match=message):
            read_fusion(path, "abcd")


def test_stacking_knows_a_class_that_val_lacks():
    stack, labels, ids = random_scores(3, n_classes=5)
    methods = fit(stack, np.where(labels == 4, 0, labels), ids)
    fused = methods["stacking"].fusion(stack)
    assert fused.shape == (45, 5)
    assert (fused.argmax(axis=1) != 4).all()


def test_a_single_model_and_its_copy_are_one_whatever_else_could_be_fitted():
    stack, labels, ids = random_scores(0, 1)
    assert list(fit(stack, labels, ids)) == list(fit(np.repeat(stack, 2, axis=0), labels, ids)) == ["equal"]


def test_ties_go_to_the_method_that_fits_fewest_numbers_in_whatever_order_they_are_named():
    stack, labels, ids = random_scores(0)
    assert choose(fit(stack[:, :1], labels[:1], ids[:1], methods=["stacking", "weights", "equal"])) == "equal"


def test_stacking_is_left_out_where_it_would_take_long_and_that_is_said(monkeypatch, caplog):
    stack, labels, ids = random_scores(0)
    monkeypatch.setattr(selection, "STACKING_MOST", 10)
    assert list(fit(stack, labels, ids)) == [method for method in METHODS if method != "stacking"]
    assert "stacking is left out: with 45 clips of 4 classes" in caplog.text
    assert list(fit(stack, labels, ids, methods=["stacking"])) == ["stacking"]


def test_logarithms_have_a_floor_so_that_no_model_has_a_veto():
    assert logarithms(np.array([0.0, 1.0])) == pytest.approx([np.log(1e-6), 0])


def test_a_fusion_file_of_complex_numbers_is_refused(tmp_path):
    path = tmp_path / "fusion.npz"
    write_fusion(path, Fusion("weights", ("a", "b"), np.array([0.5, 0.5]), np.ones(2)), ["x", "y"])
    assert read_fusion(path, ["x", "y"]).models == ("a", "b")
    with np.load(path) as loaded:
        parts = dict(loaded)
    np.savez(path, **{**parts, "weights": parts["weights"].astype(np.complex128)})
    with pytest.raises(ScoreError, match=r"fusion\.npz: weights: expected real numbers, got complex128"):
        read_fusion(path, ["x", "y"])
