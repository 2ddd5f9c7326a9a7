"""Calibration of each model by a temperature, then a weighted mean.

Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from avrecog.errors import ScoreError
from avrecog.fusion.fitting import FitClips, FitContext
from avrecog.fusion.log_probabilities import logarithms, softmax
from avrecog.fusion.methods.base import FusionMethod, WeightedFusion, check_positive
from avrecog.fusion.weighted_sum import blocks, weighted_sum

if TYPE_CHECKING:
    from avrecog.fusion.settings import Domain
    from avrecog.fusion.weight_search import WeightTrial

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.2, 5.0
ONE_WEIGHT = np.ones(1)  # of a single model


@dataclass(frozen=True, eq=False, kw_only=True)
class TemperatureScaling(WeightedFusion, FusionMethod):
    """The weighted mean of softmax(log p / T), with one temperature a model.

    Raises:
        ScoreError: if the temperatures are not M numbers above 0.
    """

    name: ClassVar[str] = "temperature"
    has_chosen_weights: ClassVar[bool] = True
    temperatures: np.ndarray  # (M,) float64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperatures(self.temperatures, len(self.models))

    @classmethod
    def fit(cls, clips: FitClips, context: FitContext) -> "tuple[Self, Sequence[WeightTrial]]":
        """A temperature for each model by the log-loss, then the best weights and all that were tried."""
        labels = clips.labels
        found = [fit_temperature(logarithms(table[None]), ONE_WEIGHT, labels) for table in clips.probabilities]
        temperatures = np.array(found)
        values = calibrated(clips.probabilities, temperatures)
        del clips  # a fold's copy takes much memory
        weights, trials = context.search_weights(values, labels)
        fusion = cls(
            models=context.models, weights=context.spread(weights), temperatures=context.repeated(temperatures)
        )
        return fusion, trials

    def fuse_block(self, probabilities: np.ndarray) -> np.ndarray:
        """The weighted mean (B, K) of the calibrated (M, B, K) probabilities."""
        return weighted_sum(calibrated(probabilities, self.temperatures), self.weights)

    def describe(self) -> str:
        """Each model with its weight, then the temperatures."""
        return f"{super().describe()}; T {', '.join(f'{value:g}' for value in self.temperatures)}"

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights and the temperatures."""
        return {**super().arrays(), "temperatures": self.temperatures}

    @classmethod
    def from_arrays(cls, models: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> Self:
        """The fusion by `weights` and `temperatures`."""
        return cls(models=models, weights=arrays["weights"], temperatures=arrays["temperatures"])

    def parameters(self) -> dict[str, Any]:
        """The weights as `coefficients`, and the temperatures."""
        return {**super().parameters(), "temperatures": self._by_model(self.temperatures)}

    def weighted_values(self, probabilities: np.ndarray) -> "tuple[np.ndarray, Domain]":
        """The calibrated probabilities."""
        return calibrated(probabilities, self.temperatures), "probability"


def check_temperatures(temperatures: np.ndarray, n_models: int) -> None:
    """Nothing; it checks that the temperatures are one a model, all above 0.

    Raises:
        ScoreError: if they aren't.
    """
    if temperatures.shape != (n_models,):
        raise ScoreError(f"temperatures: expected one for each of {n_models} models")
    check_positive("temperatures", temperatures)


def calibrated(probabilities: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """softmax(log p / T) of (M, N, K) probabilities, one temperature a model: float32."""
    result = np.empty(probabilities.shape, np.float32)
    for block in blocks(probabilities.shape[1]):
        result[:, block] = softmax(logarithms(probabilities[:, block]) / temperatures[:, None, None], axis=2)
    return result


def fit_temperature(log_values: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    """The T in [0.2, 5], to three digits, with the least log-loss of softmax(weighted sum of log_values / T).

    Args:
        log_values: (M, N, K).
        weights: (M,).
        labels: (N,) int64.
    """
    from scipy.optimize import minimize_scalar  # late: a prediction needs none of it

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        losses = np.empty(len(labels))
        for block in blocks(len(labels)):
            scaled = weighted_sum(log_values[:, block], weights)
            scaled -= scaled.max(axis=1, keepdims=True)
            scaled /= temperature
            own = scaled[np.arange(len(scaled)), labels[block]]
            losses[block] = np.log(np.exp(scaled, out=scaled).sum(axis=1)) - own
        return float(losses.mean())

    bounds = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return float(f"{np.exp(found.x):.3g}")
