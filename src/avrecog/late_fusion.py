"""Fusing the scores of several models: what stage fuse calls.

Everything is fitted and chosen on val and applied to test once. Val has chosen each model's epoch before, so its
numbers flatter; only those of test count.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.atomic import atomic_path
from avrecog.errors import LeakError, ScoreError
from avrecog.fusion import FuseConfig, normalise
from avrecog.fusion_choice import Fitted, choose, fit_methods
from avrecog.fusion_methods import Fusion, write_fusion
from avrecog.fusion_pictures import draw_fusion
from avrecog.metrics import (
    bootstrap_gain,
    bootstrap_interval,
    classification_metrics,
    correct_clips,
    mcnemar_exact,
    top_k_accuracy,
)
from avrecog.outcome import Outcome
from avrecog.predictions import write_predictions
from avrecog.scores import ScoreTable, join_scores, probabilities, read_scores
from avrecog.tables import write_table

REPORTED = ("top1", "top5", "mean_class_accuracy")
GIVEN = "coefficients"  # the method of weights that are given, not found


def fuse_models(
    models: Sequence[str],
    scores_dir: Path,
    config: FuseConfig,
    metrics_path: Path,
    fusion_dir: Path,
    plots_dir: Path,
) -> Outcome:
    """Fuse the models' scores: every method fitted on val, one chosen there (or the config's coefficients), all
    reported on test.

    The gain is measured against the model that is best on test, not on val: no one could have picked a better one, so
    the gain is not flattered.

    Args:
        models: names of folders in `scores_dir`, each with `val.npz` and `test.npz`.
        scores_dir: folder of the score files.
        config: section `fuse`.
        metrics_path: the JSON file to write.
        fusion_dir: folder for `fusion.npz` and Optuna's journals, gone on with where they fit.
        plots_dir: folder for the pictures, the table of methods and the table of trials.

    Raises:
        LeakError: if a clip is in val and in test.
    """
    begin = time.perf_counter()
    val, val_stack = _read_stack(scores_dir, models, "val")
    # test is read again when it is used, so that its scores don't lie in memory while val's are fitted
    shared = np.intersect1d(val[0].clip_ids, _read_tables(scores_dir, models, "test")[0].clip_ids)
    if len(shared):
        raise LeakError(
            f"{scores_dir}: clip {shared[0]} and {len(shared) - 1} more are in val and in test; run `dvc repro`"
        )
    fusion_dir.mkdir(parents=True, exist_ok=True)
    methods = fit_methods(val_stack, val[0].labels, val[0].clip_ids.tolist(), models, config, fusion_dir)
    fusions = {name: fitted.fusion for name, fitted in methods.items()}
    if config.coefficients is not None:
        fusions[GIVEN] = _given(config.coefficients, models)
    chosen = GIVEN if GIVEN in fusions else choose(methods)
    fusion = fusions[chosen]
    write_fusion(fusion_dir / "fusion.npz", fusion, val[0].classes)
    shown = "weights" if chosen in ("equal", "stacking") and "weights" in fusions else chosen
    tried = methods[shown].trials if shown in methods else ()
    test, test_stack = _read_stack(scores_dir, models, "test")
    splits = {"val": Single.of(models, val_stack, val[0].labels), "test": Single.of(models, test_stack, test[0].labels)}
    found = {
        name: {
            "val": evaluate(each, val_stack, val[0].labels, splits["val"], config),
            "test": evaluate(each, test_stack, test[0].labels, splits["test"], config),
        }
        for name, each in fusions.items()
    }
    rows = [
        _method_row(name, name == chosen, each, methods.get(name), found[name], config)
        for name, each in fusions.items()
    ]
    plots_dir.mkdir(parents=True, exist_ok=True)
    write_table(plots_dir / "methods.csv", rows)
    write_predictions(
        plots_dir / "predictions.csv", test[0].clip_ids, test[0].labels, fusion(test_stack), test[0].classes
    )
    n_left_out = {table.model: len(table.left_out) for table in test if len(table.left_out)}
    on_test = found[chosen]["test"]
    report = {
        "method": chosen,
        "coefficients": None if fusion.method == "stacking" else _by_model(fusion, fusion.weights),
        "temperatures": _by_model(fusion, fusion.temperatures) if fusion.method == "temperature" else None,
        "exponent": fusion.exponent if fusion.method == "log_weights" else None,
        "val": {key: found[chosen]["val"]["fused"][key] for key in REPORTED},
        "test": on_test["fused"],
        "best_single": on_test["best_single"],
        "gain": on_test["gain"],
        "val_reused": chosen != GIVEN,
        "n_clips": len(test[0].labels),
        "n_left_out": n_left_out,  # test clips that one model could not score, so that none of them counts
        "n_trials": sum(len(fitted.trials) for fitted in methods.values()),
        "seconds": round(time.perf_counter() - begin, 3),
    }
    with atomic_path(metrics_path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    files = draw_fusion(fusion, fusions[shown], tried, (val_stack, val[0]), (test_stack, test[0]), config, plots_dir)
    command = repeat_command([scores_dir / model / "test.npz" for model in models], fusion, fusion_dir / "fusion.npz")
    return Outcome(
        summary=f"{_said(report, fusion)}{_said_left_out(n_left_out)}; repeat with: {command}",
        metrics=_flat(report),
        curves=[
            (trial.number, {"trial_value": trial.value, **_prefixed("trial_coefficients", trial.coefficients)})
            for trial in tried
        ],
        files=[*files, plots_dir / "methods.csv", plots_dir / "predictions.csv", metrics_path],
        facts={"fusion.method": chosen},
    )


def _read_stack(scores_dir: Path, models: Sequence[str], split: str) -> tuple[list[ScoreTable], np.ndarray]:
    """The tables of a split, of the same clips in one order, and their (M, N, K) probabilities, which they share."""
    tables = _read_tables(scores_dir, models, split)
    stack = stacked(tables)
    return [replace(table, scores=rows, kind="probabilities") for table, rows in zip(tables, stack, strict=True)], stack


def _read_tables(scores_dir: Path, models: Sequence[str], split: str) -> list[ScoreTable]:
    return join_scores([_read_split(scores_dir / model, split) for model in models])


def _read_split(folder: Path, split: str) -> ScoreTable:
    table = read_scores(folder / f"{split}.npz")
    if table.split != split:  # a copied test file would be tuned on
        kind = LeakError if table.split == "test" else ScoreError
        raise kind(f"{folder / split}.npz: expected scores of split {split}, got {table.split}; run stage test")
    return table


def stacked(tables: Sequence[ScoreTable]) -> np.ndarray:
    """The tables' probabilities, (M, N, K) float32."""
    return np.stack([probabilities(table) for table in tables])


