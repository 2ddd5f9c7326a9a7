"""Score files fused by hand: `avrecog fuse`."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from avrecog.commands.fuse import fuse_files
from avrecog.errors import LeakError, ScoreError
from avrecog.fusion.file import read_fusion
from avrecog.fusion.settings import FuseConfig
from avrecog.scores.npz import read_scores, write_scores
from fusion_inputs import CLASSES, MODELS, write_model_scores


@pytest.fixture(scope="session")
def scores_dir(tmp_path_factory) -> Path:
    return write_model_scores(tmp_path_factory.mktemp("scores"))


def test_the_command_tunes_on_val_only(scores_dir, tmp_path):
    paths = [scores_dir / model / "val.npz" for model in MODELS[:2]]
    told = fuse_files(paths, FuseConfig(n_folds=2, n_trials=20), save=tmp_path / "f.npz")
    assert "the best of 5 methods for top1 on val" in told
    assert told.count("<- chosen") == 1
    assert "these numbers flatter" in told
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
    told = fuse_files([scores_dir / "audio" / "test.npz", tmp_path / "again.npz"], FuseConfig(), [1, 0])
    assert f"{tmp_path / 'again.npz'}" in told
    assert "gain: +0.000 over" in told


def test_importing_loads_neither_optuna_nor_matplotlib_nor_torch():
    program = (
        "import sys, avrecog.commands.fuse; "
        "sys.exit(', '.join({'optuna', 'matplotlib', 'torch', 'mlflow'} & set(sys.modules)) or None)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(("method", "needs_file"), [("weights", False), ("stacking", True)])
def test_the_advice_names_the_file_where_the_weights_alone_do_not_repeat_it(scores_dir, tmp_path, method, needs_file):
    paths = [scores_dir / model / "val.npz" for model in MODELS[:2]]
    config = FuseConfig(n_folds=2, n_trials=5, methods=[method])
    advice = fuse_files(paths, config).splitlines()[-1]
    assert ("save it with --save FUSION.npz, and apply it" in advice) == needs_file
    assert ("--fusion FUSION.npz" in advice) == needs_file
    assert ("--coefficients " in advice) != needs_file
    assert "save it with" not in fuse_files(paths, config, save=tmp_path / "f.npz")
