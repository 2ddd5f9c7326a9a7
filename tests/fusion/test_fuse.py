import csv
import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avrecog.commands.fuse import fuse_files
from avrecog.errors import LeakError, ScoreError
from avrecog.fusion.file import read_fusion
from avrecog.fusion.fuse import fuse_models
from avrecog.fusion.settings import METHODS, FuseConfig
from avrecog.scores.npz import read_scores, write_scores
from avrecog.scores.table import ScoreTable
from avrecog.tracking.outcome import Outcome

MODELS = ("audio", "rgb", "flow", "avslowfast")
CLASSES = tuple(f"{action}_{material}" for action in ("tap", "roll") for material in ("wood", "metal", "glass"))


@pytest.fixture(scope="session")
def scores_dir(tmp_path_factory) -> Path:
    """Models that know different halves: fusion must win. Every file has its rows in an order of its own."""
    folder = tmp_path_factory.mktemp("scores")
    rng = np.random.default_rng(0)
    for split, n_clips in (("val", 150), ("test", 200)):
        labels = rng.integers(0, len(CLASSES), n_clips)
        for index, model in enumerate(MODELS):
            logits = rng.normal(size=(n_clips, len(CLASSES)))
            logits[np.arange(n_clips), labels] += 1.8 - 0.3 * index
            order = rng.permutation(n_clips)
            ids = np.array([f"{split}{i:03}" for i in range(n_clips)])
            table = ScoreTable(
                ids[order], labels[order], logits[order].astype(np.float32), CLASSES, "logits", model, split
            )
            write_scores(folder / model / f"{split}.npz", table)
    return folder


def run(scores_dir: Path, out: Path, n_models: int = 2, **config) -> tuple[Outcome, dict]:
    settings = FuseConfig(
        **{"n_trials": 20, "n_folds": 2, "n_resamples": 500, "methods": ["equal", "weights"], **config}
    )
    outcome = fuse_models(MODELS[:n_models], scores_dir, settings, out / "fuse.json", out / "fuse", out / "plots")
    return outcome, json.loads((out / "fuse.json").read_text())


def test_fusion_beats_the_better_model_and_the_file_has_the_keys_of_the_design(scores_dir, tmp_path):
    outcome, report = run(scores_dir, tmp_path, n_trials=101)
    assert list(report) == [
        *("method", "coefficients", "temperatures", "exponent", "val", "test", "best_single", "gain", "val_reused"),
        *("n_clips", "n_left_out", "n_trials", "seconds"),
    ]
    assert list(report["val"]) == ["top1", "top5", "mean_class_accuracy"]
    assert list(report["test"]) == [*report["val"], "top1_low", "top1_high"]
    assert list(report["gain"]) == ["top1", "top5", "top1_ci95", "p_value"]
    assert report["best_single"]["model"] == "audio"
    assert report["val_reused"] is True
    assert report["n_trials"] == 101
    assert sum(report["coefficients"].values()) == pytest.approx(1)
    low, high = report["gain"]["top1_ci95"]
    assert 0 < low < report["gain"]["top1"] < high
    assert report["gain"]["p_value"] < 0.05
    assert report["gain"]["top1"] == pytest.approx(report["test"]["top1"] - report["best_single"]["top1"])
    assert outcome.metrics["test.top1"] == report["test"]["top1"]
    assert outcome.metrics["gain.top1_low"] == low
    assert outcome.metrics["coefficients.rgb"] == report["coefficients"]["rgb"]
    assert len(outcome.curves) == 101
    assert outcome.curves[1][1] == {
        "trial_value": pytest.approx(outcome.curves[1][1]["trial_value"]),
        "trial_coefficients.audio": 1.0,
        "trial_coefficients.rgb": 0.0,
    }
    assert [path.name for path in outcome.files] == [
        *("fusion.png", "fusion_confusion.png", "fusion_trials.csv", "methods.csv", "predictions.csv"),
        "fuse.json",
    ]
    assert all(path.is_file() for path in outcome.files)


def test_the_line_to_repeat_gives_the_same_numbers(scores_dir, tmp_path):
    outcome, report = run(scores_dir, tmp_path, 3)
    line = outcome.summary.split("repeat with: ")[1]
    words = shlex.split(line)
    assert words[:3] == ["avrecog", "fuse", "--scores"]
    paths, coefficients = words[3:6], [float(word) for word in words[7:]]
    said = fuse_files([Path(path) for path in paths], FuseConfig(n_resamples=500), coefficients)
    assert f"fused  {report['test']['top1']:.4f}" in said.replace("fused   ", "fused ")
    assert outcome.summary.split("on test, ")[1].split(";")[0] in said


