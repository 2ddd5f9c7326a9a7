"""Fusing score files by hand: the command `avrecog fuse`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from avrecog.errors import ConfigError, LeakError, ScoreError
from avrecog.fusion.describe import format_gain, repeat_command
from avrecog.fusion.evaluate import BestSingleModel, evaluate
from avrecog.fusion.file import read_fusion, write_fusion
from avrecog.fusion.methods.base import Fusion
from avrecog.fusion.methods.weighted_mean import fixed_fusion
from avrecog.fusion.selection import Fitted, choose, fit_methods
from avrecog.fusion.settings import FuseConfig
from avrecog.interop import mmaction2_metrics
from avrecog.interop.mmaction2_results import ResultFileOptions, is_result_file, labels_of, read_datalist, read_results
from avrecog.interop.score_files import read_result_file
from avrecog.metrics import classification_metrics, top_k_accuracy
from avrecog.scores.npz import read_scores
from avrecog.scores.stack import stack_probabilities
from avrecog.scores.table import Kind, ScoreTable, join_scores


def fuse_files(
    paths: Sequence[Path],
    config: FuseConfig,
    coefficients: Sequence[float] | None = None,
    *,
    fusion_file: Path | None = None,
    save: Path | None = None,
    told: ResultFileOptions | None = None,
    kinds: Sequence[Kind] = (),
) -> str:
    """Fuse score files of one split, ours (.npz) or MMAction2's: what to print.

    With coefficients or a fusion file: the metrics of that split, with the interval of the gain. Without: every method
    fitted on these files and one chosen, with the line that applies it.

    Args:
        paths: the files.
        config: section `fuse`.
        coefficients: one weight a file.
        fusion_file: a fusion that was saved.
        save: file to keep the fusion in.
        told: of MMAction2's files, which don't say it themselves.
        kinds: of their scores: one for each of them, or one for all.

    Raises:
        ConfigError: if something is told of MMAction2's files, and there are none.
        ScoreError: if there isn't one coefficient a file, the fusion is of other models or classes, or it can't be
            saved there.
        LeakError: if nothing is given and the files are of split test.
    """
    if save is not None and (save.is_dir() or save in paths):
        raise ScoreError(f"--save: expected a new file, got {save}, which is {'a folder' if save.is_dir() else 'read'}")
    read, notes = _read_files(paths, told or ResultFileOptions(), kinds)
    tables = join_scores(read)
    names = _different_names(paths, tables)
    split, stack = tables[0].split, stack_probabilities(tables)
    heading, advice = "", []
    if coefficients is not None:
        if len(coefficients) != len(paths):
            raise ScoreError(f"--coefficients: expected {len(paths)}, one a score file, got {len(coefficients)}")
        fusion: Fusion = fixed_fusion(names, coefficients)
    elif fusion_file is not None:
        fusion = _with_names(read_fusion(fusion_file, tables[0].classes), names, fusion_file)
    else:
        _check_not_test(split, has_foreign=bool(notes))
        methods = fit_methods(stack, tables[0].labels, tables[0].clip_ids.tolist(), names, config)
        chosen = choose(methods)
        fusion = methods[chosen].fusion
        heading = f"{chosen}, the best of {len(methods)} methods for {config.objective} on {split}: {fusion.describe()}"
        advice = [*_methods_table(methods, chosen, config.objective), _how_to_apply(fusion, split, save)]
    if save is not None:
        write_fusion(save, fusion, tables[0].classes)
    lines = [
        *notes,
        heading or f"{fusion.describe()} on {split}, {len(stack[0]):,} clips",
        *_result_table(fusion, stack, tables[0].labels, config),
    ]
    if coefficients is not None:
        lines += _difference(tables, coefficients, fusion(stack))
    return "\n".join([*lines, *advice])


def _different_names(paths: Sequence[Path], tables: Sequence[ScoreTable]) -> list[str]:
    """The models, or where several files are of one model the paths."""
    names = [table.model for table in tables]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _check_not_test(split: str, has_foreign: bool) -> None:
    """Nothing; it checks that no method is fitted on test.

    Raises:
        LeakError: if the scores are of test.
    """
    if split == "test":
        raise LeakError(
            "these are scores of split test; tune on val: give the files of val, then use --coefficients or "
            "--fusion on those of test" + ("; MMAction2's files of val need --split val" if has_foreign else "")
        )


def _how_to_apply(fusion: Fusion, split: str, save: Path | None) -> str:
    saved = save or "FUSION.npz"
    line = repeat_command(["TEST.npz"] * len(fusion.models), fusion, saved)
    first = "" if save or fusion.mean_weights is not None else f"save it with --save {saved}, and "
    return (
        f"these numbers flatter: the method was chosen on {split}; {first}apply it to the same models' scores of "
        f"test: {line}"
    )


def _result_table(fusion: Fusion, stack: np.ndarray, labels: np.ndarray, config: FuseConfig) -> list[str]:
    """Lines with the metrics of each model and of the fusion, and with the gain."""
    names, fused_scores = fusion.models, fusion(stack)
    result = evaluate(fusion, stack, labels, BestSingleModel.of(names, stack, labels), config)
    width = max(len(name) for name in (*names, "fused"))
    lines = [f"{'':{width}}  {'top-1':>6}  {'top-5':>6}  {'mean class':>10}  mean class by MMAction2"]
    for name, scores in zip((*names, "fused"), (*stack, fused_scores), strict=True):
        row = classification_metrics(scores, labels)
        numbers = f"{row['top1']:6.4f}  {row['top5']:6.4f}  {row['mean_class_accuracy']:10.4f}"
        lines.append(f"{name:{width}}  {numbers}  {mmaction2_metrics.mean_class_accuracy(scores, labels):23.4f}")
    fused = result["fused"]
    lines.append(f"fused top-1: 95 % interval {fused['top1_low']:.3f} to {fused['top1_high']:.3f}")
    if len(names) > 1:
        lines.append(f"gain: {format_gain(result)}")
    return lines


def fuse_as_mmaction2(
    paths: Sequence[Path],
    datalist: Path | None = None,
    coefficients: Sequence[float] | None = None,
    apply_softmax: bool = False,
) -> str:
    """The three lines that MMAction2's report_accuracy.py prints for these files: rows joined by their place, labels of
    the list or else of the first file, coefficients 1 where none are given.

    Raises:
        ScoreError: if a file can't be read, or they don't fit together; PickleError for a pickle.
    """
    listed = read_datalist(datalist) if datalist is not None else None
    scores: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for path in paths:
        if is_result_file(path):
            results = read_results(path)
            if listed is not None or not labels:
                labels.append(labels_of(path, results, datalist, listed))
            scores.append(results.scores)
        else:
            table = read_scores(path)
            labels.append(table.labels)
            scores.append(table.scores)
    fused = mmaction2_metrics.fuse(scores, [1.0] * len(paths) if coefficients is None else coefficients, apply_softmax)
    return "\n".join(mmaction2_metrics.report(fused, labels[0]))


def _read_files(
    paths: Sequence[Path], told: ResultFileOptions, kinds: Sequence[Kind]
) -> tuple[list[ScoreTable], list[str]]:
    """The tables, and a line about each file of MMAction2's.

    Raises:
        ConfigError: if there are none, and something is told of them; or the kinds don't fit them.
    """
    n_foreign = sum(map(is_result_file, paths))
    if not n_foreign and (told != ResultFileOptions() or kinds):
        raise ConfigError(
            "--datalist, --labels, --kind and --split are of MMAction2's files (.pkl, .json, .yaml); drop them, "
            "as .npz files say it themselves"
        )
    if len(kinds) not in (0, 1, n_foreign):
        raise ConfigError(f"--kind: expected one for all or one for each of {n_foreign} files, got {len(kinds)}")
    left = list(kinds) if len(kinds) == n_foreign else list(kinds) * n_foreign
    tables, notes = [], []
    for path in paths:
        if is_result_file(path):
            table, note = read_result_file(path, replace(told, kind=left.pop(0)) if left else told)
            notes.append(note)
        else:
            table = read_scores(path)
        tables.append(table)
    return tables, notes


def _difference(tables: Sequence[ScoreTable], coefficients: Sequence[float], ours: np.ndarray) -> list[str]:
    """A line that says why MMAction2's rules give other numbers, where they do; `ours` is (N, K) fused scores."""
    labels = tables[0].labels
    theirs = mmaction2_metrics.fuse([table.scores for table in tables], coefficients)
    own = classification_metrics(ours, labels)
    numbers = {
        "top-1": (mmaction2_metrics.top_k_accuracy(theirs, labels, 1), own["top1"]),
        "top-5": (mmaction2_metrics.top_k_accuracy(theirs, labels, 5), own["top5"]),
        "mean class": (mmaction2_metrics.mean_class_accuracy(theirs, labels), own["mean_class_accuracy"]),
    }
    differ = [f"{name} {their:.4f}" for name, (their, our) in numbers.items() if f"{their:.4f}" != f"{our:.4f}"]
    if not differ:
        return []
    kinds = {table.kind for table in tables}
    reasons = ["add probabilities to logits"] * (len(kinds) == 2)
    reasons += ["add logits, not probabilities"] * (kinds == {"logits"} and len(tables) > 1)
    never_true = set(theirs.argmax(axis=1).tolist()) - set(labels.tolist())
    reasons += [f"count what is predicted but never true as 0 ({len(never_true)} of the classes)"] * bool(never_true)
    tied = any(mmaction2_metrics.top_k_accuracy(theirs, labels, k) != top_k_accuracy(theirs, labels, k) for k in (1, 5))
    reasons += ["break ties by an unstable sort"] * tied
    return [f"--rules mmaction2 gives {', '.join(differ)}: it would {' and '.join(reasons) or 'round otherwise'}"]


def _with_names(fusion: Fusion, names: Sequence[str], path: Path) -> Fusion:
    """The fusion with the names of the files, whose models must be its own in their order.

    Raises:
        ScoreError: if they are others.
    """
    overlap = set(names) & set(fusion.models)  # none: the names are paths, or one side's were renamed
    if len(fusion.models) != len(names) or (overlap and list(fusion.models) != list(names)):
        raise ScoreError(
            f"{path}: fuses {', '.join(fusion.models)}, got scores of {', '.join(names)}; give the files in its order"
        )
    return replace(fusion, models=tuple(names))


def _methods_table(methods: dict[str, Fitted], chosen: str, objective: str) -> list[str]:
    width = max(len(name) for name in methods)
    name_of = f"negative {objective}" if objective == "log_loss" else objective
    lines = [f"{'method':{width}}  {name_of} here  on held-out parts"]
    for name, fitted in methods.items():
        held_out = "-" if fitted.held_out is None else f"{fitted.held_out:.4f}"
        mark = "  <- chosen" if name == chosen else ""
        lines.append(f"{name:{width}}  {fitted.value:{len(name_of) + 5}.4f}  {held_out:>17}{mark}")
    return lines
