"""Fusing the scores of several models: what stage fuse and the command `avrecog fuse` call.

Coefficients are chosen on val and applied to test once. Val has chosen each model's epoch before, so its numbers
flatter; only those of test count.
"""

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avrecog import plots
from avrecog.atomic import atomic_path
from avrecog.errors import ScoreError
from avrecog.fusion import FuseConfig, FusionObjective, fuse, normalise
from avrecog.metrics import (
    bootstrap_gain,
    bootstrap_interval,
    classification_metrics,
    confusion_matrix,
    correct_clips,
    mcnemar_exact,
)
from avrecog.outcome import Outcome
from avrecog.scores import ScoreTable, join_scores, probabilities, read_scores

if TYPE_CHECKING:
    from avrecog.tuning import Trial

REPORTED = ("top1", "top5", "mean_class_accuracy")


def fuse_models(
    models: Sequence[str],
    scores_dir: Path,
    config: FuseConfig,
    metrics_path: Path,
    study_path: Path,
    plots_dir: Path,
) -> Outcome:
    """Fuse the models' scores: coefficients tuned on val (or those of the config), reported on test.

    The gain is measured against the model that is best on test, not on val: no one could have picked a better one, so
    the gain is not flattered.

    Args:
        models: names of folders in `scores_dir`, each with `val.npz` and `test.npz`.
        scores_dir: folder of the score files.
        config: section `fuse`.
        metrics_path: the JSON file to write.
        study_path: Optuna's journal, gone on with where it fits.
        plots_dir: folder for the pictures and the table of trials.
    """
    begin = time.perf_counter()
    val, test = (join_scores([_read_split(scores_dir / model, split) for model in models]) for split in ("val", "test"))
    val_stack, test_stack = _stack(val), _stack(test)
    if config.coefficients is None:
        from avrecog.tuning import tune_coefficients

        tuning = tune_coefficients(val_stack, val[0].labels, models, config, study_path)
        coefficients, tried = np.array([tuning.coefficients[model] for model in models]), tuning.trials
    else:
        coefficients, tried = _fixed(config.coefficients, models), []
        study_path.parent.mkdir(parents=True, exist_ok=True)  # an output of the stage, empty where nothing is tuned
        study_path.unlink(missing_ok=True)
    result = _evaluate(models, coefficients, test_stack, test[0].labels, config)
    n_left_out = {table.model: len(table.left_out) for table in test if len(table.left_out)}
    fused_val = classification_metrics(fuse(val_stack, coefficients), val[0].labels)
    report = {
        "coefficients": dict(zip(models, coefficients.tolist(), strict=True)),
        "val": {key: fused_val[key] for key in REPORTED},
        **result,
        "val_reused": config.coefficients is None,
        "n_clips": len(test[0].labels),
        "n_left_out": n_left_out,  # test clips that one model could not score, so that none of them counts
        "n_trials": len(tried),
        "seconds": round(time.perf_counter() - begin, 3),
    }
    with atomic_path(metrics_path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    files = _draw(models, coefficients, tried, (val_stack, val[0]), (test_stack, test[0]), config, plots_dir)
    paths = [scores_dir / model / "test.npz" for model in models]
    return Outcome(
        summary=f"{_said(report)}{_said_left_out(n_left_out)}; repeat with: {_command(paths, coefficients)}",
        metrics=_flat(report),
        curves=[(trial.number, _curve_point(trial)) for trial in tried],
        files=[*files, metrics_path],
    )


def fuse_files(paths: Sequence[Path], coefficients: Sequence[float] | None, config: FuseConfig) -> str:
    """Fuse score files of one split: what to print.

    With coefficients: the metrics of that split, with the interval of the gain. Without: coefficients tuned on these
    files, with the line that applies them.

    Raises:
        ScoreError: if there isn't one coefficient a file, or if there are none and the files are of split test.
    """
    tables = join_scores([read_scores(path) for path in paths])
    names = [table.model for table in tables]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    split = tables[0].split
    stack, labels = _stack(tables), tables[0].labels
    if coefficients is None:
        if split == "test":
            raise ScoreError(
                "these are scores of split test; tune on val: give the files of val, then use --coefficients on those "
                "of test"
            )
        from avrecog.tuning import tune_coefficients

        tuning = tune_coefficients(stack, labels, names, config)
        weights = np.array([tuning.coefficients[name] for name in names])
        heading = f"{len(tuning.trials)} trials on {split} for the best {config.objective}: {_weighted(names, weights)}"
        advice = (
            f"these numbers flatter: the coefficients were chosen on {split}; apply them to the same models' scores of "
            f"test: {_command(['TEST.npz'] * len(names), weights)}"
        )
    else:
        if len(coefficients) != len(paths):
            raise ScoreError(f"--coefficients: expected {len(paths)}, one a score file, got {len(coefficients)}")
        weights = normalise(np.array(coefficients))
        heading = f"{_weighted(names, weights)} on {split}, {len(labels):,} clips"
        advice = ""
    result = _evaluate(names, weights, stack, labels, config, key=split)
    rows = [(name, classification_metrics(scores, labels)) for name, scores in zip(names, stack, strict=True)]
    rows.append(("fused", result[split]))
    width = max(len(name) for name, _ in rows)
    lines = [heading, f"{'':{width}}  {'top-1':>6}  {'top-5':>6}  {'mean class':>10}"]
    for name, row in rows:
        numbers = f"{row['top1']:6.4f}  {row['top5']:6.4f}  {row['mean_class_accuracy']:10.4f}"
        lines.append(f"{name:{width}}  {numbers}")
    low, high = bootstrap_interval(correct_clips(fuse(stack, weights), labels), config.n_resamples, config.seed)
    lines.append(f"fused top-1: 95 % interval {low:.3f} to {high:.3f}")
    if len(names) > 1:
        lines.append(f"gain: {_said_gain(result)}")
    return "\n".join([*lines, advice] if advice else lines)


def _read_split(folder: Path, split: str) -> ScoreTable:
    table = read_scores(folder / f"{split}.npz")
    if table.split != split:  # a copied test file would be tuned on
        raise ScoreError(f"{folder / split}.npz: expected scores of split {split}, got {table.split}; run stage test")
    return table


def _stack(tables: Sequence[ScoreTable]) -> np.ndarray:
    return np.stack([probabilities(table) for table in tables])  # (M, N, K) float32


def _fixed(given: dict[str, float], models: Sequence[str]) -> np.ndarray:
    missing, unknown = [m for m in models if m not in given], [m for m in given if m not in models]
    if missing or unknown:
        parts = [f"no coefficient for {', '.join(missing)}"] * bool(missing)
        parts += [f"unknown model {', '.join(unknown)}"] * bool(unknown)
        raise ScoreError(
            f"fuse.coefficients: {'; '.join(parts)}; expected one for each of {', '.join(models)} "
            "(0 leaves a model out)"
        )
    return normalise(np.array([given[model] for model in models]))


def _evaluate(
    models: Sequence[str],
    coefficients: np.ndarray,
    stack: np.ndarray,
    labels: np.ndarray,
    config: FuseConfig,
    key: str = "test",
) -> dict[str, Any]:
    """The keys `test` (or `key`), `best_single` and `gain` of fuse.json."""
    fused_scores = fuse(stack, coefficients)
    fused = classification_metrics(fused_scores, labels)
    singles = [classification_metrics(scores, labels) for scores in stack]
    best = max(range(len(models)), key=lambda index: (singles[index]["top1"], singles[index]["top5"]))
    correct, correct_best = correct_clips(fused_scores, labels), correct_clips(stack[best], labels)
    low, high = bootstrap_gain(correct, correct_best, config.n_resamples, config.seed)
    return {
        key: {name: fused[name] for name in REPORTED},
        "best_single": {"model": models[best], "top1": singles[best]["top1"]},
        "gain": {
            "top1": fused["top1"] - singles[best]["top1"],
            "top5": fused["top5"] - singles[best]["top5"],
            "top1_ci95": [low, high],
            "p_value": mcnemar_exact(correct, correct_best),
        },
    }


def _said(report: dict[str, Any]) -> str:
    weights = np.array(list(report["coefficients"].values()))
    said = f"{_weighted(list(report['coefficients']), weights)}: top-1 {report['test']['top1']:.3f} on test"
    return said if len(weights) == 1 else f"{said}, {_said_gain(report)}"


def _said_left_out(n_left_out: dict[str, int]) -> str:
    parts = [f"{n} that {model} can't score" for model, n in n_left_out.items()]
    return f"; left out: {', '.join(parts)}" if parts else ""


def _said_gain(report: dict[str, Any]) -> str:
    gain, (low, high) = report["gain"], report["gain"]["top1_ci95"]
    return (
        f"{gain['top1']:+.3f} over {report['best_single']['model']} "
        f"(95 % interval {low:.3f} to {high:.3f}, p = {gain['p_value']:.2g})"
    )


def _weighted(models: Sequence[str], coefficients: np.ndarray) -> str:
    return " + ".join(f"{model} {weight:.3g}" for model, weight in zip(models, coefficients, strict=True))


def _command(paths: Sequence[Path | str], coefficients: np.ndarray) -> str:
    equal = (coefficients == coefficients[0]).all()
    weights = " ".join("1" if equal else f"{weight!r}".removesuffix(".0") for weight in coefficients.tolist())
    return f"avrecog fuse --scores {' '.join(map(str, paths))} --coefficients {weights}"


def _flat(report: dict[str, Any]) -> dict[str, float | None]:
    gain = report["gain"]
    return {
        **{f"{split}.{key}": report[split][key] for split in ("val", "test") for key in REPORTED},
        **{f"coefficients.{model}": weight for model, weight in report["coefficients"].items()},
        "best_single.top1": report["best_single"]["top1"],
        "gain.top1": gain["top1"],
        "gain.top5": gain["top5"],
        "gain.top1_low": gain["top1_ci95"][0],
        "gain.top1_high": gain["top1_ci95"][1],
        "gain.p_value": gain["p_value"],
        "n_trials": report["n_trials"],
        "seconds": report["seconds"],
    }


def _curve_point(trial: "Trial") -> dict[str, float]:
    weights = {f"trial_coefficients.{model}": weight for model, weight in trial.coefficients.items()}
    return {"trial_value": trial.value, **weights}


def _draw(
    models: Sequence[str],
    coefficients: np.ndarray,
    tried: "list[Trial]",
    val: tuple[np.ndarray, ScoreTable],
    test: tuple[np.ndarray, ScoreTable],
    config: FuseConfig,
    folder: Path,
) -> list[Path]:
    """Write the table of trials and the pictures; the paths of those that there are."""
    folder.mkdir(parents=True, exist_ok=True)
    confusion = folder / "fusion_confusion.png"
    fused = fuse(test[0], coefficients)
    plots.plot_confusion(
        confusion_matrix(fused, test[1].labels), test[1].classes, confusion, title="Confusion on test, fused"
    )
    files = [confusion]
    if tried:
        files.append(folder / "fusion_trials.csv")
        _write_trials(files[-1], models, tried)
    picture = folder / "fusion.png"
    label = {"top1": "top-1 accuracy", "mean_class_accuracy": "mean class accuracy", "log_loss": "negative log-loss"}[
        config.objective
    ]
    weights = np.array([list(trial.coefficients.values()) for trial in tried])
    values = np.array([trial.value for trial in tried])
    if len(models) == 2:
        steps = np.linspace(0, 1, 101)
        curves = {}
        for split, (stack, table) in {"val": val, "test": test}.items():
            objective = FusionObjective(stack, table.labels, config.objective)
            curves[split] = np.array([objective(np.array([step, 1 - step])) for step in steps])
        plots.plot_fusion_curve(steps, curves, (models[0], models[1]), float(coefficients[0]), picture, label)
    elif len(models) == 3:
        grid = np.array([(i, j, 20 - i - j) for i in range(21) for j in range(21 - i)]) / 20
        objective = FusionObjective(val[0], val[1].labels, config.objective)
        area = np.array([objective(point) for point in grid])
        points = (weights, values) if tried else (grid, area)
        plots.plot_fusion_ternary(points[0], points[1], models, coefficients, picture, (grid, area), f"{label} on val")
    elif tried and len(models) > 3:
        plots.plot_fusion_parallel(weights, values, models, coefficients, picture, f"{label} on val")
    else:
        return files
    return [picture, *files]


def _write_trials(path: Path, models: Sequence[str], tried: "list[Trial]") -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", *models, "value", "log_loss"])
        for trial in tried:
            writer.writerow([trial.number, *trial.coefficients.values(), trial.value, trial.log_loss])