def test_fixed_coefficients_give_the_numbers_of_tuned_ones(scores_dir, tmp_path):
    _, tuned = run(scores_dir, tmp_path / "a")
    outcome, fixed = run(scores_dir, tmp_path / "b", coefficients=tuned["coefficients"])
    assert {key: fixed[key] for key in ("coefficients", "val", "test", "gain")} == {
        key: tuned[key] for key in ("coefficients", "val", "test", "gain")
    }
    assert fixed["method"] == "coefficients"
    assert fixed["val_reused"] is False
    assert outcome.curves == []
    with (tmp_path / "b" / "plots" / "methods.csv").open() as file:  # the others stand beside them
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["equal", "weights", "coefficients"]
    assert rows["coefficients"]["chosen"] == "True"
    assert rows["coefficients"]["test_top1"] == str(fixed["test"]["top1"])


@pytest.mark.parametrize("n_models", [1, 3, 4])
def test_any_number_of_models(scores_dir, tmp_path, n_models):
    outcome, report = run(scores_dir, tmp_path, n_models)
    assert (tmp_path / "plots" / "fusion.png").exists() == (n_models > 1)
    assert set(report["coefficients"]) == set(MODELS[:n_models])
    if n_models == 1:
        assert report["coefficients"] == {"audio": 1}
        assert report["gain"] == {"top1": 0, "top5": 0, "top1_ci95": [0, 0], "p_value": 1}
        assert outcome.summary.startswith("audio 1: top-1 0.")
        assert report["method"] == "equal"


def test_fixed_coefficients_of_three_models_are_drawn_without_trials(scores_dir, tmp_path):
    outcome, _ = run(scores_dir, tmp_path, 3, coefficients={"audio": 1, "rgb": 1, "flow": 1})
    assert outcome.summary.endswith("--coefficients 1 1 1")
    assert (tmp_path / "plots" / "fusion.png").exists()
    assert not (tmp_path / "plots" / "fusion_trials.csv").exists()


def test_a_second_run_gives_the_same_bytes(scores_dir, tmp_path):
    for name in ("a", "b"):
        run(scores_dir, tmp_path / name)
    for name in ("fusion.png", "fusion_confusion.png", "fusion_trials.csv"):
        assert (tmp_path / "a" / "plots" / name).read_bytes() == (tmp_path / "b" / "plots" / name).read_bytes()


def test_names_that_do_not_match_the_models_are_named(scores_dir, tmp_path):
    with pytest.raises(
        ScoreError, match="no coefficient for rgb; unknown model rbg; expected one for each of audio, rgb"
    ):
        run(scores_dir, tmp_path, coefficients={"audio": 0.5, "rbg": 0.5})


def test_a_test_file_in_the_place_of_val_is_refused(scores_dir, tmp_path):
    for model in MODELS[:2]:
        for split in ("val", "test"):
            write_scores(tmp_path / model / f"{split}.npz", read_scores(scores_dir / model / "test.npz"))
    with pytest.raises(LeakError, match=r"audio/val\.npz: expected scores of split val, got test"):
        run(tmp_path, tmp_path)


def test_a_clip_in_val_and_in_test_is_refused(scores_dir, tmp_path):
    for model in MODELS[:2]:
        table = read_scores(scores_dir / model / "test.npz")
        write_scores(tmp_path / model / "test.npz", table)
        write_scores(tmp_path / model / "val.npz", dataclasses.replace(table, split="val"))
    with pytest.raises(LeakError, match="clip test000 and 199 more are in val and in test"):
        run(tmp_path, tmp_path)


def test_a_missing_score_file_is_named(scores_dir, tmp_path):
    with pytest.raises(ScoreError, match=r"flow2/val\.npz: there is no such score file"):
        fuse_models(["flow2"], scores_dir, FuseConfig(), tmp_path / "f.json", tmp_path / "f", tmp_path / "plots")


@pytest.mark.parametrize("method", ["temperature", "log_weights", "stacking"])
def test_other_methods_are_saved_and_repeated_from_their_file(scores_dir, tmp_path, method):
    outcome, report = run(scores_dir, tmp_path, methods=[method])
    assert report["method"] == method
    assert (report["coefficients"] is None) == (method == "stacking")
    assert (report["temperatures"] is None) == (method != "temperature")
    words = shlex.split(outcome.summary.split("repeat with: ")[1])
    assert words[5:] == ["--fusion", str(tmp_path / "fuse" / "fusion.npz")]
    said = fuse_files([Path(path) for path in words[3:5]], FuseConfig(n_resamples=500), fusion_file=Path(words[6]))
    assert f"{report['test']['top1']:.4f}" in next(line for line in said.splitlines() if line.startswith("fused"))


