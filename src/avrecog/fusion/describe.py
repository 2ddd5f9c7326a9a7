"""A fusion and its gain in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.fusion.methods import Fusion
from avrecog.fusion.weighted_sum import normalise

GIVEN = "coefficients"  # the method of weights that are given, not found


def fixed_fusion(models: Sequence[str], coefficients: Sequence[float]) -> Fusion:
    """The weighted mean by coefficients that are given."""
    return Fusion(GIVEN, tuple(models), normalise(np.array(coefficients)), np.ones(len(models)))


def said_fusion(fusion: Fusion) -> str:
    """Its weights in words, with what else it has."""
    if fusion.method == "stacking":
        return f"stacking of {', '.join(fusion.models)}"
    words = " + ".join(f"{model} {weight:.3g}" for model, weight in zip(fusion.models, fusion.weights, strict=True))
    if fusion.method == "temperature":
        return f"{words}; T {', '.join(f'{value:g}' for value in fusion.temperatures)}"
    return f"logarithms of {words}" if fusion.method == "log_weights" else words


def said_gain(report: dict[str, Any]) -> str:
    """The gain over the best single model with its interval and p-value."""
    gain, (low, high) = report["gain"], report["gain"]["top1_ci95"]
    return (
        f"{gain['top1']:+.3f} over {report['best_single']['model']} "
        f"(95 % interval {low:.3f} to {high:.3f}, p = {gain['p_value']:.2g})"
    )


def repeat_command(paths: Sequence[Path | str], fusion: Fusion, saved: Path | str) -> str:
    """The line that fuses score files in this way."""
    scores = f"avrecog fuse --scores {' '.join(map(str, paths))}"
    if not fusion.is_linear:
        return f"{scores} --fusion {saved}"
    equal = (fusion.weights == fusion.weights[0]).all()
    weights = " ".join("1" if equal else f"{weight!r}".removesuffix(".0") for weight in fusion.weights.tolist())
    return f"{scores} --coefficients {weights}"


def format_result(report: dict[str, Any], fusion: Fusion) -> str:
    """The line that stage fuse prints: method, top-1 on test and the gain."""
    result = f"{said_fusion(fusion)}: top-1 {report['test']['top1']:.3f} on test"
    if len(fusion.models) == 1:
        return result
    how = "" if report["method"] == GIVEN else f"{report['method']}, chosen on val: "
    return f"{how}{result}, {said_gain(report)}"


def format_left_out(n_left_out: dict[str, int]) -> str:
    """How many test clips each model could not score, or nothing where each scored all."""
    parts = [f"{n} that {model} can't score" for model, n in n_left_out.items()]
    return f"; left out: {', '.join(parts)}" if parts else ""
