"""Networks of timm, by name, for inputs of the size that ours has."""

import functools
from typing import Any

import torch
from torch import nn

from avrecog.errors import ConfigError
from avrecog.models.shapes import shapes_alone

FAILURES = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError),
)  # what networks raise over an input, or an argument, that they can't take


def timm_backbone(name: str, size: tuple[int, int] | None, pretrained: bool, **how: Any) -> nn.Module:
    """Timm's network `name`, made for inputs of `size` where it can be.

    Args:
        name: timm's.
        size: (height, width) of its inputs; None: timm's usual.
        pretrained: with timm's weights.
        how: further arguments of timm's `create_model`: in_chans, num_classes, …

    Raises:
        ConfigError: if the network can't be made, or none for inputs of that size.
        RuntimeError: if timm knows no network or weights of that name.
    """
    import timm  # late, as it takes 2 s and the networks of our own need none of it

    asked = _asked(name, size, how["in_chans"]) if size is not None and timm.is_model(name) else ()
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **how, **dict(asked))
    except (TypeError, AssertionError, AttributeError, LookupError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"backbone {name}: timm can't make it so: {reason(error)}; choose another") from None
    return network


@functools.cache
def _asked(name: str, size: tuple[int, int], channels: int) -> tuple[tuple[str, Any], ...]:
    """What a network that is made for inputs of one size must be asked for, to take those of `size`.

    Raises:
        ConfigError: if none of timm's ways to ask makes it take them.
    """
    import timm

    settings = timm.get_pretrained_cfg(name)
    if settings is None or not settings.fixed_input_size:
        return ()
    reasons = []
    for asked in ((), (("img_size", size),), (("img_size", size), ("dynamic_img_size", True))):
        try:
            with shapes_alone():
                network = timm.create_model(name, in_chans=channels, num_classes=2, **dict(asked)).eval()
                network(torch.empty(2, channels, *size))
        except FAILURES as error:
            if "unexpected keyword" not in str(error):
                reasons.append(reason(error))
            continue
        return asked
    height, width = settings.input_size[1:]
    raise ConfigError(
        f"backbone {name}: is made for inputs of {height} x {width}, and can't take {size[0]} x {size[1]} "
        f"({reasons[-1]}); give it that size, or choose another backbone"
    )


def reason(error: BaseException) -> str:
    """The first line that an error says, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