def test_every_method_has_a_line_with_val_beside_test(scores_dir, tmp_path):
    _, report = run(scores_dir, tmp_path, methods=list(METHODS))
    with (tmp_path / "plots" / "methods.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == list(METHODS)
    (chosen,) = (row for row in rows if row["chosen"] == "True")
    assert chosen["method"] == report["method"]
    assert float(chosen["test_top1"]) == report["test"]["top1"]
    assert float(chosen["test_gain"]) == report["gain"]["top1"]
    best = max(float(row["val_held_out"]) for row in rows)
    assert float(chosen["val_held_out"]) == best
    for row in rows:
        assert float(row["test_top1_low"]) <= float(row["test_top1"]) <= float(row["test_top1_high"])


def test_nothing_of_test_moves_the_choice(scores_dir, tmp_path):
    """Scores of test that would speak for another model change no coefficient."""
    for model in MODELS[:2]:
        for split in ("val", "test"):
            table = read_scores(scores_dir / model / f"{split}.npz")
            if split == "test" and model == "audio":
                table = dataclasses.replace(table, scores=table.scores[:, ::-1].copy())
            write_scores(tmp_path / "s" / model / f"{split}.npz", table)
    _, before = run(scores_dir, tmp_path / "a")
    _, after = run(tmp_path / "s", tmp_path / "b")
    for key in ("method", "coefficients", "val"):
        assert before[key] == after[key]
    assert before["test"] != after["test"]


def test_the_command_tunes_on_val_only(scores_dir, tmp_path):
    paths = [scores_dir / model / "val.npz" for model in MODELS[:2]]
    said = fuse_files(paths, FuseConfig(n_folds=2, n_trials=20), save=tmp_path / "f.npz")
    assert "the best of 5 methods for top1 on val" in said
    assert said.count("<- chosen") == 1
    assert "these numbers flatter" in said
    assert read_fusion(tmp_path / "f.npz", CLASSES).models == MODELS[:2]
    with pytest.raises(LeakError, match="scores of split test; tune on val"):
        fuse_files([scores_dir / "audio" / "test.npz"], FuseConfig())


def test_a_fusion_is_not_saved_over_a_folder_or_what_it_was_made_from(scores_dir, tmp_path):
    paths = [scores_dir / model / "val.npz" for model in MODELS[:2]]
    for wrong in (tmp_path, paths[0]):
        with pytest.raises(ScoreError, match="--save: expected a new file, got"):
            fuse_files(paths, FuseConfig(methods=["equal"]), save=wrong)


def test_a_saved_fusion_of_other_models_is_refused(scores_dir, tmp_path):
    paths = [scores_dir / model / "val.npz" for model in MODELS[:2]]
    fuse_files(paths, FuseConfig(methods=["equal"]), save=tmp_path / "f.npz")
    other = [scores_dir / model / "val.npz" for model in ("rgb", "flow")]
    for wrong in (paths[::-1], paths[:1], other):
        with pytest.raises(ScoreError, match="fuses audio, rgb, got scores of"):
            fuse_files(wrong, FuseConfig(), fusion_file=tmp_path / "f.npz")


def test_the_command_wants_one_coefficient_a_file(scores_dir):
    with pytest.raises(ScoreError, match="--coefficients: expected 1, one a score file, got 2"):
        fuse_files([scores_dir / "audio" / "test.npz"], FuseConfig(), [1, 2])


def test_files_of_one_model_are_told_apart_by_their_paths(scores_dir, tmp_path):
    table = read_scores(scores_dir / "audio" / "test.npz")
    again = dataclasses.replace(table, scores=table.scores[:, ::-1])
    write_scores(tmp_path / "again.npz", again)
    said = fuse_files([scores_dir / "audio" / "test.npz", tmp_path / "again.npz"], FuseConfig(), [1, 0])
    assert f"{tmp_path / 'again.npz'}" in said
    assert "gain: +0.000 over" in said


def test_importing_loads_neither_optuna_nor_matplotlib_nor_torch():
    program = (
        "import sys, avrecog.commands.fuse; "
        "sys.exit(', '.join({'optuna', 'matplotlib', 'torch', 'mlflow'} & set(sys.modules)) or None)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
