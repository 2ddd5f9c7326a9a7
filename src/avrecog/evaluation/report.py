"""Stage report: the model zoo table from the metric files, and the rows that people compare."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avrecog.config import flatten, read_yaml
from avrecog.errors import ManifestError, ScoreError
from avrecog.runtime.files import atomic_path
from avrecog.tracking.history import EpochMetrics, read_history, write_history
from avrecog.tracking.outcome import Outcome
from avrecog.tracking.provenance import file_digest
from avrecog.tracking.rows import ComparableRow, LogRow

COLUMNS = (
    "config",
    "n_fft",
    "gpus",
    "backbone",
    "pretrain",
    "top1 acc/delta",
    "top5 acc/delta",
    "inference_time (video/s)",
    "gpu_mem (M)",
    "ckpt",
    "log",
    "json",
)


@dataclass(frozen=True)
class ModelResult:
    """What the stages before left of one model."""

    name: str
    backbone: str
    inputs: list[str]  # sections of the front end
    config: dict[str, Any]  # the sections of params.yaml that it was trained with
    test: dict[str, Any]
    benchmark: dict[str, Any]
    history: list[EpochMetrics]
    folder: Path


@dataclass(frozen=True)
class ReportPaths:
    """Where stage report reads and writes."""

    data: Path  # folder of the manifest and the splits, whose digests each row has as tags
    models: Path  # folder of the checkpoints, one folder a model
    metrics: Path  # folder of the metric files
    plots: Path  # folder of the pictures
    out: Path  # Markdown file for the table
    curves: Path  # folder for each model's numbers by epoch


def write_report(models: Sequence[str], params: Mapping[str, Any], paths: ReportPaths, log_row: LogRow) -> Outcome:
    """Write `results/ZOO.md` and the training curves, and one row for each model and one for the fusion.

    Args:
        models: their names.
        params: the parameters that all of them share, by dotted name; each row adds those of its models.
        paths: where it reads and writes.
        log_row: writes a row of what people compare.

    Raises:
        ScoreError: if a metric file is missing or can't be read.
        ManifestError: if the manifest or the splits can't be read.
    """
    results = [_read_result(name, paths) for name in models]
    fusion = _read_json(paths.metrics / "fuse.json")
    digests = _data_digests(paths.data)
    rows = [_model_row(result) for result in results]
    if len(models) > 1:
        rows.append(_fusion_row(results, fusion))
    with atomic_path(paths.out) as temporary:
        temporary.write_text(_page(rows, results, fusion, paths.plots / "fuse" / "methods.csv"), encoding="utf-8")
    for result in results:
        write_history(paths.curves / f"{result.name}.csv", result.history)
        log_row(
            ComparableRow(
                name=result.name,
                params={**params, **dict(flatten(result.config))},
                tags={"model": result.name, "stage": "report"} | digests,
                metrics=_test_numbers(result.test) | _numbers("benchmark", result.benchmark),
                curves=_curves(result.history),
                files=sorted((paths.plots / "test" / result.name).glob("*")) + [result.folder / "config.yaml"],
            )
        )
    if len(models) > 1:
        log_row(_fusion_entry(results, fusion, params, digests, paths))
    measured = {
        "test.top1": fusion["test"]["top1"],
        "best_single.top1": fusion["best_single"]["top1"],
        "gain.top1": fusion["gain"]["top1"],
    }
    what = f"{len(models)} models and their fusion" if len(models) > 1 else "1 model"
    return Outcome(f"{what} -> {paths.out}\n{_short_table(rows)}", measured, files=[paths.out])


def _fusion_entry(
    results: Sequence[ModelResult],
    fusion: dict[str, Any],
    params: Mapping[str, Any],
    digests: Mapping[str, str],
    paths: ReportPaths,
) -> ComparableRow:
    """The fusion's row of what people compare."""
    own = {key: value for result in results for key, value in _own_parameters(result).items()}
    coefficients = {f"coefficients.{name}": round(value, 4) for name, value in (fusion["coefficients"] or {}).items()}
    return ComparableRow(
        name="fusion",
        params={**params, **own, **coefficients},
        tags={"model": "fusion", "stage": "report", "fusion.method": fusion["method"], **digests},
        metrics=_numbers("test", {**fusion["test"], "n_clips": fusion["n_clips"]})
        | _numbers("val", fusion["val"])
        | _fused_cost(results)
        | _gain(fusion),
        files=[*sorted((paths.plots / "fuse").glob("*")), paths.out],
    )


