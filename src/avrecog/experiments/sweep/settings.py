"""The file of a sweep: which parameters of params.yaml are varied, in which ranges, and what for."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from avrecog.config import PARAMS, Count, Flag, WholeNumber, flatten, listed, read_yaml, section, suggest, validate
from avrecog.errors import ConfigError, LeakError

METRICS = {"val_top1": "maximize", "val_loss": "minimize"}
SECTIONS = ("audio", "video", "train")  # of params.yaml, and the model's own; what `train@<model>` and extract read

Scalar = str | int | float | bool | None


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    return value


def _choices(value: Any) -> tuple[Scalar, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError(f"expected a list of two values at least, got {value!r}")
    for item in value:
        if not isinstance(item, Scalar) or (isinstance(item, float) and not math.isfinite(item)):
            raise ValueError(f"expected text, finite numbers, true, false or null, got {item!r}")
    if len(set(value)) < len(value):  # 1 and true are equal too
        raise ValueError(f"expected different values, got {value!r}")
    return tuple(value)


def _study(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value):
        raise ValueError(f"expected letters, digits, - and _, got {value!r}")
    return value


def _objective(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(rf".+\.({'|'.join(METRICS)})", value):
        raise ValueError(f"expected <model>.val_top1 or <model>.val_loss, got {value!r}")
    return value


@section
class ParameterRange:
    """The values that a parameter may take: `low` to `high`, or one of `choices`."""

    low: Annotated[int | float | None, PlainValidator(_number)] = None
    high: Annotated[int | float | None, PlainValidator(_number)] = None  # included
    log: Flag = False  # on a logarithmic scale
    choices: Annotated[tuple[Scalar, ...] | None, PlainValidator(_choices)] = None

    def __post_init__(self) -> None:
        if self.choices is not None:
            if (self.low, self.high, self.log) != (None, None, False):
                raise ConfigError("choices: expected alone, without low, high and log")
        elif self.low is None or self.high is None:
            raise ConfigError(f"{'low' if self.low is None else 'high'}: is missing; give low and high, or choices")
        elif self.low >= self.high:
            raise ConfigError(f"high: expected more than low ({self.low:g}), got {self.high:g}")
        elif self.log and self.low <= 0:
            raise ConfigError(f"low: expected more than 0 on a logarithmic scale, got {self.low:g}")


@section
class SweepConfig:
    """The file of a sweep, whole."""

    study: Annotated[str, PlainValidator(_study)]
    objective: Annotated[str, PlainValidator(_objective)]  # of the epoch that is kept as best.ckpt
    n_trials: Count  # that end complete or pruned
    parameters: Annotated[dict[str, ParameterRange], Field(min_length=1)]  # by dotted path in params.yaml
    prune: Flag = True  # by Optuna's MedianPruner, on the validation curve
    seed: WholeNumber = 0

    @property
    def model(self) -> str:
        """The model that is trained."""
        return self.objective.rpartition(".")[0]

    @property
    def metric(self) -> str:
        """`val_top1` or `val_loss`."""
        return self.objective.rpartition(".")[2]

    @property
    def direction(self) -> str:
        """`maximize` or `minimize`."""
        return METRICS[self.metric]


@dataclass(frozen=True)
class Sweep:
    """A sweep that fits params.yaml."""

    config: SweepConfig
    fixed: dict[str, Any]  # every other parameter that its trainings hang on
    warnings: list[str]


def read_sweep(path: Path) -> Sweep:
    """The sweep in a file, checked against the params.yaml of the working folder.

    Raises:
        ConfigError: listing every problem at once.
        LeakError: if the objective is a number of the test split.
    """
    document = read_yaml(path)
    _refuse_test(path, document.get("objective"))
    params = read_yaml(PARAMS)
    try:
        config: SweepConfig = validate(SweepConfig, document, "sweep")
    except ConfigError as error:
        lines = [line.removeprefix("sweep.") for line in str(error).splitlines()]
        raise ConfigError(listed(str(path), lines)) from None
    problems = _model_problems(config.model, params)
    allowed = [*SECTIONS, f"models.{config.model}"]
    for key in config.parameters:
        problems += _parameter_problems(key, params, allowed)
    if problems:
        raise ConfigError(listed(str(path), problems))
    read = {"data": params.get("data"), **{name: params.get(name) for name in SECTIONS}}
    read["models"] = {config.model: params["models"][config.model]}
    fixed = {key: value for key, value in flatten(read) if key not in config.parameters}
    overrides = dict(flatten({"train": params["models"][config.model].get("train") or {}}))
    warnings = [
        f"{key}: models.{config.model}.train overrides it, so that sweeping it moves nothing"
        for key in config.parameters
        if key in overrides
    ]
    return Sweep(config, fixed, warnings)


def _refuse_test(path: Path, objective: Any) -> None:
    """Refuse a number of the test split.

    Raises:
        LeakError: if it is one.
    """
    if not isinstance(objective, str) or "test" not in objective.lower():
        return
    if objective.rpartition(".")[2] not in METRICS:  # a model may be called `latest`
        raise LeakError(
            f"{path}: objective: {objective} is a number of the test split, on which nothing is chosen: what is chosen "
            f"on it no longer measures anything; take <model>.val_top1 or <model>.val_loss"
        )


def _model_problems(model: str, params: Mapping[str, Any]) -> list[str]:
    pipeline = params.get("pipeline")
    trained = pipeline.get("models") if isinstance(pipeline, Mapping) else None
    known = trained if isinstance(trained, list) else []
    models = params.get("models")
    section_of = models.get(model) if isinstance(models, Mapping) else None
    if model in known and isinstance(section_of, Mapping):
        return []
    return [f"objective: {model} is no model of pipeline.models in {PARAMS}{suggest(model, known)}"]


def _parameter_problems(key: str, params: Mapping[str, Any], allowed: list[str]) -> list[str]:
    here: Any = params
    for step in key.split("."):
        if not isinstance(here, Mapping) or step not in here:
            known = dict(flatten(params))
            near = [path for path in known if any(path.startswith(f"{part}.") for part in allowed)]
            return [f"parameters: {key} is not in {PARAMS}{suggest(key, near)}"]
        here = here[step]
    if isinstance(here, Mapping | list):
        return [f"parameters: {key} is no single value in {PARAMS}; name a key in it"]
    if not any(key.startswith(f"{part}.") for part in allowed):
        return [
            f"parameters: {key} can't be swept: expected a key below {', '.join(allowed)}, which the training reads"
        ]
    return []
