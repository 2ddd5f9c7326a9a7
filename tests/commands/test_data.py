"""The command `avrecog data`: what it writes into params.yaml, and what it says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from ruamel.yaml import YAML

import chaos
import projects
from avrecog import cli
from avrecog.annotations.prepare import prepare
from avrecog.annotations.settings import DataConfig
from avrecog.commands import data
from avrecog.config import load_params
from avrecog.manifest import read_manifest, read_splits
from clips import make_kinetics, make_tone, make_video, write_annotation

NAMES = [
    "clips (1)", "José", "a,b", "o'clock", "x=1", "a#1", 'say "hi"', "${data.source}", "$HOME", "{a}", "[b]", "~t",
    "-dash", " blanks ", "a:b", "a: b", "*s", "?q", "!t", "&a", "%41", "@x", "a\\b", "null", "1.5", "yes", "a;b",
    "a|b", "<a>", "`a`", "s3:", "http:", "😀", "#", "'", "|", ">", "- a", "clips  two", "Jose\u0301", "x" * 200 + " y",
]  # fmt: skip
# of them, what DVC, YAML, an address or a shell might take for something else
WATCHED = [
    "clips (1)", "José", "a,b", "o'clock", "x=1", "a#1", "${data.source}", "{a}", "~t", "-dash", "*s", "s3:",
]  # fmt: skip


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Path:
    """A tree of classes high and low, 8 tones each."""
    folder = tmp_path_factory.mktemp("tones")
    for index in range(8):
        make_tone(folder / f"high/{index}.wav", 900.0 + index, 0.2)
        make_tone(folder / f"low/{index}.wav", 300.0 + index, 0.2)
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A tree of classes high and low, 4 films each, with sound."""
    folder = tmp_path_factory.mktemp("films")
    for index in range(4):
        make_video(folder / f"high/{index}.mp4", 5 + index, frequency_hz=900.0)
        make_video(folder / f"low/{index}.mp4", 5 + index, frequency_hz=300.0)
    return folder


