"""What every fusion method keeps to; a new one needs no new test here."""

import ast
from pathlib import Path

import numpy as np
import pytest

import avrecog
from avrecog.errors import ConfigError, ScoreError
from avrecog.fusion.file import read_fusion, write_fusion
from avrecog.fusion.methods.registry import METHODS, find_fusion, register
from avrecog.fusion.methods.weighted_mean import EqualWeights, GivenWeights, SearchedWeights
from fusion_inputs import fit, random_scores

PACKAGE = Path(avrecog.__file__).parent


def test_the_methods_stand_from_the_fewest_fitted_numbers_to_the_most():
    assert list(METHODS) == ["equal", "weights", "temperature", "log_weights", "stacking"]
    assert all(method.name == name for name, method in METHODS.items())
    assert [name for name, method in METHODS.items() if not method.is_fitted] == ["equal"]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_probabilities_and_survives_its_file(tmp_path, method):
    stack, labels, ids = random_scores(1)
    fusion = fit(stack, labels, ids)[method].fusion
    fused = fusion(stack)
    assert fused.shape == stack.shape[1:]
    assert fused.sum(axis=1) == pytest.approx(1, abs=1e-5)
    write_fusion(tmp_path / "fusion.npz", fusion, "abcd")
    again = read_fusion(tmp_path / "fusion.npz", "abcd")
    assert np.array_equal(again(stack), fused)
    assert again.describe() == fusion.describe()
    assert again.parameters() == fusion.parameters()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_scores_counts_as_uniform(method):
    stack, labels, ids = random_scores(2, 3)
    fusion = fit(stack, labels, ids)[method].fusion
    assert fusion.with_available([0, 1, 2], stack) == pytest.approx(fusion(stack), abs=1e-9)
    alone = fusion.with_available([1], stack[1:2])
    assert alone.sum(axis=1) == pytest.approx(1, abs=1e-5)
    if method != "stacking":
        assert np.array_equal(alone.argmax(axis=1), stack[1].argmax(axis=1))


def test_models_of_weight_0_count_equally_where_no_other_has_scores():
    stack, *_ = random_scores(0, 3)
    fusion = GivenWeights(models=("a", "b", "c"), weights=np.array([1.0, 0.0, 0.0]))
    assert fusion.with_available([1, 2], stack[1:]) == pytest.approx(stack[1:].mean(axis=0), abs=1e-6)


def test_a_fusion_of_no_models_is_refused():
    with pytest.raises(ScoreError, match="models: expected one or more"):
        EqualWeights(models=(), weights=np.zeros(0))


@pytest.mark.parametrize("name", ["equal", "coefficients"])
def test_a_name_that_is_taken_is_refused(name):
    with pytest.raises(ConfigError, match=f"fusion method {name}: there is one of this name"):
        register(type("Other", (SearchedWeights,), {"name": name}))
    assert register(EqualWeights) is EqualWeights


def test_given_weights_are_found_by_their_name_and_not_among_the_methods_that_are_compared():
    assert find_fusion("coefficients") is GivenWeights
    assert "coefficients" not in METHODS
    with pytest.raises(ScoreError, match="method: expected one of equal, weights, .*, got 'magic'"):
        find_fusion("magic")


def test_no_module_outside_methods_compares_the_name_of_a_method():
    names = {*METHODS, GivenWeights.name}
    room = [
        *(PACKAGE / "fusion").glob("*.py"),
        *(PACKAGE / "commands").glob("*.py"),
        *(PACKAGE / "scores").glob("*.py"),
    ]
    assert len(room) > 20
    for path in room:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare | ast.MatchValue):
                found = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} & names
                assert not found, f"{path}:{node.lineno} compares with {found}"