def _curves(history: Sequence[EpochMetrics]) -> list[tuple[int, EpochMetrics]]:
    """The numbers of each epoch, by its number."""
    return [(int(row["epoch"]), {key: row[key] for key in row if key != "epoch"}) for row in history]


def _read_result(name: str, paths: ReportPaths) -> ModelResult:
    folder, metrics = paths.models / name, paths.metrics
    config = read_yaml(folder / "config.yaml")
    backbone, inputs = config.pop("backbone", None), config.pop("inputs", None)
    if not isinstance(backbone, str) or not isinstance(inputs, list):
        raise ScoreError(
            f"{folder}/config.yaml: expected `backbone`, a name, and `inputs`, a list of sections, got "
            f"{backbone!r} and {inputs!r}; run `dvc repro train`"
        )
    return ModelResult(
        name,
        backbone,
        inputs,
        config,
        _read_json(metrics / "test" / f"{name}.json"),
        _read_json(metrics / "benchmark" / f"{name}.json"),
        read_history(folder / "history.csv"),
        folder,
    )


def _own_parameters(result: ModelResult) -> dict[str, Any]:
    """What a model was trained with, its `train` under its own name."""
    return {
        f"models.{result.name}.{key}" if key.startswith("train.") else key: value
        for key, value in flatten(result.config)
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ScoreError(f"{path}: can't be read ({error}); run `dvc repro`") from None
    if not isinstance(content, dict):
        raise ScoreError(f"{path}: expected a mapping of metrics, got {type(content).__name__}; run `dvc repro`")
    return content


def _model_row(result: ModelResult) -> dict[str, str]:
    section = result.config["models"][result.name]
    return {
        "config": result.name,
        "n_fft": str(result.config["audio"]["logmel"]["n_fft"]) if "audio" in result.inputs else "-",
        "gpus": "0" if result.test["gpu_memory_mib"] is None else "1",
        "backbone": result.backbone,
        "pretrain": section["init_from"] or "none",
        "top1 acc/delta": f"{100 * result.test['top1']:.2f}",
        "top5 acc/delta": f"{100 * result.test['top5']:.2f}",
        "inference_time (video/s)": f"{result.benchmark['videos_per_s']:.1f}",
        "gpu_mem (M)": _gpu(result.benchmark["gpu_memory_mib"]),
        "ckpt": _link("ckpt", f"models/{result.name}/{result.test['checkpoint']}.ckpt"),
        "log": _link("log", f"models/{result.name}/history.csv"),
        "json": _link("json", f"results/metrics/test/{result.name}.json"),
    }


def _fusion_row(results: Sequence[ModelResult], fusion: dict[str, Any]) -> dict[str, str]:
    cost = _fused_cost(results)
    weights = " + ".join(f"{weight:.2f} {name}" for name, weight in (fusion["coefficients"] or {}).items())
    return {
        "config": f"{fusion['method']}: {weights}" if weights else fusion["method"],
        "n_fft": "-",
        "gpus": "0" if cost["benchmark.gpu_memory_mib"] is None else "1",
        "backbone": " + ".join(result.name for result in results),
        "pretrain": "-",
        "top1 acc/delta": f"{100 * fusion['test']['top1']:.2f} ({100 * fusion['gain']['top1']:+.2f})",
        "top5 acc/delta": f"{100 * fusion['test']['top5']:.2f} ({100 * fusion['gain']['top5']:+.2f})",
        "inference_time (video/s)": f"{cost['benchmark.videos_per_s']:.1f}",
        "gpu_mem (M)": _gpu(cost["benchmark.gpu_memory_mib"]),
        "ckpt": "-",
        "log": "-",
        "json": _link("json", "results/metrics/fuse.json"),
    }


def _fused_cost(results: Sequence[ModelResult]) -> dict[str, float | None]:
    """What fusing costs: the models one after the other, in one process after the other."""
    figures = [result.benchmark for result in results]
    gpu = [figure["gpu_memory_mib"] for figure in figures if figure["gpu_memory_mib"] is not None]
    return {
        "benchmark.videos_per_s": 1 / sum(1 / figure["videos_per_s"] for figure in figures),
        "benchmark.latency_ms.median": sum(figure["latency_ms"]["median"] for figure in figures),
        "benchmark.peak_memory_mib": max(figure["peak_memory_mib"] for figure in figures),
        "benchmark.gpu_memory_mib": max(gpu) if gpu else None,
        "benchmark.parameters": sum(figure["parameters"] for figure in figures),
        "benchmark.macs": sum(figure["macs"] for figure in figures),  # of one view each
    }


def _gain(fusion: dict[str, Any]) -> dict[str, float | None]:
    gain, (low, high) = fusion["gain"], fusion["gain"]["top1_ci95"]
    return {
        "gain.top1": gain["top1"],
        "gain.top1_low": low,
        "gain.top1_high": high,
        "gain.p_value": gain["p_value"],
    }


def _numbers(prefix: str, content: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of a metric file under dotted names; words and tables are left out."""
    flat = flatten({prefix: {key: value for key, value in content.items() if not isinstance(value, list)}})
    return {key: value for key, value in flat if isinstance(value, int | float) and not isinstance(value, bool)}


def _test_numbers(test: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of a model's test, and those of its val beside them."""
    return _numbers("test", {key: test[key] for key in test if key != "val"}) | _numbers("val", test["val"])


def _data_digests(data: Path) -> dict[str, str]:
    """Tags that say which clips and which splits, as dvc.lock has them.

    Raises:
        ManifestError: if a file can't be read.
    """
    try:
        return {f"data.{name}": file_digest(data / f"{name}.csv") for name in ("manifest", "splits")}
    except OSError as error:
        raise ManifestError(f"{error.filename}: can't be read ({error.strerror}); run `dvc repro prepare`") from None


def _gpu(memory_mib: float | None) -> str:
    return "-" if memory_mib is None else f"{memory_mib:.0f}"


def _link(text: str, path: str) -> str:
    """A link from results/ZOO.md to a file of the project."""
    return f"[{text}](../{path})"


def _page(rows: Sequence[dict[str, str]], results: Sequence[ModelResult], fusion: dict[str, Any], methods: Path) -> str:
    devices = "; ".join(dict.fromkeys(result.benchmark["device"] for result in results))
    lines = [
        "# Model zoo",
        "",
        "Made by stage `report` from the metric files. Accuracies in per cent, on test; videos per second at "
        f"batch 1 with the test views, on {devices}.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| " + " | ".join("---" for _ in COLUMNS) + " |",
        *("| " + " | ".join(row[column] for column in COLUMNS) + " |" for row in rows),
        "",
    ]
    if len(results) > 1:
        low, high = fusion["gain"]["top1_ci95"]
        lines += [
            f"The fusion's gain in top-1 over {fusion['best_single']['model']}, the best single model on test, is "
            f"{100 * fusion['gain']['top1']:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f} (paired "
            f"bootstrap over clips), p = {fusion['gain']['p_value']:.2g} (McNemar's exact test).",
            "",
            *_methods_table(methods),
        ]
    return "\n".join(lines)


def _methods_table(path: Path) -> list[str]:
    """The table of fusion methods that stage fuse wrote, as Markdown.

    Raises:
        ScoreError: if it is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _as_markdown(list(csv.DictReader(file)))
    except (OSError, csv.Error, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ScoreError(f"{path}: not a table of fusion methods ({error!r}); run `dvc repro fuse`") from None


def _as_markdown(rows: Sequence[Mapping[str, str]]) -> list[str]:
    lines = [
        "## Fusion methods",
        "",
        "Each was fitted on val; the one in use (*) was chosen by its worth on held-out parts of val, and only then "
        "was test looked at. Gains are over the model that is best alone on that split: that on val flatters.",
        "",
        f"| method | weights | val top-1 | val, held out ({rows[0]['objective']}) | gain on val | "
        "test top-1 (95 % interval) | gain on test (95 % interval) | p |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        value = {key: float(row[key]) for key in row if key.startswith(("val", "test")) and row[key]}
        test = f"{value['test_top1']:.3f} ({value['test_top1_low']:.3f} to {value['test_top1_high']:.3f})"
        gain = f"{value['test_gain']:+.3f} ({value['test_gain_low']:+.3f} to {value['test_gain_high']:+.3f})"
        cells = (
            row["method"] + (" *" if row["chosen"] == "True" else ""),
            row["coefficients"],
            f"{value['val_top1']:.3f}",
            f"{value['val_held_out']:.3f}" if "val_held_out" in value else "-",
            f"{value['val_gain']:+.3f}",
            test,
            gain,
            f"{value['test_p_value']:.2g}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _short_table(rows: Sequence[dict[str, str]]) -> str:
    shown = ("config", "backbone", "top1 acc/delta", "top5 acc/delta", "inference_time (video/s)", "gpu_mem (M)")
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in shown]
    lines = [shown, *(tuple(row[column] for column in shown) for row in rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
