"""Named recipes: what differs from recipes/default.yaml, laid over it without losing its comments.

recipes/default.yaml is params.yaml as shipped, the demo: a recipe gives the same params.yaml whatever stood there
before.
"""

import difflib
import io
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from avrecog.atomic import atomic_path
from avrecog.config import PARAMS, read_yaml
from avrecog.errors import ConfigError
from avrecog.manifests.kinetics import check_only_lists

FOLDER = Path("recipes")
DEFAULT = "default"
NOT_RECIPES = ("demo_clips",)  # the demo's annotation lies beside the recipes


class _WithNull(RoundTripRepresenter):
    """Writes null; ruamel leaves the place empty. A class of its own, since representers are registered by class."""


_WithNull.add_representer(type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null"))


def recipe_names() -> list[str]:
    """The recipes there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in NOT_RECIPES)


def apply_recipe(name: str, annotation: Path | None) -> str:
    """Write recipes/default.yaml with the values of `recipes/<name>.yaml` as params.yaml and return the difference.

    Args:
        name: a recipe; `default`: the demo.
        annotation: written to `data.annotation`, absolute, so that experiments in other folders find it too.

    Raises:
        ConfigError: if there is no such recipe or annotation, or the recipe has a section that the default lacks.
        ManifestError: if a folder of Kinetics lists holds more than them.
    """
    if name not in recipe_names():
        raise ConfigError(f"recipe {name}: there is no {FOLDER}/{name}.yaml; recipes: {', '.join(recipe_names())}")
    recipe = {} if name == DEFAULT else read_yaml(FOLDER / f"{name}.yaml")
    if annotation is not None:
        if not os.path.exists(annotation):
            raise ConfigError(f"--annotation: {annotation} does not exist")
        if recipe.get("data", {}).get("source") == "kinetics":
            check_only_lists(annotation)
        recipe["data"] = {**recipe.get("data", {}), "annotation": str(annotation.resolve())}
    elif recipe.get("data", {}).get("source", "demo") != "demo" and "annotation" not in recipe["data"]:
        raise ConfigError(f"recipe {name}: say where the clips are: avrecog recipe {name} --annotation PATH")
    after = (FOLDER / f"{DEFAULT}.yaml").read_text(encoding="utf-8")
    if recipe:
        after = lay_over_text(after, recipe, f"{FOLDER}/{name}.yaml")
    return replace_params(after) or f"params.yaml is recipe {name} already"


def replace_params(after: str) -> str:
    """Write params.yaml whole; the lines that differ from what stood there, or nothing where none does."""
    before = PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else ""
    with atomic_path(PARAMS) as temporary:
        temporary.write_text(after, encoding="utf-8")
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "params.yaml before", "params.yaml", "", "", 0, ""
    )
    return "\n".join(line for line in lines if not line.startswith("@@"))


def lay_over_text(text: str, values: Mapping[str, Any], where: str) -> str:
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
