"""What does searching fusion weights cost at the size of Kinetics-400's validation set (19,796 clips, 400 classes)?

The reference's script is MMAction2's report_accuracy.py as its description says: a weighted sum in float64, argsort for top-1 and
top-5, and the confusion matrix for the mean class accuracy, for each set of weights. Scores are random, right in about 7 of
10 clips.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from comparing import Row, at_least, at_most, in_turns, show

from avrecog.fusion.objective import FusionObjective
from avrecog.fusion.settings import FuseConfig
from avrecog.fusion.weight_search import search_weights
from avrecog.metrics import bootstrap_gain, correct_clips
from avrecog.scores.npz import write_scores
from avrecog.scores.table import ScoreTable

N_CLIPS, N_CLASSES = 19_796, 400


def scores(n_models: int, n_clips: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (M, N, K) float32 and labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_clips)
    values = np.empty((n_models, n_clips, n_classes), np.float32)
    for model in values:
        rng.standard_normal(out=model, dtype=np.float32)
        model[np.arange(n_clips), labels] += 3.5
        np.exp(model, out=model)
        model /= model.sum(axis=1, keepdims=True)
    return values, labels


def reference(values: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """Top-1, top-5 and mean class accuracy as the reference's script finds them."""
    fused = np.zeros(values.shape[1:])
    for value, weight in zip(values, weights, strict=True):
        fused = fused + weight * value
    order = np.argsort(fused, axis=1)
    top1, top5 = ((order[:, -k:] == labels[:, None]).any(axis=1).mean() for k in (1, 5))
    predicted = fused.argmax(axis=1)
    matrix = np.zeros((values.shape[2], values.shape[2]), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return float(top1), float(top5), float(np.mean(np.diag(matrix) / np.maximum(1, matrix.sum(axis=1))))


def write_splits(folder: Path, n_clips: int, n_classes: int, models: tuple[str, ...]) -> int:
    """Score files of val and test; how many bytes."""
    names = tuple(f"class {number}" for number in range(n_classes))
    for number, split in enumerate(("val", "test")):
        values, labels = scores(len(models), n_clips, n_classes, number)
        ids = np.array([f"{split}/{clip:06d}" for clip in range(n_clips)])
        for model, table in zip(models, values, strict=True):
            write_scores(
                folder / model / f"{split}.npz",
                ScoreTable(ids, labels, table, names, "probabilities", model, split, np.array([], dtype=str)),
            )
    return sum(path.stat().st_size for path in folder.rglob("*.npz"))


STAGE = """
import resource, sys, time
from pathlib import Path
from avrecog.fusion.fuse import fuse_models
from avrecog.fusion.settings import FuseConfig
import avrecog.fusion.plots, avrecog.plots, matplotlib.pyplot, optuna, sklearn.linear_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
began = time.perf_counter()
paths = {"metrics_path": out / "fuse.json", "fusion_dir": out / "fusion", "plots_dir": out / "plots"}
fuse_models(sys.argv[3:], folder, FuseConfig(), **paths)
print(time.perf_counter() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def stage(folder: Path, models: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of the whole stage, and the memory that it takes beyond its libraries, in MiB."""
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [sys.executable, "-c", STAGE, str(folder), out, *models], capture_output=True, text=True, check=True
        )
    seconds, mib = done.stdout.split()[-2:]
    return float(seconds), float(mib)


def main() -> None:
    values, labels = scores(3, N_CLIPS, N_CLASSES)
    two = values[:2]
    weights = np.random.default_rng(0).dirichlet(np.ones(2), 20)
    objective = FusionObjective(two, labels)
    times = in_turns(
        {
            "reference": lambda: reference(two, labels, weights[0]),
            "ours": lambda: [objective(each) for each in weights],
            "prepare": lambda: FusionObjective(two, labels),
            "read": lambda: two.sum(),
        },
        rounds=5,
    )
    top1, _, _ = reference(two, labels, weights[0])
    assert abs(objective(weights[0]) - top1) < 1e-9, "the two disagree"
    trial_s = times["ours"].median / len(weights)
    size = f"2 models x {N_CLIPS:,} clips x {N_CLASSES} classes"
    rows = [
        Row(f"a trial, {size}: the reference's script / ours", times["reference"].said(), times["ours"].said(per=len(weights)), times["reference"].median / trial_s),
        at_most("the same, ms a trial", "", f"{1000 * trial_s:.2f} ms, after {times['prepare'].said()} once", 1000 * trial_s, 12, " ms"),
    ]  # fmt: skip
    began = time.perf_counter()
    found = search_weights(values, labels, ["a", "b", "c"], FuseConfig(n_trials=1000))
    seconds = time.perf_counter() - began
    assert len(found.trials) == 1000
    rows.append(at_most("1,000 trials of three models by Optuna", "", f"{seconds:.1f} s", seconds, 20, " s"))
    right = [correct_clips(value, labels) for value in two]
    boot = in_turns({"ours": lambda: bootstrap_gain(*right), "plain": lambda: plain_bootstrap(*right)}, rounds=3)
    rows += [
        at_most("bootstrap of 2,000 resamples", "", boot["ours"].said(), boot["ours"].median, 3, " s"),
        at_least("the same: drawing the clips / ours", boot["plain"].said(), boot["ours"].said(), boot["plain"].median / boot["ours"].median, 1),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        models = ("a", "b")
        n_bytes = write_splits(Path(folder), N_CLIPS, N_CLASSES, models)
        seconds, mib = stage(Path(folder), models)
    rows.append(at_most(f"stage fuse, val and test of that size ({seconds:.0f} s): its memory / its score files", f"{n_bytes / 2**20:.0f} MiB", f"{mib:.0f} MiB", mib * 2**20 / n_bytes, 2))  # fmt: skip
    notes = [f"Reading the 63 MB once: {times['read'].said()}. Peak of this benchmark: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB."]  # fmt: skip
    show("Fusion", rows, ["numpy", "optuna"], notes)


def plain_bootstrap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Percentiles of the gain under 2,000 draws of all clips."""
    rng, difference = np.random.default_rng(0), a.astype(np.int8) - b.astype(np.int8)
    means = [difference[rng.integers(0, len(a), len(a))].mean() for _ in range(2000)]
    return np.percentile(means, [2.5, 97.5])


if __name__ == "__main__":
    main()
