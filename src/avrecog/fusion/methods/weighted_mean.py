"""The weighted mean of the models' probabilities, by equal weights, by weights found on val or by given ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from avrecog.fusion.fitting import FitClips, FitContext
from avrecog.fusion.methods.base import FusionMethod, WeightedFusion
from avrecog.fusion.weighted_sum import normalise, weighted_sum

if TYPE_CHECKING:
    from avrecog.fusion.weight_search import WeightTrial


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedMean(WeightedFusion):
    """A weighted mean of probabilities."""

    def fuse_block(self, probabilities: np.ndarray) -> np.ndarray:
        """The weighted mean (B, K) of (M, B, K) probabilities."""
        return weighted_sum(probabilities, self.weights)

    @property
    def mean_weights(self) -> np.ndarray | None:
        """The weights, which are all there is to it."""
        return self.weights

    @classmethod
    def from_arrays(cls, models: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> Self:
        """The weighted mean by `weights`."""
        return cls(models=models, weights=arrays["weights"])


@dataclass(frozen=True, eq=False, kw_only=True)
class EqualWeights(WeightedMean, FusionMethod):
    """The mean of the models' probabilities."""

    name: ClassVar[str] = "equal"
    is_fitted: ClassVar[bool] = False

    @classmethod
    def fit(cls, clips: FitClips, context: FitContext) -> "tuple[Self, Sequence[WeightTrial]]":
        """The mean of the distinct models."""
        return cls(models=context.models, weights=context.equal_weights()), ()


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchedWeights(WeightedMean, FusionMethod):
    """The weighted mean by the weights that are best on val."""

    name: ClassVar[str] = "weights"
    has_chosen_weights: ClassVar[bool] = True

    @classmethod
    def fit(cls, clips: FitClips, context: FitContext) -> "tuple[Self, Sequence[WeightTrial]]":
        """The weighted mean by the best weights, and all that were tried."""
        weights, trials = context.search_weights(clips.probabilities, clips.labels)
        return cls(models=context.models, weights=context.spread(weights)), trials


@dataclass(frozen=True, eq=False, kw_only=True)
class GivenWeights(WeightedMean):
    """The weighted mean by weights that are given, not found."""

    name: ClassVar[str] = "coefficients"
    has_chosen_weights: ClassVar[bool] = True


def fixed_fusion(models: Sequence[str], coefficients: Sequence[float]) -> GivenWeights:
    """The weighted mean by coefficients that are given, scaled to sum 1."""
    return GivenWeights(models=tuple(models), weights=normalise(np.array(coefficients)))
