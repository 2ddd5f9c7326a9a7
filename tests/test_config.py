from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field
from ruamel.yaml import YAML

from avrecog.annotations.sources import DataSection
from avrecog.config import (
    At,
    Count,
    Flag,
    Fraction,
    Number,
    PositiveNumber,
    Text,
    flatten,
    load_params,
    plain,
    read_yaml,
    section,
)
from avrecog.errors import AvrecogError, ConfigError
from avrecog.features.settings import AudioConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.fusion.settings import FuseConfig
from avrecog.inference.settings import BenchmarkConfig
from avrecog.inference.settings import TestConfig as TestSection
from avrecog.models.registry import model_section
from avrecog.pipeline import PipelineConfig, SelfSupervisedConfig
from avrecog.training.settings import TrainConfig

SHIPPED = Path(__file__).parent.parent / "params.yaml"


@section
class Inner:
    n_things: Count = 3
    ratio: Fraction = 0.5


@section
class Outer:
    speed: PositiveNumber = 1.0
    shift: Number = 0.0
    name: Text = "a"
    flag: Flag = False
    kind: Literal["plain", "fancy"] = "plain"
    inner: Inner = Field(default_factory=Inner)
    maybe: Inner | None = None
    many: list[Inner] = Field(default_factory=list)
    mapping: dict[str, Any] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shift > self.speed:
            raise ConfigError(f"shift: expected at most speed ({self.speed:g}), got {self.shift:g}")


@section
class Cat:
    animal: Literal["cat"]
    inner: Inner = Field(default_factory=Inner)
    n_lives: Count = 9

    def __post_init__(self) -> None:
        if self.n_lives > 9:
            raise ConfigError(f"n_lives: expected at most 9, got {self.n_lives}")


@section
class Dog:
    animal: Literal["dog"]
    name: Text


Animal = Annotated[Cat | Dog, Field(discriminator="animal")]


@pytest.fixture
def load(tmp_path):
    def read(text: str, **parts: Any) -> Any:
        path = tmp_path / "params.yaml"
        path.write_text(text, encoding="utf-8")
        return load_params(path, **parts)

    return read


def problems(load, text: str, **parts: Any) -> list[str]:
    """The lines of the message, without the first, which counts them."""
    with pytest.raises(ConfigError, match="params.yaml: ") as caught:
        load(text, **parts)
    first, *lines = str(caught.value).split("\n  ")
    assert first.endswith("params.yaml: 1 problem" if len(lines) == 1 else f"params.yaml: {len(lines)} problems")
    return lines


