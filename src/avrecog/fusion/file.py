"""A fitted fusion in a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.errors import ScoreError
from avrecog.fusion.methods.base import Fusion, check_positive, check_weights
from avrecog.fusion.methods.registry import find_fusion
from avrecog.fusion.methods.temperature import check_temperatures
from avrecog.runtime.files import atomic_path
from avrecog.scores.npz import read_entries

NAMES = ("method", "models", "classes")
NUMBERS = ("weights", "temperatures", "exponent", "matrix", "intercept")  # every file holds them, whatever its method


def write_fusion(path: Path, fusion: Fusion, classes: Sequence[str]) -> None:
    """Write a fusion file (.npz) with the K names of the classes it was fitted on, whole or not at all."""
    entries: dict[str, Any] = {
        "method": np.array(fusion.name),
        "models": np.array(fusion.models),
        "classes": np.array(list(classes)),
        **_neutral_arrays(len(fusion.models)),
        **fusion.arrays(),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **entries)


def _neutral_arrays(n_models: int) -> dict[str, np.ndarray]:
    """`NUMBERS` as a method has them that makes no use of them."""
    return {
        "weights": np.full(n_models, 1 / n_models),
        "temperatures": np.ones(n_models),
        "exponent": np.array(1.0),
        "matrix": np.zeros(0),
        "intercept": np.zeros(0),
    }


def read_fusion(path: Path, classes: Sequence[str]) -> Fusion:
    """The fusion in a file that stage fuse, or `avrecog fuse --save`, has written. Never unpickles anything.

    Raises:
        ScoreError: if the file is missing, damaged or no fusion, or is of other classes than these.
    """
    advice = "make it with `dvc repro fuse`, or `avrecog fuse --save`"
    parts = read_entries(path, "fusion file", advice)
    try:
        if [str(name) for name in np.atleast_1d(parts["classes"])] != list(classes):
            raise ScoreError(f"was fitted on other classes than {', '.join(classes[:3])}, ...")
        models = tuple(str(name) for name in np.atleast_1d(parts["models"]))
        return find_fusion(str(parts["method"])).from_arrays(models, _read_arrays(parts, len(models)))
    except ScoreError as error:
        raise ScoreError(f"{path}: {error}; {advice}") from None
    except (KeyError, ValueError, TypeError) as error:
        raise ScoreError(f"{path}: expected a fusion file, got other entries ({error}); {advice}") from None


def _read_arrays(parts: Mapping[str, Any], n_models: int) -> dict[str, np.ndarray]:
    """The numbers of a file as float64.

    Raises:
        ScoreError: if they are not real, or weights, temperatures or exponent can't be those of so many models.
    """
    names = [*NUMBERS, *(name for name in parts if name not in (*NAMES, *NUMBERS))]
    for name in names:
        if parts[name].dtype.kind not in "fiu":
            raise ScoreError(f"{name}: expected real numbers, got {parts[name].dtype}")
    arrays = {name: parts[name].astype(np.float64) for name in names}
    check_weights(arrays["weights"], n_models)
    check_temperatures(arrays["temperatures"], n_models)
    check_positive("exponent", float(arrays["exponent"]))
    return arrays
