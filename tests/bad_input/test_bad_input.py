"""Every line of docs/errors.md: the stage says it, exits with 1 and shows no traceback, or takes what it is given."""

import shutil
import sys
from unittest import mock

import pytest

import projects
from avrecog import cli
from avrecog.config import load_params
from avrecog.training.settings import TrainConfig
from bad_input.cases import ARTEFACTS, FOREIGN, MEDIA, PARAMS, PATHS, TABLES
from bad_input.table import ROOT, table
from clips import make_tone, write_annotation
from other_writer import other_writer

SMALL = {
    "data": {"source": "csv", "annotation": "clips.csv", "max_skipped": 0.0},
    "audio": {"logmel": {"n_mels": 32}},
    "video": {"fps": 5.0, "height": 36, "width": 36},
}


def refused(folder, capsys, stage, message, model="", exit_code=1):
    """Run a stage that must refuse."""
    with pytest.raises(SystemExit) as stop:
        projects.run(folder, stage, model)
    told = capsys.readouterr().err
    assert stop.value.code == exit_code
    assert message in told
    assert "Traceback" not in told


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Rows of 16 good clips of two classes."""
    folder = tmp_path_factory.mktemp("tones")
    rows = []
    for index in range(16):
        path = make_tone(folder / f"tone {index:02}.wav", 300.0 + index if index % 2 else 900.0 + index).path
        rows.append({"path": str(path), "label": ("high", "low")[index % 2]})
    return rows


@pytest.fixture
def folder(tmp_path, tracking_template):
    shutil.copytree(tracking_template, tmp_path / "mlruns")
    return tmp_path


@pytest.mark.parametrize("case", MEDIA, ids=lambda case: case.what)
def test_media(case, tones, folder, capsys):
    (folder / "odd").mkdir()
    odd = {"path": str(case.make(folder / "odd")), "label": "odd", "split": "train"}
    splits = ("train", "train", "val", "test")
    write_annotation(
        folder / "clips.csv", [{**row, "split": splits[index // 2 % 4]} for index, row in enumerate(tones)] + [odd]
    )
    projects.write_params(folder, SMALL)
    if case.stage == "extract":
        projects.run(folder, "prepare")
    if case.message is not None:
        refused(folder, capsys, case.stage, case.message)
        return
    projects.run(folder, "extract")
    case.check(folder / "data")


@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.what)
def test_annotations(case, tones, folder, capsys, caplog):
    if case.text is not None:
        (folder / "clips.csv").write_bytes(case.text(tones))
    else:
        write_annotation(folder / "clips.csv", case.rows(tones))
    projects.write_params(folder, SMALL, {"data": dict(case.data or {})})
    if case.message is not None:
        refused(folder, capsys, "prepare", case.message, exit_code=case.exit_code)
        return
    projects.run(folder, "prepare")
    case.check(folder / "data")
    if case.then.startswith("says so: "):
        assert case.then.removeprefix("says so: ") in caplog.text


@pytest.mark.parametrize("case", PATHS, ids=lambda case: case.what)
def test_paths_of_own_clips(case, tones, tmp_path, capsys):
    for name in ("dvc.yaml", "recipes/default.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(projects.ROOT / name, tmp_path / name)
    shutil.copy(tmp_path / "recipes/default.yaml", tmp_path / "params.yaml")
    with projects.inside(tmp_path):
        arguments = ["avrecog", "data", *map(str, case.make(tmp_path, tones))]
        with mock.patch.object(sys, "argv", arguments), pytest.raises(SystemExit) as stop:
            cli.main()
    told = capsys.readouterr().err
    assert stop.value.code == case.exit_code
    assert case.message in told
    assert "Traceback" not in told
    assert (tmp_path / "params.yaml").read_bytes() == (tmp_path / "recipes/default.yaml").read_bytes()


@pytest.mark.parametrize("case", PARAMS, ids=lambda case: case.what)
def test_params(case, project, capsys):
    if case.change is not None:
        projects.write_params(project, projects.SMALL, case.change)
    else:
        text = (projects.ROOT / "recipes/default.yaml").read_text()
        before, after = case.text
        assert before in text
        (project / "params.yaml").write_text(text.replace(before, after, 1))
    if case.message is not None:
        refused(project, capsys, case.stage, case.message, "rgb" if "64 x 64" in case.message else "audio")
        assert not (project / "run").exists()
        return
    assert load_params(project / "params.yaml", train=TrainConfig).train.weight_decay == 0.001


@pytest.mark.parametrize("case", ARTEFACTS, ids=lambda case: case.what)
def test_artefacts(case, project, capsys):
    case.damage(project)
    if "is writing it" in case.message:
        with other_writer(project / "models/audio") as process:
            refused(project, capsys, case.stage, f"process {process.pid} {case.message}", case.model)
        return
    refused(project, capsys, case.stage, case.message, case.model)
    assert not (project / "run").exists()


@pytest.mark.parametrize("case", FOREIGN, ids=lambda case: case.what)
def test_foreign_scores(case, tmp_path, capsys):
    projects.write_params(tmp_path)
    path = tmp_path / case.name
    path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
    files = ["--scores", case.name] if case.stage == "avrecog fuse" else [case.name, "ours.npz"]
    listed = []
    if case.datalist is not None:
        (tmp_path / "list.txt").write_text(case.datalist)
        listed = ["--datalist", "list.txt"]
    arguments = [*case.stage.split(), *files, *listed, *case.options]
    with projects.inside(tmp_path), mock.patch.object(sys, "argv", arguments), pytest.raises(SystemExit) as stop:
        cli.main()
    told = capsys.readouterr().err
    assert stop.value.code == case.exit_code
    assert case.message in told
    assert "Traceback" not in told
    assert not (tmp_path / "ours.npz").exists()


def test_the_page_of_errors_is_what_the_tests_say():
    assert (ROOT / "docs/errors.md").read_text() == table(), "run `make errors`"
