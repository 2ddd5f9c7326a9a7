"""The command `avrecog`, called in this process."""

import pickle
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

import projects
from avrecog import cli
from avrecog.commands.doctor import params_findings
from avrecog.fusion.file import read_fusion
from avrecog.inference.trained_model import load_model
from avrecog.metrics import top_k_accuracy
from avrecog.runtime import device
from avrecog.scores.npz import write_scores
from avrecog.scores.table import ScoreTable
from checkpoint import small_checkpoint
from clips import make_tone, make_video


def avrecog(folder, *arguments):
    with projects.inside(folder), mock.patch.object(sys, "argv", ["avrecog", *map(str, arguments)]):
        cli.main()


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['avrecog', '--help']\n"
    code += "try:\n from avrecog.cli import main; main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'mlflow', 'numpy', 'optuna'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert "recipe" in result.stdout


def test_predict_says_the_right_class_with_both_models(finished_project, capsys):
    clip = next((finished_project / "clips/high").iterdir())
    avrecog(finished_project, "predict", clip, "--top", 2)
    first, second, *rest = capsys.readouterr().out.splitlines()
    classes = (finished_project / "data/labels.txt").read_text().split()
    fusion = read_fusion(finished_project / "results/fuse/fusion.npz", classes)
    assert first == f"{clip} ({fusion.describe()})"
    assert second.endswith("high")
    assert len(rest) == 1


def test_predict_uses_the_models_whose_modality_the_file_has(finished_project, tmp_path, capsys):
    tone = make_tone(tmp_path / "a tone.wav", duration_s=0.5)
    silent = make_video(tmp_path / "silent.mp4", with_audio=False)
    avrecog(finished_project, "predict", tone.path, silent.path)
    out = capsys.readouterr().out
    assert "a tone.wav (audio)" in out
    assert "silent.mp4 (rgb)" in out


def test_predict_takes_checkpoints_and_coefficients(finished_project, capsys):
    clip = next((finished_project / "clips/low").iterdir())
    checkpoint = finished_project / "models/audio/last.ckpt"
    avrecog(finished_project, "predict", clip, "--checkpoint", checkpoint, "--coefficients", 1)
    assert "(audio)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["x.mp4", "--top", "0"], "--top: expected 1 or more"),
        (["x.mp4", "--coefficients", "1"], "--coefficients: expected 2, one a checkpoint, got 1"),
        (["x.mp4", "--checkpoint", "none.ckpt"], "none.ckpt: no such checkpoint"),
    ],
)
def test_predict_says_what_is_wrong(finished_project, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        avrecog(finished_project, "predict", *arguments)
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_predict_without_a_trained_model_says_what_to_run(project, capsys):
    shutil.rmtree(project / "models")
    with pytest.raises(SystemExit):
        avrecog(project, "predict", "x.mp4")
    assert "models/audio/best.ckpt: no such checkpoint; run `dvc repro train`" in capsys.readouterr().err


@pytest.fixture
def workshop(tmp_path):
    """A folder with the demo's params.yaml and the recipes."""
    (tmp_path / "params.yaml").write_text((projects.ROOT / "recipes/default.yaml").read_text())
    (tmp_path / "recipes").mkdir()
    for path in (projects.ROOT / "recipes").glob("*.yaml"):
        (tmp_path / "recipes" / path.name).write_text(path.read_text())
    return tmp_path


def test_a_recipe_changes_params_yaml_shows_it_and_keeps_the_comments(workshop, capsys):
    (workshop / "clips.csv").write_text("path,label\n")
    avrecog(workshop, "recipe", "esc10", "--annotation", workshop / "clips.csv")
    out = capsys.readouterr().out
    assert "+  models: [audio] " in out
    text = (workshop / "params.yaml").read_text()
    assert "# stage prepare (src/avrecog/annotations/settings.py)" in text
    values = YAML(typ="safe").load(text)
    assert values["data"]["annotation"] == str(workshop / "clips.csv")
    assert values["video"] is None
    assert values["train"]["momentum"] == 0.9
    avrecog(workshop, "recipe", "esc10", "--annotation", workshop / "clips.csv")
    assert "is recipe esc10 already" in capsys.readouterr().out


def test_a_recipe_gives_the_same_file_whatever_stood_there_before(workshop, capsys):
    (workshop / "clips.csv").write_text("path,label\n")
    avrecog(workshop, "recipe", "grid", "--annotation", workshop / "clips.csv")
    alone = (workshop / "params.yaml").read_text()
    for name in ("esc10", "grid"):
        avrecog(workshop, "recipe", name, "--annotation", workshop / "clips.csv")
    assert (workshop / "params.yaml").read_text() == alone
    avrecog(workshop, "recipe", "default")
    assert (workshop / "params.yaml").read_bytes() == (workshop / "recipes/default.yaml").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no recipes/nothing.yaml; recipes: default, demo_avslowfast, demo_sync, esc10, grid, "),
        (["esc10"], "say where the clips are: avrecog recipe esc10 --annotation PATH"),
        (["esc10", "--annotation", "gone.csv"], "--annotation: gone.csv does not exist"),
    ],
)
def test_a_recipe_that_cannot_be_applied_says_why(workshop, capsys, arguments, message):
    with pytest.raises(SystemExit):
        avrecog(workshop, "recipe", *arguments)
    assert message in capsys.readouterr().err


