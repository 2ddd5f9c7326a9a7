"""A fitted fusion in a file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avrecog.errors import ScoreError
from avrecog.fusion.methods import Fusion
from avrecog.runtime.files import atomic_path
from avrecog.scores.npz import read_entries


def write_fusion(path: Path, fusion: Fusion, classes: Sequence[str]) -> None:
    """Write a fusion file (.npz) with the K names of the classes it was fitted on, whole or not at all."""
    empty = np.zeros(0)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            method=np.array(fusion.method),
            models=np.array(fusion.models),
            classes=np.array(list(classes)),
            weights=fusion.weights,
            temperatures=fusion.temperatures,
            exponent=np.array(fusion.exponent),
            matrix=empty if fusion.matrix is None else fusion.matrix,
            intercept=empty if fusion.intercept is None else fusion.intercept,
        )


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
        numbers = ("weights", "temperatures", "exponent", "matrix", "intercept")
        odd = [name for name in numbers if parts[name].dtype.kind not in "fiu"]
        if odd:
            raise ScoreError(f"{odd[0]}: expected real numbers, got {parts[odd[0]].dtype}")
        stacking = str(parts["method"]) == "stacking"
        return Fusion(
            method=str(parts["method"]),
            models=tuple(str(name) for name in np.atleast_1d(parts["models"])),
            weights=parts["weights"].astype(np.float64),
            temperatures=parts["temperatures"].astype(np.float64),
            exponent=float(parts["exponent"]),
            matrix=parts["matrix"].astype(np.float64) if stacking else None,
            intercept=parts["intercept"].astype(np.float64) if stacking else None,
        )
    except ScoreError as error:
        raise ScoreError(f"{path}: {error}; {advice}") from None
    except (KeyError, ValueError, TypeError) as error:
        raise ScoreError(f"{path}: expected a fusion file, got other entries ({error}); {advice}") from None
