"""Fusion methods by name. A new one is a file beside this, and a line in `METHODS`."""

from avrecog.errors import ConfigError, ScoreError
from avrecog.fusion.methods.base import Fusion, FusionMethod
from avrecog.fusion.methods.log_pool import LogPool
from avrecog.fusion.methods.stacking import Stacking
from avrecog.fusion.methods.temperature import TemperatureScaling
from avrecog.fusion.methods.weighted_mean import EqualWeights, GivenWeights, SearchedWeights

# from the fewest fitted numbers to the most: of equally good ones the first is chosen
METHODS: dict[str, type[FusionMethod]] = {
    method.name: method for method in (EqualWeights, SearchedWeights, TemperatureScaling, LogPool, Stacking)
}


def register(method: type[FusionMethod]) -> type[FusionMethod]:
    """Decorator for a method that stands elsewhere; it must be run before params.yaml is read.

    Raises:
        ConfigError: if its name is taken.
    """
    if method.name == GivenWeights.name or METHODS.setdefault(method.name, method) is not method:
        raise ConfigError(f"fusion method {method.name}: there is one of this name; choose another")
    return method


def find_fusion(name: str) -> type[Fusion]:
    """The class of a fusion that a file names: one of `METHODS`, or that of given weights.

    Raises:
        ScoreError: if there is none of this name.
    """
    known: dict[str, type[Fusion]] = {**METHODS, GivenWeights.name: GivenWeights}
    if name not in known:
        raise ScoreError(f"method: expected one of {', '.join(METHODS)}, got {name!r}")
    return known[name]