def test_a_recipe_with_a_section_of_its_own_is_refused(workshop, capsys):
    (workshop / "recipes/odd.yaml").write_text("trian: {lr: 1.0}\n")
    with pytest.raises(SystemExit):
        avrecog(workshop, "recipe", "odd")
    assert "trian is no section of recipes/default.yaml" in capsys.readouterr().err


def test_fuse_prints_the_metrics_of_fixed_coefficients(tmp_path, capsys):
    (tmp_path / "params.yaml").write_text((projects.ROOT / "params.yaml").read_text())
    generator = np.random.default_rng(0)
    scores_of = {}
    for model in ("a", "b"):
        scores = scores_of[model] = generator.dirichlet(np.ones(3), 20).astype(np.float32)
        ids, labels = np.array([f"c{i}" for i in range(20)]), np.arange(20) % 3
        table = ScoreTable(ids, labels, scores, ("x", "y", "z"), "probabilities", model, "test")
        write_scores(tmp_path / f"{model}.npz", table)
    avrecog(tmp_path, "fuse", "--scores", "a.npz", "b.npz", "--coefficients", 1, 1)
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line[7:8] == "0"}
    assert rows["a"][0] == f"{top_k_accuracy(scores_of['a'], labels, 1):.4f}"
    fused = (scores_of["a"] + scores_of["b"]) / 2
    assert rows["fused"][:2] == [f"{top_k_accuracy(fused, labels, 1):.4f}", "1.0000"]


@pytest.fixture
def foreign(tmp_path):
    """Two result files of MMAction2, probabilities and logits, and their list; the last class is never true."""
    (tmp_path / "params.yaml").write_text((projects.ROOT / "params.yaml").read_text())
    generator, labels = np.random.default_rng(0), np.arange(20) % 2
    (tmp_path / "list.txt").write_text("".join(f"clip{i} 10 {label}\n" for i, label in enumerate(labels)))
    shares = generator.dirichlet(np.ones(3), 20).astype(np.float32)
    for name, scores in (("a", shares), ("b", generator.normal(size=(20, 3)).astype(np.float32) * 9)):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(list(scores), 2))
    return tmp_path


def test_fuse_takes_mmaction2s_files_and_says_where_its_rules_differ(foreign, capsys):
    fuse = ("fuse", "--scores", "a.pkl", "b.pkl", "--datalist", "list.txt")
    avrecog(foreign, *fuse, "--coefficients", 1, 1)
    first, second, heading, columns, *rest = capsys.readouterr().out.splitlines()
    assert first == "a.pkl: 20 clips, 3 classes, probabilities (seen in the numbers; --kind states it)"
    assert second.startswith("b.pkl: 20 clips, 3 classes, logits")
    assert heading == "a 0.5 + b 0.5 on test, 20 clips"
    assert columns.endswith("mean class  mean class by MMAction2")
    assert "it would add probabilities to logits and count what is predicted but never true as 0 (1 of " in rest[-1]
    assert rest[-1].startswith("--rules mmaction2 gives ")
    avrecog(foreign, *fuse, "--coefficients", 1, 1, "--rules", "mmaction2")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:-6] for line in lines] == ["Mean Class Accuracy: ", "Top 1 Accuracy: ", "Top 5 Accuracy: "]
    assert lines[0][-6:] in rest[-1]
    avrecog(foreign, *fuse, "--coefficients", 3, -1, "--rules", "mmaction2", "--apply-softmax")
    assert capsys.readouterr().out.splitlines() != lines


def test_rules_that_agree_are_not_spoken_of(foreign, capsys):
    (foreign / "b.pkl").write_bytes((foreign / "a.pkl").read_bytes())
    (foreign / "list.txt").write_text("".join(f"clip{i} 10 {i % 3}\n" for i in range(20)))
    avrecog(foreign, "fuse", "--scores", "a.pkl", "b.pkl", "--datalist", "list.txt", "--coefficients", 1, 1)
    assert "--rules" not in capsys.readouterr().out


