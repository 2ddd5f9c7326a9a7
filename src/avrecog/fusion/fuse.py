"""Fusing the scores of several models: what stage fuse calls.

Everything is fitted and chosen on val and applied to test once. Val has chosen each model's epoch before, so its
numbers flatter; only those of test count.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.errors import LeakError, ScoreError
from avrecog.fusion.describe import format_left_out, format_result, repeat_command
from avrecog.fusion.evaluate import REPORTED, BestSingleModel, evaluate
from avrecog.fusion.file import write_fusion
from avrecog.fusion.methods.base import Fusion
from avrecog.fusion.methods.weighted_mean import GivenWeights, fixed_fusion
from avrecog.fusion.plots import draw_fusion
from avrecog.fusion.selection import Fitted, choose, fit_methods
from avrecog.fusion.settings import FuseConfig
from avrecog.runtime.files import atomic_path, write_table
from avrecog.scores.predictions import write_predictions
from avrecog.scores.stack import ScoreStack, read_stack, read_tables
from avrecog.tracking.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class FusionResults:
    """Every fusion of the run, and what each gives on val and on test."""

    methods: dict[str, Fitted]  # those that were fitted
    fusions: dict[str, Fusion]  # the same, and given coefficients
    chosen: str
    val: dict[str, dict[str, Any]]  # what `evaluate` says of each
    test: dict[str, dict[str, Any]]

    @property
    def drawn(self) -> str:
        """The one whose weights are drawn: the chosen one, or a weighted mean if its own weights were not chosen."""
        if self.fusions[self.chosen].has_chosen_weights:
            return self.chosen
        means = (name for name, fusion in self.fusions.items() if fusion.mean_weights is not None)
        return next((name for name in means if self.fusions[name].has_chosen_weights), self.chosen)


def fuse_models(
    models: Sequence[str],
    scores_dir: Path,
    config: FuseConfig,
    *,
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
        fusion_dir: folder for `fusion.npz` and Optuna's journals, resumed where they fit.
        plots_dir: folder for the pictures, the table of methods and the table of trials.
    """
    begin = time.perf_counter()
    val = read_stack(scores_dir, models, "val")
    _check_disjoint(scores_dir, models, val)
    fusion_dir.mkdir(parents=True, exist_ok=True)
    methods = fit_methods(val.probabilities, val.labels, val.clip_ids.tolist(), models, config, studies=fusion_dir)
    fusions, chosen = _fusions(methods, models, config.coefficients)
    fusion = fusions[chosen]
    write_fusion(fusion_dir / "fusion.npz", fusion, val.classes)
    test = read_stack(scores_dir, models, "test")
    results = FusionResults(
        methods=methods,
        fusions=fusions,
        chosen=chosen,
        val=_evaluate_all(fusions, models, val, config),
        test=_evaluate_all(fusions, models, test, config),
    )
    plots_dir.mkdir(parents=True, exist_ok=True)
    write_table(plots_dir / "methods.csv", _method_rows(results, config))
    write_predictions(
        plots_dir / "predictions.csv", test.clip_ids, test.labels, fusion(test.probabilities), test.classes
    )
    report = {**_report(results, test), "seconds": round(time.perf_counter() - begin, 3)}
    with atomic_path(metrics_path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    trials = methods[results.drawn].trials if results.drawn in methods else ()
    files = draw_fusion(fusion, fusions[results.drawn], plots_dir, trials=trials, val=val, test=test, config=config)
    command = repeat_command([scores_dir / model / "test.npz" for model in models], fusion, fusion_dir / "fusion.npz")
    return Outcome(
        summary=f"{format_result(report, fusion)}{format_left_out(test.n_left_out)}; repeat with: {command}",
        metrics=_flat(report),
        curves=[
            (trial.number, {"trial_value": trial.value, **_prefixed("trial_coefficients", trial.coefficients)})
            for trial in trials
        ],
        files=[*files, plots_dir / "methods.csv", plots_dir / "predictions.csv", metrics_path],
        facts={"fusion.method": chosen},
    )


def _check_disjoint(scores_dir: Path, models: Sequence[str], val: ScoreStack) -> None:
    """Nothing; it reads test, which is read again when it is used: its scores shall not lie in memory during the fits.

    Raises:
        LeakError: if a clip is in val and in test.
    """
    shared = np.intersect1d(val.clip_ids, read_tables(scores_dir, models, "test")[0].clip_ids)
    if len(shared):
        raise LeakError(
            f"{scores_dir}: clip {shared[0]} and {len(shared) - 1} more are in val and in test; run `dvc repro`"
        )


def _fusions(
    methods: Mapping[str, Fitted], models: Sequence[str], coefficients: dict[str, float] | None
) -> tuple[dict[str, Fusion], str]:
    """Everything that is reported, and the name of what is chosen: given coefficients, where there are some."""
    fusions: dict[str, Fusion] = {name: fitted.fusion for name, fitted in methods.items()}
    if coefficients is None:
        return fusions, choose(methods)
    fusions[GivenWeights.name] = _given_fusion(coefficients, models)
    return fusions, GivenWeights.name


def _given_fusion(given: dict[str, float], models: Sequence[str]) -> Fusion:
    missing, unknown = [m for m in models if m not in given], [m for m in given if m not in models]
    if missing or unknown:
        parts = [f"no coefficient for {', '.join(missing)}"] * bool(missing)
        parts += [f"unknown model {', '.join(unknown)}"] * bool(unknown)
        raise ScoreError(
            f"fuse.coefficients: {'; '.join(parts)}; expected one for each of {', '.join(models)} "
            "(0 leaves a model out)"
        )
    return fixed_fusion(models, [given[model] for model in models])


def _evaluate_all(
    fusions: Mapping[str, Fusion], models: Sequence[str], split: ScoreStack, config: FuseConfig
) -> dict[str, dict[str, Any]]:
    single = BestSingleModel.of(models, split.probabilities, split.labels)
    return {
        name: evaluate(fusion, split.probabilities, split.labels, single, config) for name, fusion in fusions.items()
    }


def _report(results: FusionResults, test: ScoreStack) -> dict[str, Any]:
    """What fuse.json tells of the chosen fusion, but for the seconds."""
    on_test = results.test[results.chosen]
    return {
        "method": results.chosen,
        **results.fusions[results.chosen].parameters(),
        "val": {key: results.val[results.chosen]["fused"][key] for key in REPORTED},
        "test": on_test["fused"],
        "best_single": on_test["best_single"],
        "gain": on_test["gain"],
        "val_reused": results.chosen in results.methods,
        "n_clips": len(test.labels),
        "n_left_out": test.n_left_out,
        "n_trials": sum(len(fitted.trials) for fitted in results.methods.values()),
    }


def _method_rows(results: FusionResults, config: FuseConfig) -> list[dict[str, Any]]:
    """The table of methods: the gains are over the model that is best alone on that split."""
    rows = []
    for name, fusion in results.fusions.items():
        val, test, fitted = results.val[name], results.test[name], results.methods.get(name)
        rows.append(
            {
                "method": name,
                "chosen": name == results.chosen,
                "coefficients": fusion.describe(),
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
        )
    return rows


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
