"""Batch norm over the whole batch when several processes share it, so that their number changes no result."""

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from avrecog.errors import ConfigError


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms that see the batches of all processes; its weights keep their names.

    On a GPU they are PyTorch's own, which the CPU lacks.

    Raises:
        ConfigError: if the model has a kind of batch norm that can't be synchronised on the CPU.
    """
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # late: it takes 2 s

        return convert_sync_batchnorm(model)
    for name, module in model.named_modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _BatchNorm2dOfAll
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{name}: a {type(module).__name__} can't be shared by several processes on the CPU; start one process"
            )
    return model


class _BatchNorm2dOfAll(nn.BatchNorm2d):
    """nn.BatchNorm2d whose mean and variance in training are those of all processes' batches."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()  # the sums too, where the network computes in bfloat16
        n = _sum_of_all(values.new_tensor(float(values.numel() // values.shape[1])))
        mean = _sum_of_all(values.sum(dim=(0, 2, 3))) / n
        centred = values - mean[:, None, None]
        variance = _sum_of_all(centred.square().sum(dim=(0, 2, 3))) / n
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight / torch.sqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since every process uses the sum."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


def _sum_of_all(value: Tensor) -> Tensor:
    total: Tensor = _SumOfAll.apply(value)
    return total
