"""Fusing score files by hand: the command `avrecog fuse`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from avrecog.errors import LeakError, ScoreError
from avrecog.fusion import FuseConfig
from avrecog.fusion_choice import Fitted, choose, fit_methods
from avrecog.fusion_methods import Fusion, read_fusion, write_fusion
from avrecog.late_fusion import Single, evaluate, fixed_fusion, repeat_command, said_fusion, said_gain, stacked
from avrecog.metrics import classification_metrics
from avrecog.scores import join_scores, read_scores


def fuse_files(
    paths: Sequence[Path],
    config: FuseConfig,
    coefficients: Sequence[float] | None = None,
    fusion_file: Path | None = None,
    save: Path | None = None,
) -> str:
    """Fuse score files of one split: what to print.

    With coefficients or a fusion file: the metrics of that split, with the interval of the gain. Without: every method
    fitted on these files and one chosen, with the line that applies it.

    Raises:
        ScoreError: if there isn't one coefficient a file, the fusion is of other models or classes, or it can't be
            saved there.
        LeakError: if nothing is given and the files are of split test.
    """
    if save is not None and (save.is_dir() or save in paths):
        raise ScoreError(f"--save: expected a new file, got {save}, which is {'a folder' if save.is_dir() else 'read'}")
    tables = join_scores([read_scores(path) for path in paths])
    names = [table.model for table in tables]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    split = tables[0].split
    stack, labels = stacked(tables), tables[0].labels
    advice: list[str] = []
    if coefficients is not None:
        if len(coefficients) != len(paths):
            raise ScoreError(f"--coefficients: expected {len(paths)}, one a score file, got {len(coefficients)}")
        fusion = fixed_fusion(names, coefficients)
        heading = f"{said_fusion(fusion)} on {split}, {len(labels):,} clips"
    elif fusion_file is not None:
        fusion = _of_these(read_fusion(fusion_file, tables[0].classes), names, fusion_file)
        heading = f"{said_fusion(fusion)} on {split}, {len(labels):,} clips"
    else:
        if split == "test":
            raise LeakError(
                "these are scores of split test; tune on val: give the files of val, then use --coefficients or "
                "--fusion on those of test"
            )
        methods = fit_methods(stack, labels, tables[0].clip_ids.tolist(), names, config)
        chosen = choose(methods)
        fusion = methods[chosen].fusion
        heading = (
            f"{chosen}, the best of {len(methods)} methods for {config.objective} on {split}: {said_fusion(fusion)}"
        )
        saved = save or "FUSION.npz"
        line = repeat_command(["TEST.npz"] * len(names), fusion, saved)
        first = "" if fusion.is_linear or save else f"save it with --save {saved}, and "
        advice = [
            *_methods_table(methods, chosen, config.objective),
            f"these numbers flatter: the method was chosen on {split}; {first}apply it to the same models' scores of "
            f"test: {line}",
        ]
    if save is not None:
        write_fusion(save, fusion, tables[0].classes)
    result = evaluate(fusion, stack, labels, Single.of(names, stack, labels), config)
    rows = [(name, classification_metrics(scores, labels)) for name, scores in zip(names, stack, strict=True)]
    rows.append(("fused", result["fused"]))
    width = max(len(name) for name, _ in rows)
    lines = [heading, f"{'':{width}}  {'top-1':>6}  {'top-5':>6}  {'mean class':>10}"]
    for name, row in rows:
        numbers = f"{row['top1']:6.4f}  {row['top5']:6.4f}  {row['mean_class_accuracy']:10.4f}"
        lines.append(f"{name:{width}}  {numbers}")
    fused = result["fused"]
    lines.append(f"fused top-1: 95 % interval {fused['top1_low']:.3f} to {fused['top1_high']:.3f}")
    if len(names) > 1:
        lines.append(f"gain: {said_gain(result)}")
    return "\n".join([*lines, *advice])


def _of_these(fusion: Fusion, names: Sequence[str], path: Path) -> Fusion:
    """The fusion, whose models must be those of the files in their order.

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
