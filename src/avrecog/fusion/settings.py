"""Section `fuse` of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict

from avrecog.config import Count, NonNegativeNumber, WholeNumber, section
from avrecog.errors import ConfigError
from avrecog.fusion.methods.registry import METHODS

Objective = Literal["top1", "mean_class_accuracy", "log_loss"]
Domain = Literal["probability", "log"]


def _check_registered(name: Any) -> Any:
    if not isinstance(name, str) or name not in METHODS:
        *others, last = (repr(known) for known in METHODS)
        raise ValueError(f"expected {', '.join(others)} or {last}, got {name!r}")
    return name


MethodName = Annotated[str, BeforeValidator(_check_registered)]


@section
class FuseConfig:
    """Section `fuse` of params.yaml. The methods are those of `methods/registry.py`."""

    coefficients: dict[str, NonNegativeNumber] | None = None  # model -> weight, used as they are; null: found on val
    methods: Annotated[list[MethodName], Field(min_length=1)] | None = None  # compared; null: all that are quick
    objective: Objective = "top1"  # what the choice and the search maximise on val; log_loss is minimised
    n_trials: Count = 200
    n_folds: Annotated[int, Strict(), Field(ge=2)] = 5  # of the cross-validation inside val that chooses the method
    seed: WholeNumber = 0
    n_resamples: Count = 2000  # of the bootstrap

    def __post_init__(self) -> None:
        if self.methods is not None and len(set(self.methods)) < len(self.methods):
            raise ConfigError(f"methods: expected each once, got {', '.join(self.methods)}")
        if self.coefficients is not None and not sum(self.coefficients.values()) > 0:
            raise ConfigError(f"coefficients: expected at least one above 0, got {self.coefficients}")
