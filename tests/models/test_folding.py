"""Batch norms are folded however a network is written, and only where that changes nothing."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from avrecog.models.folding import fold_batch_norms


class Dynamic(nn.Module):
    """What no trace follows: the way depends on the values."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.other, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        if x.mean() > 0:
            return self.bn(self.conv(x)).relu()
        return self.norm(self.other(x)).relu()


class Standardised(nn.Conv2d):
    """Weights are standardised as they are used, as in timm's NFNets: scaled ones would be scaled back."""

    def forward(self, x):
        weight = self.weight / self.weight.norm()
        return nn.functional.conv2d(x, weight, self.bias)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))


class Tapped(nn.Module):
    """What the convolution gives is used beside the batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + y


class PartlyTapped(Tapped):
    """And another one is not."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))

    def forward(self, x):
        return super().forward(self.stem(x))


class Clamped(nn.Module):
    """Large values are cut off in place before the batch norm, and those of an example aren't large."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.conv(x)
        y.clamp_(max=50)
        return self.bn(y)


class WithActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def __init__(self, n):
        super().__init__(n)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class PerToken(nn.Module):
    """As timm's LeViT: the norm sees the tokens of all clips as one batch."""

    def __init__(self):
        super().__init__()
        self.linear, self.bn = nn.Linear(5, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        x = self.linear(x.flatten(1, 2))
        return self.bn(x.flatten(0, 1)).reshape_as(x)


def seen(network):
    """Statistics and weights other than at the beginning."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return network.eval()


def n_norms(network):
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (Dynamic, 1),  # that of the way not taken
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), 0),
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), WithActivation(3)), 0),
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3)), 1),
        (lambda: nn.Sequential(Standardised(2, 3, 3), nn.BatchNorm2d(3)), 1),
        (PerToken, 0),
        (Twice, 2),
        (Tapped, 1),
        (PartlyTapped, 1),
        (Clamped, 1),
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), 1),
    ],
)
def test_what_can_be_folded_is_and_no_value_changes(make, left):
    torch.manual_seed(0)
    network = make()
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            break
    else:
        seen(network)
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    example = torch.rand(3, 2, 6, 5) + 0.1
    result = fold_batch_norms(network, [example])
    assert n_norms(result) == left
    with torch.no_grad():
        torch.testing.assert_close(result(example), network(example), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in [*network.modules(), *result.modules()])


def test_the_way_that_was_not_taken_still_gives_its_values():
    network = seen(Dynamic())
    result = fold_batch_norms(network, [torch.rand(2, 2, 6, 5)])
    with torch.no_grad():
        other = -torch.rand(2, 2, 6, 5)
        torch.testing.assert_close(result(other), network(other), rtol=1e-4, atol=1e-5)


def test_what_changes_no_value_of_the_example_is_not_folded_over():
    network = seen(Clamped())
    result = fold_batch_norms(network, [torch.rand(2, 2, 6, 5)])
    with torch.no_grad():
        large = 1000 * torch.rand(2, 2, 6, 5)
        assert network.conv(large).max() > 50
        torch.testing.assert_close(result(large), network(large))
