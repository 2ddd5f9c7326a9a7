"""Fusing the scores of several models: what stage fuse calls.

Everything is fitted and chosen on val and applied to test once. Val has chosen each model's epoch before, so its
numbers flatter; only those of test count.
"""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.atomic import atomic_path
from avrecog.errors import LeakError, ScoreError
from avrecog.fusion import FuseConfig, normalise
from avrecog.fusion_choice import Fitted, choose, fit_methods
from avrecog.fusion_methods import Fusion, write_fusion
from avrecog.fusion_pictures import draw_fusion
from avrecog.metrics import bootstrap_gain, bootstrap_interval, classification_metrics, correct_clips, mcnemar_exact
from avrecog.outcome import Outcome
from avrecog.predictions import write_predictions
from avrecog.scores import ScoreTable, join_scores, probabilities, read_scores

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
    val, test = (join_scores([_read_split(scores_dir / model, split) for model in models]) for split in ("val", "test"))
    val_stack, test_stack = stacked(val), stacked(test)
    shared = np.intersect1d(val[0].clip_ids, test[0].clip_ids)
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
    write_fusion(fusion_dir / "fusion.npz", fusion)
    shown = "weights" if chosen in ("equal", "stacking") and "weights" in fusions else chosen
    tried = methods[shown].trials if shown in methods else ()
    rows = [
        _method_row(name, name == chosen, each, methods.get(name), (val_stack, val[0]), (test_stack, test[0]), config)
        for name, each in fusions.items()
    ]
    plots_dir.mkdir(parents=True, exist_ok=True)
    write_methods(plots_dir / "methods.csv", rows)
    write_predictions(
        plots_dir / "predictions.csv", test[0].clip_ids, test[0].labels, fusion(test_stack), test[0].classes
    )
    n_left_out = {table.model: len(table.left_out) for table in test if len(table.left_out)}
    fused_val = classification_metrics(fusion(val_stack), val[0].labels)
    report = {
        "method": chosen,
        "coefficients": None if fusion.method == "stacking" else _by_model(fusion, fusion.weights),
        "temperatures": _by_model(fusion, fusion.temperatures) if fusion.method == "temperature" else None,
        "exponent": fusion.exponent if fusion.method == "log_weights" else None,
        "val": {key: fused_val[key] for key in REPORTED},
        **evaluate(models, fusion, test_stack, test[0].labels, config),
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


def evaluate(
    models: Sequence[str],
    fusion: Fusion,
    stack: np.ndarray,
    labels: np.ndarray,
    config: FuseConfig,
    key: str = "test",
) -> dict[str, Any]:
    """The keys `test` (or `key`), `best_single` and `gain` of fuse.json."""
    fused_scores = fusion(stack)
    fused = classification_metrics(fused_scores, labels)
    singles = [classification_metrics(scores, labels) for scores in stack]
    best = max(range(len(models)), key=lambda index: (singles[index]["top1"], singles[index]["top5"]))
    correct, correct_best = correct_clips(fused_scores, labels), correct_clips(stack[best], labels)
    return {
        key: {
            **{name: fused[name] for name in REPORTED},
            "top1_ci95": list(bootstrap_interval(correct, config.n_resamples, config.seed)),
        },
        "best_single": {"model": models[best], "top1": singles[best]["top1"]},
        "gain": {
            "top1": fused["top1"] - singles[best]["top1"],
            "top5": fused["top5"] - singles[best]["top5"],
            "top1_ci95": list(bootstrap_gain(correct, correct_best, config.n_resamples, config.seed)),
            "p_value": mcnemar_exact(correct, correct_best),
        },
    }


def _method_row(
    name: str,
    is_chosen: bool,
    fusion: Fusion,
    fitted: Fitted | None,
    val: tuple[np.ndarray, ScoreTable],
    test: tuple[np.ndarray, ScoreTable],
    config: FuseConfig,
) -> dict[str, Any]:
    """A line of the table of methods: the gains are over the model that is best alone on that split."""
    on = {
        split: evaluate(fusion.models, fusion, stack, table.labels, config, split)
        for split, (stack, table) in {"val": val, "test": test}.items()
    }
    return {
        "method": name,
        "chosen": is_chosen,
        "coefficients": said_fusion(fusion),
        "val_top1": on["val"]["val"]["top1"],
        "objective": config.objective,
        "val_held_out": fitted.held_out if fitted else None,  # of the objective; the log-loss negated
        "val_held_out_log_loss": fitted.held_out_log_loss if fitted else None,
        "val_gain": on["val"]["gain"]["top1"],
        "test_top1": on["test"]["test"]["top1"],
        "test_top1_low": on["test"]["test"]["top1_ci95"][0],
        "test_top1_high": on["test"]["test"]["top1_ci95"][1],
        "test_mean_class_accuracy": on["test"]["test"]["mean_class_accuracy"],
        "test_gain": on["test"]["gain"]["top1"],
        "test_gain_low": on["test"]["gain"]["top1_ci95"][0],
        "test_gain_high": on["test"]["gain"]["top1_ci95"][1],
        "test_p_value": on["test"]["gain"]["p_value"],
    }


def write_methods(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of methods, one line each."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


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
    gain, (low, high) = report["gain"], report["test"]["top1_ci95"]
    return {
        **{f"{split}.{key}": report[split][key] for split in ("val", "test") for key in REPORTED},
        "test.top1_low": low,
        "test.top1_high": high,
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
