"""Fusing the scores of several models: what stage fuse calls.

Everything is fitted and chosen on val and applied to test once. Val has chosen each model's epoch before, so its
numbers flatter; only those of test count.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.errors import LeakError, ScoreError
from avrecog.fusion.describe import GIVEN, fixed_fusion, format_left_out, format_result, repeat_command, said_fusion
from avrecog.fusion.evaluate import REPORTED, Single, evaluate
from avrecog.fusion.file import write_fusion
from avrecog.fusion.methods import Fusion
from avrecog.fusion.plots import draw_fusion
from avrecog.fusion.selection import Fitted, choose, fit_methods
from avrecog.fusion.settings import FuseConfig
from avrecog.runtime.files import atomic_path, write_table
from avrecog.scores.predictions import write_predictions
from avrecog.scores.stack import read_stack, read_tables
from avrecog.tracking.outcome import Outcome


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
    val, val_stack = read_stack(scores_dir, models, "val")
    # test is read again when it is used, so that its scores don't lie in memory while val's are fitted
    shared = np.intersect1d(val[0].clip_ids, read_tables(scores_dir, models, "test")[0].clip_ids)
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
    test, test_stack = read_stack(scores_dir, models, "test")
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
        summary=f"{format_result(report, fusion)}{format_left_out(n_left_out)}; repeat with: {command}",
        metrics=_flat(report),
        curves=[
            (trial.number, {"trial_value": trial.value, **_prefixed("trial_coefficients", trial.coefficients)})
            for trial in tried
        ],
        files=[*files, plots_dir / "methods.csv", plots_dir / "predictions.csv", metrics_path],
        facts={"fusion.method": chosen},
    )


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