def _given(given: dict[str, float], models: Sequence[str]) -> Fusion:
    missing, unknown = [m for m in models if m not in given], [m for m in given if m not in models]
    if missing or unknown:
        parts = [f"no coefficient for {', '.join(missing)}"] * bool(missing)
        parts += [f"unknown model {', '.join(unknown)}"] * bool(unknown)
        raise ScoreError(
            f"fuse.coefficients: {'; '.join(parts)}; expected one for each of {', '.join(models)} "
            "(0 leaves a model out)"
        )
    return fixed_fusion(models, [given[model] for model in models])


def fixed_fusion(models: Sequence[str], coefficients: Sequence[float]) -> Fusion:
    """The weighted mean by coefficients that are given."""
    return Fusion(GIVEN, tuple(models), normalise(np.array(coefficients)), np.ones(len(models)))


@dataclass(frozen=True, eq=False)
class Single:
    """The model that is best alone on a split."""

    model: str
    top1: float
    top5: float
    correct: np.ndarray  # (N,) booleans

    @classmethod
    def of(cls, models: Sequence[str], stack: np.ndarray, labels: np.ndarray) -> "Single":
        """The one of highest top-1, then top-5, then the first, of (M, N, K) probabilities."""
        singles = [
            cls(name, top_k_accuracy(table, labels, 1), top_k_accuracy(table, labels, 5), correct_clips(table, labels))
            for name, table in zip(models, stack, strict=True)
        ]
        return max(singles, key=lambda single: (single.top1, single.top5))