def test_all_problems_of_all_sections_are_told_at_once(load):
    text = "one: {speed: fast, flag: 1, inner: {n_things: 0, ratio: 2}}\ntwo: {n_things: 1.5}\n"
    assert problems(load, text, one=Outer, two=Inner, three=Inner) == [
        "one.speed: expected a number, got 'fast'",
        "one.flag: expected true or false, got 1",
        "one.inner.n_things: expected a number above 0, got 0",
        "one.inner.ratio: expected a number at most 1, got 2",
        "two.n_things: expected a whole number, got 1.5",
        "three: is missing",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("speed: true", "one.speed: expected a number, got true"),
        ("inner: {n_things: true}", "one.inner.n_things: expected a whole number, got true"),
        ("inner: {n_things: '3'}", "one.inner.n_things: expected a whole number, got '3'"),
        ("inner: {ratio: -0.1}", "one.inner.ratio: expected a number at least 0, got -0.1"),
        ("speed: null", "one.speed: expected a number, got null"),
        ("shift: .inf", "one.shift: expected a finite number, got inf"),
        ("speed: .nan", "one.speed: expected "),
        ("name: 3", "one.name: expected text, got 3"),
        ("name: ''", "one.name: expected text that isn't empty, got ''"),
        ("flag: no", "one.flag: expected true or false, got 'no'"),
        ("flag: 'true'", "one.flag: expected true or false, got 'true'"),
        ("kind: other", "one.kind: expected 'plain' or 'fancy', got 'other'"),
        ("inner: 5", "one.inner: expected a mapping, got 5"),
        ("inner: [1]", "one.inner: expected a mapping, got [1]"),
        ("many: 5", "one.many: expected a list, got 5"),
        ("many: [{}, {n_things: 0}]", "one.many.1.n_things: expected a number above 0, got 0"),
        ("mapping: 5", "one.mapping: expected a mapping, got 5"),
        ("maybe: {n_things: 0}", "one.maybe.n_things: expected a number above 0, got 0"),
        (f"speed: {'x' * 100}", f"one.speed: expected a number, got '{'x' * 76}..."),
    ],
)
def test_a_wrong_value_is_told_with_its_path_and_what_was_expected(load, text, line):
    (told,) = problems(load, f"one: {{{text}}}\n", one=Outer)
    assert told.startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("spede: 1.0", "one.spede: unknown key; did you mean `speed`?"),
        ("inner: {n_thing: 1}", "one.inner.n_thing: unknown key; did you mean `n_things`?"),
        ("qqqqqqqqq: 1.0", "one.qqqqqqqqq: unknown key"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(load, text, line):
    assert problems(load, f"one: {{{text}}}\n", one=Outer) == [line]


def test_a_missing_section_is_told_with_the_nearest_one(load):
    assert problems(load, "outter: {}\n", outer=Outer) == ["outer: is missing; did you mean `outter`?"]


def test_a_missing_key_is_told(load):
    assert problems(load, "one: {n_lives: 3}\n", one=Cat) == ["one.animal: is missing"]


@pytest.mark.parametrize(("text", "number"), [("1e-3", 0.001), ("1E3", 1000.0), ("2", 2.0), ("5.0e-4", 0.0005)])
def test_a_number_in_any_spelling_is_a_number(load, text, number):
    assert load(f"one: {{speed: {text}}}\n", one=Outer).one.speed == number


def test_a_section_without_keys_has_the_defaults(load):
    assert load("one: {}\n", one=Outer).one == Outer()


@pytest.mark.parametrize("text", ["one:", "one: null"])
def test_an_empty_section_is_refused(load, text):
    with pytest.raises(ConfigError, match=r"one: expected a mapping, got null \(nothing stands there\)"):
        load(f"{text}\n", one=Outer)


def test_null_is_none_where_none_is_allowed(load):
    params = load("one: {maybe: null}\ntwo: null\n", one=Outer, two=Inner | None)
    assert params.one.maybe is None
    assert params.two is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{animal: cat, inner: {ratio: 2.0}}", "one.inner.ratio: expected a number at most 1, got 2.0"),
        ("{animal: cat, n_live: 3}", "one.n_live: unknown key; did you mean `n_lives`?"),
        ("{animal: cat, inner: {n_things: 1, ratio: 1}, n_lives: 10}", "one.n_lives: expected at most 9, got 10"),
        ("{animal: dog}", "one.name: is missing"),
        ("{animal: cow}", "one: expected animal to be one of 'cat', 'dog', got 'cow'"),
        ("{}", "one: key animal is missing"),
        ("7", "one: expected a mapping, got 7"),
    ],
)
def test_paths_name_what_stands_in_the_file_and_not_the_kind_of_a_union(load, text, line):
    (told,) = problems(load, f"one: {text}\n", one=Animal)
    assert told.startswith(line)


def test_a_rule_between_keys_is_told_once_with_its_dotted_path(load):
    assert problems(load, "one: {speed: 1.0, shift: 2.0}\n", one=Outer) == [
        "one.shift: expected at most speed (1), got 2"
    ]
    text = "audio: {logmel: {n_fft: 256, hop_length: 512}}\n"
    line = "audio.logmel.hop_length: expected at most n_fft (256), got 512"
    assert problems(load, text, audio=AudioConfig) == [line]
    assert problems(load, text, audio=AudioConfig | None) == [line]


