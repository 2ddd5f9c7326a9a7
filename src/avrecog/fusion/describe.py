"""The result of a fusion in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avrecog.fusion.methods.base import Fusion


def format_gain(report: dict[str, Any]) -> str:
    """The gain over the best single model with its interval and p-value."""
    gain, (low, high) = report["gain"], report["gain"]["top1_ci95"]
    return (
        f"{gain['top1']:+.3f} over {report['best_single']['model']} "
        f"(95 % interval {low:.3f} to {high:.3f}, p = {gain['p_value']:.2g})"
    )


def repeat_command(paths: Sequence[Path | str], fusion: Fusion, saved: Path | str) -> str:
    """The line that fuses score files in this way."""
    scores = f"avrecog fuse --scores {' '.join(map(str, paths))}"
    weights = fusion.mean_weights
    if weights is None:
        return f"{scores} --fusion {saved}"
    equal = (weights == weights[0]).all()
    words = " ".join("1" if equal else f"{weight!r}".removesuffix(".0") for weight in weights.tolist())
    return f"{scores} --coefficients {words}"


def format_result(report: dict[str, Any], fusion: Fusion) -> str:
    """The line that stage fuse prints: method, top-1 on test and the gain."""
    result = f"{fusion.describe()}: top-1 {report['test']['top1']:.3f} on test"
    if len(fusion.models) == 1:
        return result
    how = f"{report['method']}, chosen on val: " if report["val_reused"] else ""
    return f"{how}{result}, {format_gain(report)}"


def format_left_out(n_left_out: dict[str, int]) -> str:
    """How many test clips each model could not score, or nothing where each scored all."""
    parts = [f"{n} that {model} can't score" for model, n in n_left_out.items()]
    return f"; left out: {', '.join(parts)}" if parts else ""
