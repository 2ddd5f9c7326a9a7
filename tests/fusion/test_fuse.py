import csv
import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from avrecog.commands.fuse import fuse_files
from avrecog.errors import LeakError, ScoreError
from avrecog.fusion.fuse import FusionResults, fuse_models
from avrecog.fusion.methods.registry import METHODS
from avrecog.fusion.settings import FuseConfig
from avrecog.scores.npz import read_scores, write_scores
from avrecog.tracking.outcome import Outcome
from fusion_inputs import MODELS, fit, random_scores, write_model_scores


@pytest.fixture(scope="session")
def scores_dir(tmp_path_factory) -> Path:
    return write_model_scores(tmp_path_factory.mktemp("scores"))


def outputs(folder: Path) -> dict[str, Path]:
    return {"metrics_path": folder / "fuse.json", "fusion_dir": folder / "fuse", "plots_dir": folder / "plots"}


def run(scores_dir: Path, out: Path, n_models: int = 2, **config) -> tuple[Outcome, dict]:
    settings = FuseConfig(
        **{"n_trials": 20, "n_folds": 2, "n_resamples": 500, "methods": ["equal", "weights"], **config}
    )
    outcome = fuse_models(MODELS[:n_models], scores_dir, settings, **outputs(out))
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
    told = fuse_files([Path(path) for path in paths], FuseConfig(n_resamples=500), coefficients)
    assert f"fused  {report['test']['top1']:.4f}" in told.replace("fused   ", "fused ")
    assert outcome.summary.split("on test, ")[1].split(";")[0] in told


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
        fuse_models(["flow2"], scores_dir, FuseConfig(), **outputs(tmp_path))


@pytest.mark.parametrize("method", ["temperature", "log_weights", "stacking"])
def test_other_methods_are_saved_and_repeated_from_their_file(scores_dir, tmp_path, method):
    outcome, report = run(scores_dir, tmp_path, methods=[method])
    assert report["method"] == method
    assert (report["coefficients"] is None) == (method == "stacking")
    assert (report["temperatures"] is None) == (method != "temperature")
    words = shlex.split(outcome.summary.split("repeat with: ")[1])
    assert words[5:] == ["--fusion", str(tmp_path / "fuse" / "fusion.npz")]
    told = fuse_files([Path(path) for path in words[3:5]], FuseConfig(n_resamples=500), fusion_file=Path(words[6]))
    assert f"{report['test']['top1']:.4f}" in next(line for line in told.splitlines() if line.startswith("fused"))


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


@pytest.mark.parametrize(
    ("methods", "drawn"),
    [
        (["equal", "weights"], "weights"),
        (["equal", "temperature"], "equal"),
        (["stacking", "weights"], "weights"),
        (["log_weights"], "log_weights"),
    ],
)
def test_the_picture_is_of_weights_that_tell_something(methods, drawn):
    stack, labels, ids = random_scores(0)
    fitted = fit(stack, labels, ids, methods=methods)
    fusions = {name: each.fusion for name, each in fitted.items()}
    results = FusionResults(methods=fitted, fusions=fusions, chosen=methods[0], val={}, test={})
    assert results.drawn == drawn
