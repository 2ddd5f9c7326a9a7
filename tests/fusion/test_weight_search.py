import ast
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrecog.errors import LockError, ScoreError
from avrecog.fusion import weight_search
from avrecog.fusion.objective import FusionObjective
from avrecog.fusion.settings import FuseConfig
from avrecog.fusion.weight_search import search_weights

MODELS = ("audio", "rgb", "flow", "avslowfast")


def random_stack(seed: int = 0, n_models: int = 3, n_clips: int = 200, n_classes: int = 8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_clips)
    logits = rng.normal(size=(n_models, n_clips, n_classes)) * 1.5
    for model in range(n_models):
        logits[model, np.arange(n_clips), labels] += 2.4 - 0.4 * model
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(2, keepdims=True)).astype(np.float32), labels


def tune(n_models=3, study=None, seed=0, data=0, **config):
    stack, labels = random_stack(data, n_models)
    settings = FuseConfig(**{"n_trials": 15, "seed": seed, **config})
    return search_weights(stack, labels, MODELS[:n_models], settings, study_path=study)


@pytest.mark.parametrize("n_models", [2, 3, 4])
def test_equal_weights_and_each_model_alone_are_tried_first(n_models):
    result = tune(n_models, n_trials=1)
    tried = [list(trial.coefficients.values()) for trial in result.trials]
    assert tried[0] == [1 / n_models] * n_models
    assert tried[1:] == np.eye(n_models).tolist()


@settings(max_examples=15, deadline=None)
@given(
    data=st.integers(0, 1000),
    n_models=st.integers(1, 4),
    objective=st.sampled_from(["top1", "mean_class_accuracy", "log_loss"]),
)
def test_the_result_is_never_worse_than_equal_weights_or_one_model(data, n_models, objective):
    stack, labels = random_stack(data, n_models, n_clips=40)
    config = FuseConfig(objective=objective, n_trials=12)
    result = search_weights(stack, labels, MODELS[:n_models], config)
    value = FusionObjective(stack, labels, objective)
    for weights in (np.full(n_models, 1 / n_models), *np.eye(n_models)):
        assert result.value >= value(weights)
    assert sum(result.coefficients.values()) == pytest.approx(1)
    assert min(result.coefficients.values()) >= 0
    assert result.value == value(np.array(list(result.coefficients.values())))


def test_two_models_are_searched_on_a_grid_of_101():
    result = tune(2, n_trials=500)
    assert sorted(trial.coefficients["audio"] for trial in result.trials) == [i / 100 for i in range(101)]
    assert result.value == max(trial.value for trial in result.trials)


def test_one_model_has_one_coefficient():
    result = tune(1)
    assert result.coefficients == {"audio": 1.0}
    assert len(result.trials) == 1


def test_the_same_seed_gives_the_same_trials_and_another_seed_others():
    assert tune().trials == tune().trials
    assert tune().trials != tune(seed=1).trials


def test_coefficients_are_whole_thousandths():
    for trial in tune().trials[1:]:
        assert all(round(weight, 3) == weight for weight in trial.coefficients.values())
        assert sum(trial.coefficients.values()) == pytest.approx(1, abs=1e-12)


def test_all_zero_raw_weights_mean_equal_ones():
    assert weight_search._coefficients(np.zeros(4)).tolist() == [0.25] * 4


def test_ties_go_to_the_lower_log_loss():
    # every weight is right on every clip; the sure model alone has the lowest log-loss
    stack = np.stack([np.full((4, 2), (0.6, 0.4)), np.full((4, 2), (0.99, 0.01))]).astype(np.float32)
    result = search_weights(stack, np.zeros(4, np.int64), ("audio", "rgb"), FuseConfig())
    assert result.value == 1
    assert result.coefficients == {"audio": 0.0, "rgb": 1.0}


def test_ties_on_both_go_to_equal_weights():
    stack, labels = random_stack(n_models=1)
    result = search_weights(np.repeat(stack, 2, axis=0)[:, :1], labels[:1], ("audio", "rgb"), FuseConfig())
    assert result.coefficients == {"audio": 0.5, "rgb": 0.5}


