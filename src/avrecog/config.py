"""Reading sections of params.yaml into the dataclasses that the code beside them defines.

This module knows no section itself. `load_params(train=TrainConfig, audio=AudioConfig)` reads two sections, reports
every problem of both at once, and returns them as attributes.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_type_hints

import pydantic
import pydantic.dataclasses
from pydantic import Field, Strict, TypeAdapter
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from avrecog.errors import ConfigError

Count = Annotated[int, Strict(), Field(gt=0)]
WholeNumber = Annotated[int, Strict(), Field(ge=0)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
PositiveNumber = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
NonNegativeNumber = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1)]

PARAMS = Path("params.yaml")
MAX_BYTES = 200_000  # of a YAML file; the shipped one has 4,500
MAX_VALUES = 100_000

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class At:
    """A part of params.yaml that stands elsewhere than at the top: its dotted path and its type."""

    path: str
    kind: Any


class Params:
    """The parts asked for, each an attribute; `flat()` gives them as `section.key: value`."""

    def __init__(self, paths: Mapping[str, str], values: Mapping[str, Any]) -> None:
        self._paths, self._values = paths, values

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"params has no part {name!r}; loaded: {', '.join(self._values)}") from None

    def flat(self) -> dict[str, Any]:
        """Every value in force, keyed by its dotted path in params.yaml."""
        return dict(flatten({self._paths[name]: plain(value) for name, value in self._values.items()}))


def load_params(path: Path = PARAMS, **parts: Any) -> Params:
    """The named parts of params.yaml, each validated as the type given for it.

    Args:
        path: the YAML file; params.yaml of the working folder, as DVC reads it.
        parts: section name -> type (a pydantic dataclass, or any annotation pydantic takes), or any name -> `At`.

    Raises:
        ConfigError: if the file can't be read or any part has a problem; all problems are listed.
    """
    document = read_yaml(path)
    where = {name: part if isinstance(part, At) else At(name, part) for name, part in parts.items()}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, part in where.items():
        try:
            values[name] = validate(part.kind, _at(document, part.path), part.path)
        except ConfigError as error:
            problems += error.args[0].splitlines()
    if problems:
        raise ConfigError(listed(str(path), problems))
    return Params({name: part.path for name, part in where.items()}, values)


def _at(document: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path.

    Raises:
        ConfigError: if nothing stands there.
    """
    here: Any = document
    for step in path.split("."):
        if not isinstance(here, Mapping) or step not in here:
            known = here if isinstance(here, Mapping) else {}
            raise ConfigError(f"{path}: is missing{suggest(step, known)}")
        here = here[step]
    return here


def validate(kind: Any, value: Any, where: str) -> Any:
    """`value` as an instance of `kind`.

    Raises:
        ConfigError: one line a problem, each beginning with its dotted path below `where`.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        lines = [_problem(item, where, value, kind) for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def listed(title: str, problems: list[str]) -> str:
    """`title: 2 problems` and the problems below it, indented."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n  ".join([f"{title}: {count}", *problems])


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, read as DVC reads it (YAML 1.2), as plain dicts and lists.

    Raises:
        ConfigError: if the file is missing, isn't YAML or isn't a mapping of sections.
    """
    try:
        n_bytes = path.stat().st_size
        if n_bytes > MAX_BYTES:
            raise ConfigError(f"{path}: expected at most {MAX_BYTES:,} bytes, got {n_bytes:,}")
        text = path.read_text(encoding="utf-8")
        if re.search(r"(?:[\[{]\s*){100}", text):  # the parser would take seconds to find out
            raise ConfigError(f"{path}: is nested too deeply")
        document = YAML(typ="safe", pure=True).load(text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); run from the project's root") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply") from None
    except (YAMLError, UnicodeDecodeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        # ruamel has no one error for what it can't make a value of
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if _n_values(document, {}) > MAX_VALUES:  # aliases of aliases: a few lines that unfold to thousands of millions
        raise ConfigError(f"{path}: unfolds to more than {MAX_VALUES:,} values; drop the aliases")
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(document).__name__}")
    return document


def _n_values(value: Any, seen: dict[int, int]) -> int:
    """How many values there are with every alias unfolded; one that holds itself counts as endless."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in seen:
        seen[id(value)] = MAX_VALUES + 1  # until it is known: what holds itself meets this
        children = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        seen[id(value)] = 1 + sum(_n_values(child, seen) for child in children)
    return seen[id(value)]


