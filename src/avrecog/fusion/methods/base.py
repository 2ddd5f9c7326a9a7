"""What every fusion method can do. M models, N clips, K classes.

Selection, stage fuse, the pictures, fusion files and `avrecog predict` ask these things of the object; none of them
knows a method by its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from avrecog.errors import ScoreError
from avrecog.fusion.fitting import FitClips, FitContext
from avrecog.fusion.weighted_sum import blocks, normalise

if TYPE_CHECKING:
    from avrecog.fusion.settings import Domain
    from avrecog.fusion.weight_search import WeightTrial


@dataclass(frozen=True, eq=False, kw_only=True)
class Fusion(ABC):
    """A way to fuse M models, ready to use.

    Raises:
        ScoreError: if there are no models, or the parts don't fit together.
    """

    name: ClassVar[str]  # in params.yaml, fuse.json, methods.csv and fusion files
    has_chosen_weights: ClassVar[bool] = False  # weights that were found or given, so that a picture of them tells
    models: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.models:
            raise ScoreError("models: expected one or more")

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Fused probabilities (N, K) float64 of (M, N, K) probabilities.

        Raises:
            ScoreError: if there are other numbers of models or classes than it was fitted for.
        """
        if len(probabilities) != len(self.models):
            raise ScoreError(f"expected scores of {', '.join(self.models)}, got those of {len(probabilities)} models")
        fused = np.empty(probabilities.shape[1:])
        for block in blocks(len(fused)):
            fused[block] = self.fuse_block(probabilities[:, block])
        return fused

    @abstractmethod
    def fuse_block(self, probabilities: np.ndarray) -> np.ndarray:
        """Fused probabilities (B, K) of (M, B, K) probabilities; each clip for itself."""

    @abstractmethod
    def describe(self) -> str:
        """What it does, in words for a heading: `audio 0.4 + rgb 0.6`."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What a fusion file keeps of it beside its name and its models: real numbers by name."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, models: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> Self:
        """The fusion whose `arrays()` these float64 are; there may be more than it needs.

        Raises:
            ScoreError: if they don't fit together.
        """

    def parameters(self) -> dict[str, Any]:
        """What fuse.json tells of it: numbers by model, or None where it has none of the kind."""
        return {"coefficients": None, "temperatures": None, "exponent": None}

    def with_available(self, indices: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
        """Fused probabilities (N, K) where only some models have scores: the others count as uniform.

        Args:
            indices: into `models`.
            probabilities: (len(indices), N, K).
        """
        return self(self._filled_up(indices, probabilities))

    def _filled_up(self, indices: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
        """(M, N, K): those given, and for the other models the same probability of each class."""
        full = np.full((len(self.models), *probabilities.shape[1:]), 1 / probabilities.shape[2], np.float32)
        full[list(indices)] = probabilities
        return full

    @property
    def mean_weights(self) -> np.ndarray | None:
        """The (M,) weights whose weighted mean of probabilities it is; None if it is none, and needs its file."""
        return None

    @property
    def drawn_weights(self) -> np.ndarray | None:
        """The (M,) weights that a picture can show; None: it has none."""
        return None

    def weighted_values(self, probabilities: np.ndarray) -> "tuple[np.ndarray, Domain]":
        """What its weights are of: (M, N, K) values, and whether these are probabilities or logarithms."""
        return probabilities, "probability"


class FusionMethod(Fusion):
    """A fusion that stage fuse fits on val and compares with the others: see `registry.py`."""

    is_fitted: ClassVar[bool] = True  # False: it has no numbers that clips could decide

    @classmethod
    @abstractmethod
    def fit(cls, clips: FitClips, context: FitContext) -> "tuple[Self, Sequence[WeightTrial]]":
        """The method fitted on these clips, and what the search of its weights tried; empty where there is none."""

    @classmethod
    def takes_long(cls, n_models: int, n_clips: int, n_classes: int) -> bool:
        """Whether fitting takes so long that it is done only if params.yaml names the method."""
        return False


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedFusion(Fusion):
    """A fusion with one weight a model.

    Raises:
        ScoreError: if the weights are not M numbers, none below 0, of sum 1.
    """

    weights: np.ndarray  # (M,) float64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self.weights, len(self.models))

    def describe(self) -> str:
        """Each model with its weight."""
        return " + ".join(f"{model} {weight:.3g}" for model, weight in zip(self.models, self.weights, strict=True))

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights."""
        return {"weights": self.weights}

    def parameters(self) -> dict[str, Any]:
        """The weights as `coefficients`."""
        return {**super().parameters(), "coefficients": self._by_model(self.weights)}

    def with_available(self, indices: Sequence[int], probabilities: np.ndarray) -> np.ndarray:
        """Fused probabilities (N, K) where only some models have scores, by their weights scaled to sum 1.

        If all of these are 0, the models count equally.

        Args:
            indices: into `models`.
            probabilities: (len(indices), N, K).
        """
        chosen = list(indices)
        weights = np.zeros(len(self.models))
        weights[chosen] = self.weights[chosen] if self.weights[chosen].any() else 1.0
        return replace(self, weights=normalise(weights))(self._filled_up(indices, probabilities))

    @property
    def drawn_weights(self) -> np.ndarray | None:
        """The weights."""
        return self.weights

    def _by_model(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.models, values.tolist(), strict=True))


def check_weights(weights: np.ndarray, n_models: int) -> None:
    """Nothing; it checks that the weights are one a model, none below 0, of sum 1.

    Raises:
        ScoreError: if they aren't.
    """
    if weights.shape != (n_models,):
        raise ScoreError(f"weights: expected one for each of {n_models} models")
    if np.abs(normalise(weights) - weights).max() > 1e-9:
        raise ScoreError(f"weights: expected a sum of 1, got {weights.sum():g}")


def check_positive(name: str, values: np.ndarray | float) -> None:
    """Nothing; it checks that the values are finite and above 0.

    Raises:
        ScoreError: if they aren't.
    """
    if not (np.isfinite(values).all() and np.greater(values, 0).all()):
        raise ScoreError(f"{name}: expected numbers above 0")
