import pytest

import projects
from avrecog.errors import ConfigError, LeakError
from avrecog.experiments.sweep.settings import read_sweep

GOOD = {
    "study": "lr",
    "objective": "audio.val_top1",
    "n_trials": 3,
    "parameters": {"train.lr": {"low": 0.1, "high": 1}},
}


@pytest.fixture
def read(tmp_path):
    """What reads a sweep with changes in a folder with params.yaml and changes."""

    def read_changed(change, params=None):
        projects.write_params(tmp_path, params or {})
        with (tmp_path / "sweep.yaml").open("w") as file:
            projects.YAML(typ="safe").dump({**GOOD, **change}, file)
        with projects.inside(tmp_path):
            return read_sweep(tmp_path / "sweep.yaml")

    return read_changed


@pytest.mark.parametrize("path", sorted((projects.ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_fits_the_shipped_parameters(path):
    with projects.inside(projects.ROOT):
        assert not read_sweep(path).warnings


def test_all_that_is_not_swept_is_fixed_and_all_that_is_swept_is_not(read):
    fixed = read({}).fixed
    assert "train.lr" not in fixed
    assert {"train.momentum", "models.audio.depth", "audio.logmel.n_mels", "data.seed"} <= set(fixed)
    assert not [key for key in fixed if key.startswith(("models.rgb", "test", "fuse", "benchmark"))]


@pytest.mark.parametrize("objective", ["audio.test.top1", "fusion.test.top1", "test", "audio.test_top1", "TEST.top1"])
def test_a_number_of_the_test_split_is_refused(read, objective):
    with pytest.raises(LeakError, match=f"{objective} is a number of the test split"):
        read({"objective": objective, "n_trials": "also wrong"})


def test_a_model_may_be_called_latest(read):
    latest = {"pipeline": {"models": ["latest"]}, "models": {"latest": {"architecture": "audio"}}}
    assert read({"objective": "latest.val_loss"}, latest).config.model == "latest"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "audio.top1"}, "objective: expected <model>.val_top1 or <model>.val_loss, got 'audio.top1'"),
        ({"objective": "audoi.val_top1"}, "audoi is no model of pipeline.models in params.yaml; did you mean `audio`"),
        ({"study": "a/b"}, "study: expected letters, digits, - and _, got 'a/b'"),
        ({"n_trials": 0}, "n_trials: expected a number above 0, got 0"),
        ({"trials": 3}, "trials: unknown key; did you mean `n_trials`"),
        ({"parameters": {}}, "parameters: "),
        (
            {"parameters": {"train.lrr": {"low": 0, "high": 1}}},
            "train.lrr is not in params.yaml; did you mean `train.lr`",
        ),
        ({"parameters": {"train.augment": {"low": 0, "high": 1}}}, "train.augment is no single value"),
        ({"parameters": {"test.n_clips": {"low": 1, "high": 3}}}, "test.n_clips can't be swept"),
        ({"parameters": {"data.seed": {"low": 1, "high": 3}}}, "data.seed can't be swept"),
        ({"parameters": {"models.rgb.dropout": {"low": 0, "high": 1}}}, "models.rgb.dropout can't be swept"),
        ({"parameters": {"train.lr": {"low": 1, "high": 1}}}, "train.lr.high: expected more than low (1), got 1"),
        ({"parameters": {"train.lr": {"low": 1}}}, "train.lr.high: is missing; give low and high, or choices"),
        ({"parameters": {"train.lr": {"low": True, "high": 2}}}, "train.lr.low: expected a finite number, got True"),
        (
            {"parameters": {"train.lr": {"low": 0, "high": 2, "log": True}}},
            "low: expected more than 0 on a logarithmic",
        ),
        ({"parameters": {"train.lr": {"choices": [1]}}}, "choices: expected a list of two values at least, got [1]"),
        ({"parameters": {"train.lr": {"choices": [1, 1.0]}}}, "choices: expected different values"),
        ({"parameters": {"train.lr": {"choices": [[1], [2]]}}}, "expected text, finite numbers, true, false or null"),
        ({"parameters": {"train.lr": {"choices": [1, 2], "low": 1}}}, "choices: expected alone"),
    ],
)
def test_what_is_wrong_is_said(read, change, message):
    with pytest.raises(ConfigError) as refused:
        read(change)
    assert message in str(refused.value)


def test_all_problems_are_said_at_once(read):
    with pytest.raises(ConfigError, match=r"sweep.yaml: 3 problems"):
        read({"study": "", "n_trials": -1, "prune": "yes"})
    with pytest.raises(ConfigError, match="2 problems"):
        read({"parameters": {"train.x": {"low": 0, "high": 1}, "train": {"low": 0, "high": 1}}})


def test_an_override_that_hides_a_swept_value_is_warned_of(read):
    (warning,) = read({}, {"models": {"audio": {"train": {"lr": 0.3}}}}).warnings
    assert warning == "train.lr: models.audio.train overrides it, so that sweeping it moves nothing"