def test_a_finished_study_is_read_not_repeated(tmp_path, monkeypatch):
    first = tune(study=tmp_path / "fuse.log")
    monkeypatch.setattr(weight_search, "_run_trial", None)
    assert tune(study=tmp_path / "fuse.log") == first
    assert tune(study=tmp_path / "fuse.log", n_trials=8).trials == first.trials[:8]


def test_a_study_in_a_file_takes_the_path_of_one_in_memory(tmp_path):
    assert tune(study=tmp_path / "fuse.log") == tune()


def test_a_study_killed_midway_ends_on_the_same_numbers(tmp_path):
    study = tmp_path / "fuse.log"
    program = f"""
import os, signal
from pathlib import Path
import test_weight_search
from avrecog.fusion import weight_search
run_trial = weight_search._run_trial
def dying(memory, number, **rest):
    if number == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_trial(memory, number, **rest)
weight_search._run_trial = dying
test_weight_search.tune(study=Path({str(study)!r}))
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(weight_search.__file__).parents[2])])
    ended = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert study.read_bytes().count(b"\n") >= 9
    with study.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')  # the kill came in the middle of a line
    assert tune(study=study) == tune()
    again = optuna.load_study(study_name="fuse", storage=weight_search.journal_storage(study))
    assert [trial.state.name for trial in again.trials] == ["COMPLETE"] * 15


def test_trials_left_running_by_another_tool_do_not_count(tmp_path):
    study = tmp_path / "fuse.log"
    tune(study=study, n_trials=6)
    optuna.load_study(study_name="fuse", storage=weight_search.journal_storage(study)).ask()
    assert tune(study=study) == tune()


@pytest.mark.parametrize("change", [{"data": 1}, {"seed": 1}, {"objective": "log_loss"}, {"n_models": 2}])
def test_a_study_of_something_else_begins_anew_and_says_so(tmp_path, caplog, change):
    study = tmp_path / "fuse.log"
    tune(study=study)
    with caplog.at_level(logging.WARNING):
        assert tune(study=study, **change) == tune(**change)
    assert "made from other scores, models, objective or seed; the search begins anew" in caplog.text


@pytest.mark.parametrize("content", [b"nonsense\n{}\n", b"", b"half a line"])
def test_a_damaged_study_begins_anew(tmp_path, caplog, content):
    study = tmp_path / "fuse.log"
    study.write_bytes(content)
    assert tune(study=study) == tune()
    assert "the search begins anew" in caplog.text


@pytest.mark.parametrize("name", [path.name for path in weight_search.SOURCES])
def test_a_search_begins_anew_after_a_change_of_a_file_that_it_uses(tmp_path, caplog, monkeypatch, name):
    study = tmp_path / "fuse.log"
    tune(study=study)
    assert "begins anew" not in caplog.text
    sources = []
    for path in weight_search.SOURCES:
        sources.append(path)
        if path.name == name:
            sources[-1] = tmp_path / name
            sources[-1].write_bytes(path.read_bytes() + b"# fixed\n")
    monkeypatch.setattr(weight_search, "SOURCES", tuple(sources))
    assert tune(study=study) == tune()
    assert "the search begins anew" in caplog.text


def test_the_files_of_a_search_are_all_that_its_files_import():
    """But for errors, section `fuse` and writing files, which give no trial another value."""
    package = Path(weight_search.__file__).parents[1]
    named = {".".join(path.relative_to(package.parent).with_suffix("").parts) for path in weight_search.SOURCES}
    imported = {
        node.module
        for path in weight_search.SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("avrecog")
    }
    assert imported - named == {"avrecog.errors", "avrecog.fusion.settings", "avrecog.runtime.files"}


def test_a_second_writer_is_refused(tmp_path):
    with weight_search.sole_writer(tmp_path / "fuse.log"), pytest.raises(LockError, match=str(os.getpid())):
        tune(study=tmp_path / "fuse.log")


def test_models_need_names_of_their_own():
    stack, labels = random_stack(n_models=2)
    with pytest.raises(ScoreError, match="expected 2 different names, got audio, audio"):
        search_weights(stack, labels, ("audio", "audio"), FuseConfig())
    with pytest.raises(ScoreError, match="expected 2 different names, got none"):
        search_weights(stack, labels, (), FuseConfig())


def test_optuna_says_nothing_and_keeps_its_verbosity(capfd):
    before = optuna.logging.get_verbosity()
    tune()
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
