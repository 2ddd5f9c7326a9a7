"""A weighted sum of the models' log-probabilities (logarithmic pooling).

Source: Genest and Zidek, "Combining Probability Distributions", 1986.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from avrecog.fusion.fitting import FitClips, FitContext
from avrecog.fusion.log_probabilities import logarithms, softmax
from avrecog.fusion.methods.base import FusionMethod, WeightedFusion, check_positive
from avrecog.fusion.methods.temperature import fit_temperature
from avrecog.fusion.weighted_sum import weighted_sum

if TYPE_CHECKING:
    from avrecog.fusion.settings import Domain
    from avrecog.fusion.weight_search import WeightTrial


@dataclass(frozen=True, eq=False, kw_only=True)
class LogPool(WeightedFusion, FusionMethod):
    """softmax(exponent x weighted sum of log p).

    Raises:
        ScoreError: if the exponent is not above 0.
    """

    name: ClassVar[str] = "log_weights"
    has_chosen_weights: ClassVar[bool] = True
    exponent: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("exponent", self.exponent)

    @classmethod
    def fit(cls, clips: FitClips, context: FitContext) -> "tuple[Self, Sequence[WeightTrial]]":
        """The best weights, then the exponent by the log-loss, and all weights that were tried."""
        values, labels = logarithms(clips.probabilities), clips.labels
        del clips  # a fold's copy takes much memory
        weights, trials = context.search_weights(values, labels, "log")
        exponent = 1 / fit_temperature(values, weights, labels)
        return cls(models=context.models, weights=context.spread(weights), exponent=exponent), trials

    def fuse_block(self, probabilities: np.ndarray) -> np.ndarray:
        """The pool (B, K) of (M, B, K) probabilities."""
        return softmax(self.exponent * weighted_sum(logarithms(probabilities), self.weights), axis=1)

    def describe(self) -> str:
        """Each model with its weight, as one of logarithms."""
        return f"logarithms of {super().describe()}"

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights and the exponent."""
        return {**super().arrays(), "exponent": np.array(self.exponent)}

    @classmethod
    def from_arrays(cls, models: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> Self:
        """The pool by `weights` and `exponent`."""
        return cls(models=models, weights=arrays["weights"], exponent=float(arrays["exponent"]))

    def parameters(self) -> dict[str, Any]:
        """The weights as `coefficients`, and the exponent."""
        return {**super().parameters(), "exponent": self.exponent}

    def weighted_values(self, probabilities: np.ndarray) -> "tuple[np.ndarray, Domain]":
        """The log-probabilities."""
        return logarithms(probabilities), "log"
