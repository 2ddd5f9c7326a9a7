"""Writing params.yaml: values laid over it without losing its comments."""

import difflib
import io
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from avrecog.config import PARAMS
from avrecog.errors import ConfigError
from avrecog.runtime.files import atomic_path

FOLDER = Path("recipes")
DEFAULT = "default"  # the recipe that the others are laid over


class _WithNull(RoundTripRepresenter):
    """Writes null; ruamel leaves the place empty. A class of its own, since representers are registered by class."""


_WithNull.add_representer(type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null"))


def replace_params(after: str) -> str:
    """Write params.yaml whole; the lines that differ from what stood there, or nothing where none does."""
    before = PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else ""
    with atomic_path(PARAMS) as temporary:
        temporary.write_text(after, encoding="utf-8")
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "params.yaml before", "params.yaml", "", "", 0, ""
    )
    return "\n".join(line for line in lines if not line.startswith("@@"))


def merge_yaml_text(text: str, values: Mapping[str, Any], where: str) -> str:
    """A YAML document with values laid over it, its comments kept.

    Args:
        text: the document.
        values: nested as the document is; a mapping is entered, everything else replaced.
        where: the values' file, for the error.

    Raises:
        ConfigError: if the values have a section that the document lacks.
    """
    yaml = YAML()
    yaml.width = 200
    yaml.preserve_quotes = True
    yaml.Representer = _WithNull
    document = yaml.load(text)
    _lay_over(document, values, where)
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()


def _lay_over(document: MutableMapping[str, Any], recipe: Mapping[str, Any], where: str, path: str = "") -> None:
    """Put the recipe's values into the document; a mapping is entered, everything else replaced.

    Raises:
        ConfigError: if the recipe has a section that default.yaml lacks.
    """
    for key, value in recipe.items():
        here = document.get(key)
        if isinstance(value, Mapping) and isinstance(here, MutableMapping):
            _lay_over(here, value, where, f"{path}{key}.")
        elif key in document or path:
            document[key] = _in_one_line(value)
        else:
            raise ConfigError(f"{where}: {path}{key} is no section of {FOLDER}/{DEFAULT}.yaml")


def _in_one_line(value: Any) -> Any:
    """A list or a mapping that is written as `[a, b]` or `{a: 1}`."""
    if isinstance(value, list):
        items = CommentedSeq(value)
        items.fa.set_flow_style()
        return items
    if isinstance(value, dict):
        mapping = CommentedMap({key: _in_one_line(item) for key, item in value.items()})
        mapping.fa.set_flow_style()
        return mapping
    return value