def plain(value: Any) -> Any:
    """`value` with dataclasses, tuples and paths turned into dicts, lists and text, which any file can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`(dotted path, leaf)` for every leaf of nested mappings; lists are leaves."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_too_short": "text that isn't empty",
    "finite_number": "a finite number",
}


def _problem(item: Any, where: str, value: Any, whole: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    path = _visible_path(item["loc"], value, kind in ("missing", "missing_argument"))
    dotted = ".".join([where, *path])
    given = _shown(item["input"])
    discriminator = context.get("discriminator", "").strip("'")
    if kind == "unexpected_keyword_argument":
        return f"{dotted}: unknown key{suggest(path[-1], _keys_at(whole, path[:-1]))}"
    if kind in ("missing", "missing_argument"):
        return f"{dotted}: is missing"
    if kind in ("value_error", "assertion_error"):
        # a rule of ours says itself, after its section, which key it is about: `hop_length: expected at most ...`
        joint = "." if isinstance(context.get("error"), ConfigError) else ": "
        return f"{dotted}{joint}{context.get('error', item['msg'])}"
    if kind == "literal_error":
        return f"{dotted}: expected {context['expected']}, got {given}"
    if kind == "union_tag_invalid":
        tags = context["expected_tags"]
        return f"{dotted}: expected {discriminator} to be one of {tags}, got {context['tag']!r}"
    if kind == "union_tag_not_found":
        return f"{dotted}: key {discriminator} is missing"
    expected = _EXPECTED.get(kind) or _bound(kind, context) or item["msg"]
    return f"{dotted}: expected {expected}, got {given}"


def _bound(kind: str, context: Mapping[str, Any]) -> str | None:
    words = {
        "greater_than": "above",
        "greater_than_equal": "at least",
        "less_than": "below",
        "less_than_equal": "at most",
    }
    if kind not in words:
        return None
    name = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}[kind]
    return f"a number {words[kind]} {context[name]:g}"


def _visible_path(location: tuple[Any, ...], value: Any, last_is_missing: bool) -> list[str]:
    """The part of pydantic's location that stands in the file, or should; it adds the tags of unions."""
    path: list[str] = []
    here = value
    for index, step in enumerate(location):
        is_missing_key = last_is_missing and index == len(location) - 1
        if isinstance(here, Mapping) and step not in here and not is_missing_key:
            continue
        path.append(str(step))
        if isinstance(here, Mapping):
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            here = None
    return path


def _keys_at(kind: Any, path: Sequence[str]) -> set[str]:
    """The keys that a section of type `kind` may have at a path in it."""
    sections = _sections(kind)
    for step in path:
        found = [get_type_hints(each, include_extras=True).get(step) for each in sections]
        sections = [section for each in found for section in _sections(each)]
    return {field.name for each in sections for field in dataclasses.fields(each)}


def _sections(kind: Any) -> list[Any]:
    """The dataclasses in a type: itself, or the parts of a union, an optional, a list or an annotation."""
    if dataclasses.is_dataclass(kind):
        return [kind]
    return [section for part in get_args(kind) for section in _sections(part)]


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def section(cls: type[T]) -> type[T]:
    """Decorator: a frozen pydantic dataclass whose unknown keys are errors."""
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid"})(cls)
    return made  # type: ignore[no-any-return]


def suggest(key: str, known: Any) -> str:
    """`; did you mean ...?`, or nothing where no name is near."""
    near = difflib.get_close_matches(
        key, [name for name in known if isinstance(name, str) and name != key], n=1, cutoff=0.6
    )
    return f"; did you mean `{near[0]}`?" if near else ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null (nothing stands there)"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