def evaluate(
    fusion: Fusion, stack: np.ndarray, labels: np.ndarray, single: Single, config: FuseConfig
) -> dict[str, dict[str, Any]]:
    """What a fusion is worth on a split: `fused`, `best_single` and `gain`, as fuse.json has them."""
    scores = fusion(stack)
    numbers = classification_metrics(scores, labels)
    correct = correct_clips(scores, labels)
    low, high = bootstrap_interval(correct, config.n_resamples, config.seed)
    return {
        "fused": {**{name: numbers[name] for name in REPORTED}, "top1_low": low, "top1_high": high},
        "best_single": {"model": single.model, "top1": single.top1},
        "gain": {
            "top1": numbers["top1"] - single.top1,
            "top5": numbers["top5"] - single.top5,
            "top1_ci95": list(bootstrap_gain(correct, single.correct, config.n_resamples, config.seed)),
            "p_value": mcnemar_exact(correct, single.correct),
        },
    }


def _method_row(
    name: str,
    is_chosen: bool,
    fusion: Fusion,
    fitted: Fitted | None,
    found: Mapping[str, Mapping[str, Any]],
    config: FuseConfig,
) -> dict[str, Any]:
    """A line of the table of methods: the gains are over the model that is best alone on that split."""
    val, test = found["val"], found["test"]
    return {
        "method": name,
        "chosen": is_chosen,
        "coefficients": said_fusion(fusion),
        "val_top1": val["fused"]["top1"],
        "objective": config.objective,
        "val_held_out": fitted.held_out if fitted else None,  # of the objective; the log-loss negated
        "val_held_out_log_loss": fitted.held_out_log_loss if fitted else None,
        "val_gain": val["gain"]["top1"],
        "test_top1": test["fused"]["top1"],
        "test_top1_low": test["fused"]["top1_low"],
        "test_top1_high": test["fused"]["top1_high"],
        "test_mean_class_accuracy": test["fused"]["mean_class_accuracy"],
        "test_gain": test["gain"]["top1"],
        "test_gain_low": test["gain"]["top1_ci95"][0],
        "test_gain_high": test["gain"]["top1_ci95"][1],
        "test_p_value": test["gain"]["p_value"],
    }


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


def _said(report: dict[str, Any], fusion: Fusion) -> str:
    result = f"{said_fusion(fusion)}: top-1 {report['test']['top1']:.3f} on test"
    if len(fusion.models) == 1:
        return result
    how = "" if report["method"] == GIVEN else f"{report['method']}, chosen on val: "
    return f"{how}{result}, {said_gain(report)}"


def _said_left_out(n_left_out: dict[str, int]) -> str:
    parts = [f"{n} that {model} can't score" for model, n in n_left_out.items()]
    return f"; left out: {', '.join(parts)}" if parts else ""


def _by_model(fusion: Fusion, values: np.ndarray) -> dict[str, float]:
    return dict(zip(fusion.models, values.tolist(), strict=True))


def _prefixed(prefix: str, values: Mapping[str, float] | None) -> dict[str, float]:
    return {f"{prefix}.{key}": value for key, value in (values or {}).items()}


def _flat(report: dict[str, Any]) -> dict[str, float | None]:
    gain = report["gain"]
    return {
        **_prefixed("val", report["val"]),
        **_prefixed("test", report["test"]),
        **_prefixed("coefficients", report["coefficients"]),
        **_prefixed("temperatures", report["temperatures"]),
        "best_single.top1": report["best_single"]["top1"],
        "gain.top1": gain["top1"],
        "gain.top5": gain["top5"],
        "gain.top1_low": gain["top1_ci95"][0],
        "gain.top1_high": gain["top1_ci95"][1],
        "gain.p_value": gain["p_value"],
        "n_trials": report["n_trials"],
        "seconds": report["seconds"],
    }
