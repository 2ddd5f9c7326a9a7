"""Result files of MMAction2 to score tables and back."""

import json
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avrecog.errors import ConfigError, ScoreError
from avrecog.interop.mmaction2_results import (
    ENDINGS,
    PICKLES,
    ResultFileOptions,
    is_result_file,
    labels_of,
    read_datalist,
    read_lines,
    read_results,
)
from avrecog.runtime.files import atomic_path
from avrecog.scores.npz import read_scores, write_scores
from avrecog.scores.table import SUM_TOLERANCE, Kind, ScoreTable

Form = Literal["0.x", "1.x"]


def read_result_file(path: Path, told: ResultFileOptions, model: str | None = None) -> tuple[ScoreTable, str]:
    """A result file as a score table, and a line that says what was read and what was concluded.

    The model has the file's name where none is given. Rows that are stated to be probabilities and have no number below
    0 are scaled to a sum of 1.

    Raises:
        ScoreError: if a file can't be read, or they don't fit together; PickleError for a pickle.
    """
    results = read_results(path)
    n_clips, n_classes = results.scores.shape
    listed = read_datalist(told.datalist) if told.datalist is not None else None
    truth = labels_of(path, results, told.datalist, listed)
    if listed is not None:
        clip_ids, named = listed.clip_ids, ""
    elif results.names is not None:
        clip_ids, named = results.names, ", clips named as in the file"
    else:
        clip_ids, named = tuple(map(str, range(n_clips))), ", clips named by their row"
    longest = max(map(len, clip_ids))
    if longest * n_clips > 10_000_000 + 100 * sum(
        map(len, clip_ids)
    ):  # an array gives each name the longest one's room
        raise ScoreError(f"{told.datalist or path}: expected names of clips, got one of {longest:,} letters")
    classes = _class_names(told.labels, n_classes) if told.labels else tuple(map(str, range(n_classes)))
    kind = told.kind or kind_of(results.scores)
    scores, scaled = _scaled(results.scores) if told.kind == "probabilities" else (results.scores, "")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and the table says so
        scores = scores.astype(np.float32)
    try:
        table = ScoreTable(
            np.array(clip_ids),
            truth,
            scores,
            classes,
            kind,
            path.stem if model is None else model,
            told.split or "test",
        )
    except ScoreError as error:
        raise ScoreError(f"{path}: {error}") from None
    how = f"as stated{scaled}" if told.kind else "seen in the numbers; --kind states it"
    if told.kind is None and kind == "logits" and scores.min() >= 0 and scores.max() <= 1:
        how = "though all lie in 0 to 1, as rows don't sum to 1: state it with --kind"
    return table, f"{path}: {n_clips:,} clips, {n_classes:,} classes, {kind} ({how}){named}"


def kind_of(scores: np.ndarray) -> Kind:
    """What (N, K) scores look like: probabilities if every row has none below 0 and a sum of 1."""
    sums = scores.sum(axis=1, dtype=np.float64)
    return "probabilities" if scores.min() >= 0 and (np.abs(sums - 1) <= SUM_TOLERANCE).all() else "logits"


def _scaled(scores: np.ndarray) -> tuple[np.ndarray, str]:
    """(N, K) scores with a sum of 1 in each row, and what was done; as they are where that can't be."""
    sums = scores.sum(axis=1, dtype=np.float64)
    if scores.min() < 0 or not (sums > 0).all() or not (np.abs(sums - 1) > SUM_TOLERANCE).any():
        return scores, ""
    return scores / sums[:, None], f"; rows summed to {sums.min():.3g} to {sums.max():.3g}, scaled to 1"


def write_result_file(path: Path, table: ScoreTable, form: Form = "0.x") -> None:
    """Write a table's scores as MMAction2 would have, by the file's ending.

    The 0.x pickle is a list of float32 vectors in protocol 2 and names NumPy's old module, which NumPy 1 and 2 both
    know. It and the JSON hold neither clips nor labels.

    Raises:
        ConfigError: if that form has no such file.
    """
    ending = path.suffix.lower()
    if ending == ".json" and form == "0.x":
        content = json.dumps(table.scores.tolist()).encode()
    elif ending in PICKLES and form == "0.x":
        content = pickle.dumps(list(table.scores), protocol=2).replace(b"cnumpy._core.", b"cnumpy.core.", 1)
    elif ending in PICKLES:
        content = pickle.dumps(_dicts(table), protocol=2)
    else:
        raise ConfigError(
            f"{path}: expected .pkl, or .json for form 0.x, to write MMAction2's form {form}; got {ending!r}"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def convert_scores(
    source: Path, target: Path, told: ResultFileOptions, model: str | None = None, form: Form | None = None
) -> str:
    """Write MMAction2's result file as a score file (.npz), or a score file as MMAction2's; what was done, in words.

    Args:
        source: the file to read; .npz is ours.
        target: the file to write; .npz is ours.
        told: of a source of theirs.
        model: its name; None: the file's name.
        form: of a target of theirs; None: 0.x.

    Raises:
        ConfigError: if the endings are neither ours nor theirs, or an option says what the file itself does.
    """
    for path in (source, target):
        if path.suffix != ".npz" and not is_result_file(path):
            raise ConfigError(f"{path}: expected .npz, {', '.join(ENDINGS)}, or a checkpoint; got {path.suffix!r}")
    if source.suffix == ".npz":
        if told != ResultFileOptions() or model is not None:
            raise ConfigError(
                f"{source}: says its clips, classes, kind, split and model itself; drop the options that say them"
            )
        table = read_scores(source)
        said = f"{source}: {len(table.labels):,} clips, {len(table.classes):,} classes, {table.kind}"
    else:
        table, said = read_result_file(source, told, model)
    if target.suffix == ".npz":
        if form is not None:
            raise ConfigError(f"{target}: --form is of MMAction2's files, and this ending is ours; drop it")
        write_scores(target, table)
        return f"{said} -> {target} (model {table.model}, split {table.split})"
    write_result_file(target, table, form or "0.x")
    lost = "" if form == "1.x" else ", which holds no clips and labels: keep their list"
    return f"{said} -> {target} (MMAction2 {form or '0.x'}{lost})"


def _class_names(path: Path, n_classes: int) -> tuple[str, ...]:
    names = tuple(line.strip() for line in read_lines(path, "label map") if line.strip())
    if len(names) != n_classes:
        raise ScoreError(f"{path}: expected {n_classes} class names, one a line, got {len(names)}")
    return names


def _dicts(table: ScoreTable) -> list[dict[str, Any]]:
    """The rows of a 1.x dump, each with its clip's name."""
    import torch

    predicted = table.scores.argmax(axis=1)
    return [
        {
            "num_classes": len(table.classes),
            "pred_label": torch.tensor([int(predicted[row])]),
            "pred_score": torch.from_numpy(table.scores[row].copy()),
            "gt_label": torch.tensor([int(table.labels[row])]),
            "filename": str(table.clip_ids[row]),
        }
        for row in range(len(table.labels))
    ]
