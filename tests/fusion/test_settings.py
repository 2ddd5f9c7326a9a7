import subprocess
import sys

import pytest

from avrecog.config import validate
from avrecog.errors import ConfigError
from avrecog.fusion.settings import FuseConfig


def test_the_section_is_validated():
    assert validate(FuseConfig, {}, "fuse") == FuseConfig()
    assert validate(FuseConfig, {"coefficients": {"audio": 1}}, "fuse").coefficients == {"audio": 1}
    for values, message in (
        ({"coefficients": {"audio": 0.0}}, "fuse.*coefficients: expected at least one above 0"),
        ({"objective": "top2"}, "fuse.objective: expected 'top1'"),
        ({"n_trials": 0}, "fuse.n_trials: expected a number above 0, got 0"),
        ({"methods": []}, "fuse.methods: "),
        ({"methods": ["equal", "equal"]}, "fuse.methods: expected each once, got equal, equal"),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(FuseConfig, values, "fuse")


@pytest.mark.parametrize("name", ["magic", "coefficients", 3, ["equal"]])
def test_an_unknown_method_is_refused_with_the_names_of_the_known_ones(name):
    with pytest.raises(ConfigError) as caught:
        validate(FuseConfig, {"methods": ["equal", name]}, "fuse")
    known = "'equal', 'weights', 'temperature', 'log_weights' or 'stacking'"
    assert str(caught.value) == f"fuse.methods.1: expected {known}, got {name!r}"


def test_reading_the_section_loads_nothing_heavy():
    program = (
        "import sys, avrecog.fusion.settings; "
        "sys.exit(', '.join({'scipy', 'sklearn', 'optuna', 'matplotlib', 'torch'} & set(sys.modules)) or None)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
