"""Named recipes: what differs from recipes/default.yaml, laid over it without losing its comments.

recipes/default.yaml is params.yaml as shipped, the demo: a recipe gives the same params.yaml whatever stood there
before.
"""

import os
from pathlib import Path

from avrecog.annotations.kinetics_source import check_only_lists
from avrecog.config import read_yaml
from avrecog.errors import ConfigError
from avrecog.experiments.params_file import DEFAULT, FOLDER, merge_yaml_text, replace_params

NOT_RECIPES = ("demo_clips",)  # the demo's annotation lies beside the recipes


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
        after = merge_yaml_text(after, recipe, f"{FOLDER}/{name}.yaml")
    return replace_params(after) or f"params.yaml is recipe {name} already"
