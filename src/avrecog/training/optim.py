"""Optimiser, learning-rate schedule and weight averaging."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avrecog.training.settings import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; weight decay on matrices and kernels, on all with `decay_norm_and_bias`."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim > 1 or config.decay_norm_and_bias else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.scaled_lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.scaled_lr)


def learning_rate(epoch: float, config: TrainConfig) -> float:
    """Learning rate at a moment of training: linear warm-up, then half a cosine down to 0.

    Args:
        epoch: epochs done, with their fraction.
        config: lr, lr_updates, warmup_epochs and epochs.
    """
    if epoch < config.warmup_epochs:
        return config.scaled_lr * epoch / config.warmup_epochs
    if config.lr_updates == "epoch":
        epoch = max(math.floor(epoch), config.warmup_epochs)
    progress = (epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)
    return config.scaled_lr / 2 * (1 + math.cos(math.pi * progress))


class WeightAverage:
    """Exponential moving average of a model's weights and batch-norm statistics.

    Early on the average reaches back over a tenth of the steps so far, so that it does not hang on to the first, random
    weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move a little towards the model's weights."""
        self.n_updates += 1
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        averaged, current = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                averaged.append(self.weights[name])
                current.append(value)
            else:
                self.weights[name].copy_(value)
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """What resuming needs."""
        return {"n_updates": self.n_updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on from a saved state."""
        n_updates, weights = state["n_updates"], state["weights"]
        assert isinstance(n_updates, int)
        assert isinstance(weights, dict)
        self.n_updates = n_updates
        for name, value in weights.items():
            assert isinstance(value, Tensor)
            self.weights[name].copy_(value)