def test_coefficients_are_tuned_on_files_that_are_said_to_be_of_val(foreign, capsys):
    fuse = ("fuse", "--scores", "a.pkl", "b.pkl", "--datalist", "list.txt")
    with pytest.raises(SystemExit) as stop:
        avrecog(foreign, *fuse)
    assert stop.value.code == 2
    assert "tune on val: " in (told := capsys.readouterr().err)
    assert "MMAction2's files of val need --split val" in told
    avrecog(foreign, *fuse, "--split", "val", "--kind", "probabilities", "logits")
    told = capsys.readouterr().out
    assert "b.pkl: 20 clips, 3 classes, logits (as stated)" in told
    assert "the best of 5 methods for top1 on val" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rules", "mmaction2", "--split", "val"), "--rules mmaction2 knows --scores"),
        (("--apply-softmax",), "add --rules mmaction2, or drop it"),
        (
            ("--coefficients", 1, 1, "--kind", "logits", "logits", "logits"),
            "--kind: expected one for all or one for each",
        ),
        (("--coefficients", 1, "--rules", "mmaction2"), "--coefficients: expected 2, one a score file, got 1"),
    ],
)
def test_options_of_fuse_that_do_not_fit_are_refused(foreign, options, message, capsys):
    with pytest.raises(SystemExit):
        avrecog(foreign, "fuse", "--scores", "a.pkl", "b.pkl", "--datalist", "list.txt", *options)
    assert message in capsys.readouterr().err


def test_options_of_score_files_are_not_for_checkpoints(tmp_path, capsys):
    with pytest.raises(SystemExit):
        avrecog(tmp_path, "convert", "theirs.pth", "ours.ckpt", "--kind", "logits")
    assert "theirs.pth: checkpoints take --labels, --sampling, --frames and --alpha alone" in capsys.readouterr().err


def test_a_checkpoint_is_converted_both_ways(finished_project, tmp_path, capsys):
    ours = finished_project / "models/audio/last.ckpt"
    with pytest.raises(SystemExit):  # its ResNet-10 is none of MMAction2's
        avrecog(tmp_path, "convert", ours, "theirs.pth")
    assert "MMAction2 has no network like ResNet10 (width 8); nothing is written" in capsys.readouterr().err
    checkpoint = small_checkpoint(tmp_path, depth=18, width=4)
    avrecog(tmp_path, "convert", checkpoint, "theirs.pth")
    assert "-> theirs.pth (MMAction2)" in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("run\njump\nsit\n")
    avrecog(tmp_path, "convert", "theirs.pth", "back.ckpt", "--labels", "names.txt", "--sampling", "mmaction2-1.x")
    assert "crops lie by mmaction2-1.x" in capsys.readouterr().out
    given, back = load_model(checkpoint), load_model(tmp_path / "back.ckpt")
    assert back.classes == ["run", "jump", "sit"]
    assert back.config.sampling == "mmaction2-1.x"
    for name, value in given.network.state_dict().items():
        assert torch.equal(back.network.state_dict()[name], value), name


def test_sampling_is_not_for_scores(tmp_path, capsys):
    with pytest.raises(SystemExit):
        avrecog(tmp_path, "convert", "a.pkl", "a.npz", "--sampling", "time")
    assert "a.pkl: --sampling, --frames and --alpha are of checkpoints, and these are scores" in capsys.readouterr().err


def test_options_of_foreign_files_are_not_for_ours(foreign, capsys):
    avrecog(foreign, "convert", "a.pkl", "a.npz", "--datalist", "list.txt", "--model", "r18")
    assert capsys.readouterr().out.endswith("-> a.npz (model r18, split test)\n")
    with pytest.raises(SystemExit):
        avrecog(foreign, "fuse", "--scores", "a.npz", "--coefficients", 1, "--split", "val")
    assert "drop them, as .npz files say it themselves" in capsys.readouterr().err
    avrecog(foreign, "fuse", "--scores", "a.npz", "b.pkl", "--coefficients", 1, 1, "--datalist", "list.txt")
    assert "r18 0.5 + b 0.5 on test" in capsys.readouterr().out
    avrecog(foreign, "fuse", "--scores", "a.npz", "b.pkl", "--rules", "mmaction2")
    from_npz = capsys.readouterr().out
    avrecog(foreign, "fuse", "--scores", "a.pkl", "b.pkl", "--rules", "mmaction2", "--datalist", "list.txt")
    assert capsys.readouterr().out == from_npz


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (projects.ROOT / "recipes").glob("*.yaml") if path.stem != "demo_clips")
)
def test_every_recipe_makes_a_valid_params_yaml(workshop, name, monkeypatch):
    monkeypatch.setattr(device, "lacking_to_compile", lambda device: None)  # this machine's compiler is no matter
    annotation = workshop / "clips.csv"
    annotation.write_text("path,label\n")
    if name.startswith("kinetics"):  # a folder of lists
        annotation = workshop / "lists"
        annotation.mkdir()
    avrecog(workshop, "recipe", name, "--annotation", annotation)
    with projects.inside(workshop):
        assert params_findings()[0] == []
