"""Section `fuse` of params.yaml."""

from typing import Annotated, Literal, get_args

from pydantic import Field, Strict

from avrecog.config import Count, NonNegativeNumber, WholeNumber, section
from avrecog.errors import ConfigError

Objective = Literal["top1", "mean_class_accuracy", "log_loss"]
Domain = Literal["probability", "log"]
Method = Literal["equal", "weights", "temperature", "log_weights", "stacking"]
METHODS: tuple[Method, ...] = get_args(Method)  # from the fewest fitted numbers to the most


@section
class FuseConfig:
    """Section `fuse` of params.yaml. What the methods are stands in `methods.py`."""

    coefficients: dict[str, NonNegativeNumber] | None = None  # model -> weight, used as they are; null: found on val
    methods: Annotated[list[Method], Field(min_length=1)] | None = None  # compared; null: all, stacking if it is quick
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