@pytest.fixture(scope="module")
def silent(tmp_path_factory) -> Path:
    """A tree of classes high and low, 4 films each, without sound."""
    folder = tmp_path_factory.mktemp("silent")
    for index in range(4):
        make_video(folder / f"high/{index}.mp4", 5 + index, with_audio=False)
        make_video(folder / f"low/{index}.mp4", 10 + index, with_audio=False)
    return folder


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder with what the command needs of a project: params.yaml as shipped."""
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    for name in ("dvc.yaml", "recipes/default.yaml"):
        shutil.copy(projects.ROOT / name, folder / name)
    shutil.copy(folder / "recipes/default.yaml", folder / "params.yaml")
    return folder


def rows_of(tree: Path, **cells: object) -> list[dict[str, object]]:
    return [{"path": path, "label": path.parent.name, **cells} for path in sorted(tree.glob("*/*"))]


def avrecog(folder: Path, *arguments: str | Path) -> None:
    with projects.inside(folder), mock.patch.object(sys, "argv", ["avrecog", *map(str, arguments)]):
        cli.main()


def params(folder: Path) -> dict:
    return YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8"))


def prepared(folder: Path) -> list:
    """The manifest that stage prepare makes of params.yaml."""
    with projects.inside(folder):
        prepare(load_params(data=DataConfig).data, folder / "data")
    return read_manifest(folder / "data/manifest.csv")


@pytest.mark.parametrize("name", NAMES)
def test_whatever_the_path_it_stands_in_params_yaml(name, project, tmp_path, tones, monkeypatch):
    monkeypatch.setattr(data, "MAX_PROBED", 2)
    annotation = write_annotation(tmp_path / name / "clips.csv", rows_of(tones))
    avrecog(project, "data", annotation)
    assert params(project)["data"]["annotation"] == str(annotation)
    text = (project / "params.yaml").read_text(encoding="utf-8")
    assert "# stage prepare (src/avrecog/annotations/settings.py)" in text
    assert text.count("\n") > 90
    assert len(prepared(project)) == 16


def dvc_prepares(project: Path, path: str | Path) -> None:
    """`avrecog data` and `dvc repro prepare` must take the path, and DVC must see no change afterwards."""
    avrecog(project, "data", path)
    chaos.dvc(project, "repro", "prepare")
    assert len(read_manifest(project / "data/manifest.csv")) == 16
    assert "up to date" in chaos.dvc(project, "status", "prepare")


def test_dvc_takes_a_path_with_everything_in_it(tmp_path, tones):
    chaos.make_project(tmp_path / "project")
    everything = " -a (1) [b] {c} ${d} $e José,f=1 #2 'g' \"h\" ~i: \\j & k; *l? %41 @m !n <o> `p` |"
    dvc_prepares(tmp_path / "project", write_annotation(tmp_path / everything / "clips.csv", rows_of(tones)))


@pytest.mark.slow
def test_dvc_takes_every_path_of_a_csv_or_a_tree_elsewhere_or_below_the_project(tmp_path, tones):
    project = tmp_path / "project"
    chaos.make_project(project)
    for index, name in enumerate(WATCHED):
        if index % 3 == 0:
            dvc_prepares(project, write_annotation(tmp_path / name / "clips.csv", rows_of(tones)))
        elif index % 3 == 1:
            write_annotation(project / name / "clips.csv", rows_of(tones))
            dvc_prepares(project, f"./{name}/clips.csv")
        else:
            shutil.copytree(tones, project / name)
            dvc_prepares(project, f"./{name}")


def test_a_relative_path_stays_so_below_the_project_and_becomes_absolute_elsewhere(project, tmp_path, tones):
    shutil.copytree(tones, project / "my clips")
    shutil.copytree(tones, project / "-dash")
    shutil.copytree(tones, project / "s3:")
    shutil.copytree(tones, tmp_path / "beside")
    link = project / "link"
    link.symlink_to(tmp_path / "beside")
    for given, expected in (
        ("my clips", "my clips"),
        ("./my clips/", "my clips"),
        ("./-dash", "-dash"),
        ("link", "link"),
        ("../beside", str(tmp_path / "beside")),
        ("s3:", str(project / "s3:")),  # DVC would take it for an address
        (str(project / "my clips"), str(project / "my clips")),
    ):
        avrecog(project, "data", given)
        assert params(project)["data"]["annotation"] == expected
        assert len(prepared(project)) == 16
    avrecog(project, "data", "--", "-dash")
    assert params(project)["data"]["annotation"] == "-dash"


def test_clips_without_a_picture_take_the_models_and_the_section_with_them(project, tones, capsys):
    avrecog(project, "data", tones)
    out = capsys.readouterr().out
    assert f"{tones}: a tree of class folders; 16 clips of 2 classes, 8 a class, in 16 files\n" in out
    assert "16 of 16 clips have sound, 0 have a picture; 0.00089 hours, 0.2 s a clip\nsplits: " in out
    assert "set pipeline.models: [audio], since no clip has a picture\nset video: null, since no clip has a p" in out
    assert "+  models: [audio] " in out
    assert "-  annotation: recipes/demo_clips.yaml\n" in out
    assert out.endswith("next: dvc repro\n")
    after = params(project)
    assert (after["data"]["source"], after["pipeline"]["models"], after["video"]) == ("folder", ["audio"], None)
    avrecog(project, "data", tones)
    assert "params.yaml says so already" in capsys.readouterr().out
    assert params(project) == after


def test_clips_without_sound_take_the_others_with_them_and_bring_back_what_they_need(project, tones, silent, capsys):
    avrecog(project, "data", tones)
    capsys.readouterr()
    avrecog(project, "data", silent)
    out = capsys.readouterr().out
    assert "0 of 8 clips have sound, 8 have a picture" in out
    assert "set pipeline.models: [rgb], since no clip has sound" in out
    assert "set audio: null, since no clip has sound" in out
    assert "set video as in recipes/default.yaml, since rgb needs it" in out
    after = params(project)
    assert (after["audio"], after["pipeline"]["models"]) == (None, ["rgb"])
    assert after["video"] == YAML(typ="safe").load((project / "recipes/default.yaml").read_text())["video"]


def test_what_no_model_uses_is_told_and_left_to_the_person(project, tones, films, capsys):
    avrecog(project, "data", films)
    out = capsys.readouterr().out
    assert "no model of pipeline.models" not in out
    assert params(project)["pipeline"]["models"] == ["audio", "rgb"]
    avrecog(project, "data", tones)
    avrecog(project, "data", films)
    out = capsys.readouterr().out
    assert "advice: no model of pipeline.models uses a picture, which 8 clips have; `avrecog recipe default`" in out
    assert params(project)["pipeline"]["models"] == ["audio"]
    avrecog(project, "recipe", "default")
    avrecog(project, "data", films)
    assert params(project)["pipeline"]["models"] == ["audio", "rgb"]


def test_a_class_whose_clips_all_lack_a_modality_is_told(project, tmp_path, tones, films, capsys):
    rows = [*rows_of(films)[:4], *rows_of(tones)[8:]]
    avrecog(project, "data", write_annotation(tmp_path / "clips.csv", rows))
    assert "advice: no clip of low has a picture; a model of it alone can't tell them" in capsys.readouterr().out


def test_unreadable_clips_are_told_with_the_limit_that_lets_them_pass(project, tmp_path, tones, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    odd = [{"path": "broken.mp4", "label": "low"}, {"path": "gone.wav", "label": "low"}]
    avrecog(project, "data", write_annotation(tmp_path / "clips.csv", [*rows_of(tones), *odd]))
    out = capsys.readouterr().out
    assert "2 clips can't be read:\n  clips.csv, line 18: " in out
    assert f"  clips.csv, line 19: {tmp_path}/gone.wav: no such file" in out
    assert "next: repair or drop what can't be read, or set data.max_skipped: 0.112; then dvc repro" in out
    yaml = YAML()
    document = yaml.load((project / "params.yaml").read_text())
    document["data"]["max_skipped"] = 0.112
    with (project / "params.yaml").open("w") as file:
        yaml.dump(document, file)
    assert len(prepared(project)) == 16
    avrecog(project, "data", tmp_path / "clips.csv")
    assert "data.max_skipped: 0.112" not in capsys.readouterr().out


def test_of_many_files_a_sample_is_looked_at_and_that_is_said(project, tones, capsys, monkeypatch):
    monkeypatch.setattr(data, "MAX_PROBED", 5)
    avrecog(project, "data", tones)
    out = capsys.readouterr().out
    assert (
        "16 clips of 2 classes, 8 a class, in 16 files\nof the files 5 were looked at, drawn by chance:\n5 of 5 " in out
    )
    assert "about 0.00089 hours" in out
    assert "set video: null, since no clip looked at has a picture" in out


def test_the_splits_that_it_tells_are_those_of_stage_prepare(project, tmp_path, tones, capsys, caplog):
    rows = [{**row, "group": f"speaker {index % 5}"} for index, row in enumerate(rows_of(tones))]
    avrecog(project, "data", write_annotation(tmp_path / "clips.csv", rows))
    assert "can't be had with whole groups" in caplog.text
    clips = prepared(project)
    splits = list(read_splits(project / "data/splits.csv").values())
    sizes = ", ".join(f"{splits.count(name)} {name}" for name in ("train", "val", "test"))
    assert f"splits: {sizes}\n" in capsys.readouterr().out
    assert len({clip.group for clip in clips}) == 5


def test_the_sound_beside_its_own_film_is_counted_to_its_side_as_stage_prepare_does(project, tmp_path, tones, capsys):
    shutil.copytree(tones, tmp_path / "clips")
    for index, path in enumerate(sorted((tmp_path / "clips").glob("*/*"))):
        make_tone(path.with_suffix(".flac"), 2000.0 + 20 * index)
    avrecog(project, "data", tmp_path / "clips")
    clips = prepared(project)
    splits = list(read_splits(project / "data/splits.csv").values())
    sizes = ", ".join(f"{splits.count(name)} {name}" for name in ("train", "val", "test"))
    assert f"splits: {sizes}\n" in capsys.readouterr().out
    assert len({clip.group for clip in clips}) == len(clips) / 2


def test_few_clips_uneven_classes_and_missing_groups_are_advised_about_and_folds_named(
    project, tmp_path, tones, capsys
):
    avrecog(project, "data", tones)
    out = capsys.readouterr().out
    assert "advice: below 100 clips a class one test split is much luck" in out
    assert "advice: clips of one recording or speaker must not stand in train and in test" in out
    assert "uneven" not in out
    rows = [{**row, "start": piece / 20, "end": piece / 20 + 0.05} for row in rows_of(tones)[:8] for piece in range(4)]
    rows = [
        {**row, "fold": index % 3, "group": f"g{index}"} for index, row in enumerate([*rows, *rows_of(tones)[8:10]])
    ]
    avrecog(project, "data", write_annotation(tmp_path / "clips.csv", rows))
    out = capsys.readouterr().out
    assert "34 clips of 2 classes, 2 (low) to 32 (high) a class, in 10 files" in out
    assert "advice: there is a column fold: `dvc exp run --queue -S data.test_fold=0,1,2`" in out
    assert "advice: the classes are uneven: look at mean_class_accuracy" in out
    assert "below 100" not in out
    assert "must not stand" not in out


def test_a_test_fold_that_the_clips_lack_is_taken_back(project, tmp_path, tones, capsys):
    text = (project / "params.yaml").read_text().replace("test_fold: null", "test_fold: 1")
    (project / "params.yaml").write_text(text)
    folds = [{**row, "fold": index % 4} for index, row in enumerate(rows_of(tones))]
    avrecog(project, "data", write_annotation(tmp_path / "folds.csv", folds))
    assert params(project)["data"]["test_fold"] == 1
    avrecog(project, "data", tones)
    assert "set data.test_fold: null, since no clip has fold 1" in capsys.readouterr().out
    assert params(project)["data"]["test_fold"] is None
    assert len(prepared(project)) == 16


def test_a_tree_of_splits_and_classes_keeps_its_splits(project, tmp_path, tones, capsys):
    for index, name in enumerate(("train", "val", "test")):
        for path in sorted(tones.glob("*/*"))[index::3]:
            (tmp_path / "tree" / name / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "tree" / name / path.parent.name)
    avrecog(project, "data", tmp_path / "tree")
    assert "splits: 6 train, 5 val, 5 test" in capsys.readouterr().out
    assert len(prepared(project)) == 16


def test_a_tree_stays_one_with_lists_of_its_files_beside_the_classes(project, tmp_path, tones):
    shutil.copytree(tones, tmp_path / "tree")
    (tmp_path / "tree/labels.txt").write_text("high\nlow\n")
    (tmp_path / "tree/train.txt").write_text("high/0.wav 0\n")
    avrecog(project, "data", tmp_path / "tree")
    assert params(project)["data"]["source"] == "folder"


def test_kinetics_lists_are_found_and_their_media_told(project, tmp_path, capsys):
    made = make_kinetics(tmp_path / "kinetics")
    folder = made.lists.parent
    avrecog(project, "data", made.lists, "--media", folder / "videos_train", folder / "videos_val")
    out = capsys.readouterr().out
    assert f"{made.lists}: Kinetics' lists; " in out
    assert "2 clips can't be read:" in out
    after = params(project)["data"]
    assert (after["source"], after["annotation"]) == ("kinetics", str(made.lists))
    assert {key: value for key, value in after["kinetics"].items() if value is not None} == made.section
    text = (project / "params.yaml").read_text().replace("max_skipped: 0.01", "max_skipped: 0.1")
    (project / "params.yaml").write_text(text)
    assert len(prepared(project)) == 30
    write_annotation(tmp_path / "clips.csv", rows_of(folder / "videos_train", group="")[:15])
    avrecog(project, "data", tmp_path / "clips.csv")
    assert params(project)["data"]["kinetics"] is None


def test_after_a_kinetics_recipe_its_schedule_stays(project, tmp_path):
    shutil.copy(projects.ROOT / "recipes/kinetics400_audio_r18.yaml", project / "recipes")
    made = make_kinetics(tmp_path / "kinetics", n_train=4, n_test=1)
    avrecog(project, "recipe", "kinetics400_audio_r18", "--annotation", made.lists)
    before = params(project)
    folder = made.lists.parent
    avrecog(project, "data", made.lists, "--media", folder / "videos_train", folder / "videos_val")
    after = params(project)
    assert after["data"].pop("kinetics")["label_map"] == "label_map.txt"
    assert before["data"].pop("kinetics")["label_map"] == "label_map_k400.txt"
    assert after == before


def test_files_below_class_folders_are_told(project, tmp_path, tones, capsys):
    tree = shutil.copytree(tones, tmp_path / "tree")
    (tree / "low/tuesday").mkdir()
    (tree / "low/7.wav").rename(tree / "low/tuesday/7.wav")
    avrecog(project, "data", tree)
    out = capsys.readouterr().out
    assert "15 clips of 2 classes" in out
    assert "1 files lie below class folders, in folders of their own, and will be no clips" in out
    assert "(low/tuesday/7.wav)" in out


def test_a_start_beyond_the_end_of_its_file_is_told_with_what_to_do_next(project, tmp_path, tones, capsys):
    rows = rows_of(tones)
    rows[0] |= {"start": 30, "end": 31}
    avrecog(project, "data", write_annotation(tmp_path / "clips.csv", rows))
    out = capsys.readouterr().out
    assert "1 clips can't be read:" in out
    assert "starts at 30 s, but the file lasts 0.2 s" in out
    assert "next: repair or drop what can't be read, or set data.max_skipped: 0.063; then dvc repro" in out


def test_a_tree_that_dvc_cannot_hash_is_refused_with_the_cure(project, tmp_path, tones, capsys):
    tree = shutil.copytree(tones, tmp_path / "tree")
    os.rename(tree / "low/0.wav", os.fsencode(tree / "low") + b"/caf\xe9.wav")
    with pytest.raises(SystemExit):
        avrecog(project, "data", tree)
    message = capsys.readouterr().err
    assert r"1 names in" in message
    assert r"are no UTF-8, and DVC can't hash the folder then (low/caf\xe9.wav); rename them" in message


def test_outside_of_a_project_it_says_where_to_run_it(tmp_path, tones, capsys):
    with pytest.raises(SystemExit) as stop:
        avrecog(tmp_path, "data", tones)
    assert stop.value.code == 1
    assert (
        "params.yaml: can't be read (No such file or directory); run from the project's root" in capsys.readouterr().err
    )


def test_a_terminal_that_lacks_the_letters_sees_them_escaped(project, tmp_path, tones):
    annotation = write_annotation(tmp_path / "José" / "clips.csv", rows_of(tones))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(projects.ROOT / "src")}
    command = [sys.executable, "-m", "avrecog.cli", "data", str(annotation)]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert r"Jos\xe9/clips.csv: a CSV; 16 clips" in done.stdout
    assert params(project)["data"]["annotation"] == str(annotation)