def test_a_part_at_a_dotted_path_is_read_from_there(load):
    params = load("one: {two: {ratio: 0.25}}\n", value=At("one.two.ratio", Fraction), part=At("one.two", Inner))
    assert params.value == 0.25
    assert params.part.ratio == 0.25
    assert params.flat() == {"one.two.ratio": 0.25, "one.two.n_things": 3}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("one.tvo.ratio", "one.tvo.ratio: is missing; did you mean `two`?"),
        ("one.two.ratio.deep", "one.two.ratio.deep: is missing"),
    ],
)
def test_a_dotted_path_that_leads_nowhere_is_told(load, path, line):
    assert problems(load, "one: {two: {ratio: 0.25}}\n", value=At(path, Fraction)) == [line]


def test_flat_gives_every_value_in_force_by_its_dotted_path(load):
    flat = load("one: {speed: 2, mapping: {a: {b: 1}}, many: [{}]}\n", one=Outer).flat()
    assert flat == {
        "one.speed": 2.0,
        "one.shift": 0.0,
        "one.name": "a",
        "one.flag": False,
        "one.kind": "plain",
        "one.inner.n_things": 3,
        "one.inner.ratio": 0.5,
        "one.maybe": None,
        "one.many": [{"n_things": 3, "ratio": 0.5}],
        "one.mapping.a.b": 1,
    }


def test_a_part_that_was_not_loaded_is_named(load):
    with pytest.raises(AttributeError, match="params has no part 'two'; loaded: one"):
        _ = load("one: {}\n", one=Outer).two


def test_a_config_cannot_be_changed(load):
    with pytest.raises(AttributeError, match="speed"):
        load("one: {}\n", one=Outer).one.speed = 3.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one: {a: 1\ntwo: ]", "not valid YAML"),
        (b"one: 1\none: 2\n", "not valid YAML.*one"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"- 1\n- 2\n", "expected a mapping of sections, got list"),
        (b"", "expected a mapping of sections, got NoneType"),
    ],
)
def test_a_file_that_is_no_mapping_in_yaml_is_refused(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"(?s)params.yaml: {message}"):
        load_params(path, one=Outer)


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ConfigError, match="No such file or directory.*; run from the project's root"):
        read_yaml(tmp_path / "params.yaml")
    with pytest.raises(AvrecogError, match="Is a directory"):
        read_yaml(tmp_path)


def test_plain_leaves_what_any_file_can_hold():
    assert plain({1: (Path("a/b"), Inner(), None)}) == {"1": ["a/b", {"n_things": 3, "ratio": 0.5}, None]}


@given(
    st.recursive(
        st.integers(), lambda inner: st.dictionaries(st.text("abc", min_size=1), inner, min_size=1), max_leaves=8
    )
)
def test_flattening_keeps_every_leaf(tree):
    def leaves(part: Any) -> list[int]:
        return [leaf for item in part.values() for leaf in leaves(item)] if isinstance(part, dict) else [part]

    flat = dict(flatten({"root": tree}))
    assert list(flat.values()) == leaves(tree)
    for path, leaf in flat.items():
        here = {"root": tree}
        for step in path.split("."):
            here = here[step]
        assert here == leaf


def test_every_section_of_the_shipped_file_validates():
    document = YAML(typ="safe").load(SHIPPED.read_text(encoding="utf-8"))
    sections = {
        "data": DataSection,
        "audio": AudioConfig | None,
        "video": VideoConfig | None,
        "pipeline": PipelineConfig,
        "selfsupervised": SelfSupervisedConfig,
        "train": TrainConfig,
        "test": TestSection,
        "benchmark": BenchmarkConfig,
        "fuse": FuseConfig,
    }
    assert set(document) == {*sections, "models"}
    models = {f"model_{name}": At(f"models.{name}", model_section()) for name in document["models"]}
    params = load_params(SHIPPED, **sections, **models)
    assert set(params.pipeline.models) <= set(document["models"])
    flat = params.flat()
    for path, value in flatten(document):
        if value != {}:
            assert flat[path] == value, path
