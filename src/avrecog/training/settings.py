"""Section `train` of params.yaml, the linear scaling rule, and what a model has in force after its overrides."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from avrecog.config import (
    Count,
    Flag,
    Fraction,
    NonNegativeNumber,
    PositiveNumber,
    WholeNumber,
    plain,
    section,
    validate,
)
from avrecog.datasets.augment import AugmentConfig
from avrecog.errors import ConfigError


@section
class TrainConfig:
    """Section `train` in params.yaml: the recipe that all models share."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveNumber = 0.1  # at base_batch_size; scaled linearly to batch_size
    base_batch_size: Count = 32
    batch_size: Count = 32  # of all devices together
    epochs: Count = 30
    warmup_epochs: NonNegativeNumber = 1.0  # learning rate rises linearly from 0, then falls by a half-cosine to 0
    lr_updates: Literal["step", "epoch"] = "step"  # how often it falls; epoch: at the begin of each, as MMAction2 does
    momentum: Fraction = 0.9  # sgd
    weight_decay: NonNegativeNumber = 1e-4
    decay_norm_and_bias: Flag = False  # weight decay on batch norm and bias too, as MMAction2 does
    clip_grad_norm: PositiveNumber | None = 40.0  # total L2 norm; null: none
    label_smoothing: Fraction = 0.0
    ema_decay: Fraction | None = None  # evaluate an exponential moving average of the weights; null: the weights
    seed: WholeNumber = 0
    deterministic: Flag = True  # only algorithms that give the same result each time
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"  # auto: bf16-mixed on a GPU that has it
    compile: Flag = False  # torch.compile the model
    max_hours: PositiveNumber | None = None  # end in good order after so long, restarts included; null: no limit
    val_interval: Count = 1  # epochs between validations; the last epoch is always validated
    augment: AugmentConfig = Field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.epochs:
            raise ConfigError(f"warmup_epochs: expected less than epochs ({self.epochs}), got {self.warmup_epochs:g}")

    @property
    def scaled_lr(self) -> float:
        """The peak learning rate: `lr` scaled linearly from base_batch_size to batch_size (Goyal et al., 2017)."""
        return self.lr * self.batch_size / self.base_batch_size


def resolve_train_config(train: TrainConfig, overrides: Mapping[str, Any], model: str) -> tuple[TrainConfig, list[str]]:
    """Section `train` with a model's overrides laid over it, and what is overridden, in words.

    Raises:
        ConfigError: if an override is unknown or of the wrong kind.
    """
    where = f"models.{model}.train"
    sources: list[str] = []
    merged = _laid_over(plain(train), overrides, where, "", sources)
    try:
        return validate(TrainConfig, merged, where), sources
    except ConfigError as error:
        raise ConfigError(f"params.yaml: {error}") from None


def _laid_over(
    base: dict[str, Any], overrides: Mapping[str, Any], where: str, path: str, sources: list[str]
) -> dict[str, Any]:
    result = dict(base)
    for key, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            result[key] = _laid_over(base[key], value, where, f"{path}{key}.", sources)
        else:
            result[key] = value
            sources.append(f"{path}{key} {value} ({where})")
    return result
