"""What was exported is kept, whoever was first, and nothing of it is trusted that isn't whole."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import clips
import projects
from avrecog.commands.predict import predict_files
from avrecog.errors import CheckpointError
from avrecog.inference import engines, export_cache
from avrecog.inference.engines import ENGINES
from avrecog.inference.trained_model import load_model
from checkpoint import small_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint in a project of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "dvc.yaml").touch()
    return small_checkpoint(tmp_path, depth=10, width=8, mel_frames=32)


@pytest.fixture
def made(monkeypatch):
    """The exports that were made, one entry each."""
    calls = []

    def to_onnx(*args):
        calls.append(args)
        return real(*args)

    real = engines.to_onnx
    monkeypatch.setattr(engines, "to_onnx", to_onnx)
    return calls


def kept():
    return sorted(Path(".avrecog/exports").glob("*.onnx"))


def outputs(network, model):
    with torch.inference_mode():
        return network(*model.example(3, CPU)).numpy()


def test_an_export_is_made_once_whoever_is_first(checkpoint, made, tmp_path):
    model = load_model(checkpoint)
    first = outputs(ENGINES["onnxruntime"].start(model, CPU), model)
    again = outputs(ENGINES["onnxruntime"].start(load_model(checkpoint), CPU), model)
    np.testing.assert_array_equal(first, again)
    tone = clips.make_tone(tmp_path / "a.wav", duration_s=2.0).path
    (onnx_text,) = predict_files([tone], [checkpoint], None, 3, engine="onnxruntime")
    assert (len(made), len(kept())) == (1, 1)
    (plain_text,) = predict_files([tone], [checkpoint], None, 3)
    assert onnx_text == plain_text


def test_other_weights_and_other_versions_are_other_exports(checkpoint, made, monkeypatch, tmp_path):
    ENGINES["onnxruntime"].start(load_model(checkpoint), CPU)
    other = small_checkpoint(tmp_path, depth=10, width=8, mel_frames=32, weights={"fc.bias": torch.ones(3)})
    ENGINES["onnxruntime"].start(load_model(other), CPU)
    assert len(made) == 2
    monkeypatch.setattr(export_cache, "_version", lambda library: f"another {library}")
    ENGINES["onnxruntime"].start(load_model(other), CPU)
    assert (len(made), len(kept())) == (3, 3)


def signed(rest):
    """A file whose checksum is right."""
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def other_head(**changes):
    """What is said of the model, changed under a right checksum; None: not said."""

    def change(whole):
        _, head, onnx = whole.split(b"\n", 2)
        said = {key: value for key, value in {**json.loads(head), **changes}.items() if value is not None}
        return signed(json.dumps(said).encode() + b"\n" + onnx)

    return change


DAMAGES = {
    "cut off": lambda whole: whole[:-1],
    "changed": lambda whole: whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
    "head changed": lambda whole: whole.replace(b'"class 1"', b'"glass 1"'),
    "empty": lambda whole: b"",
    "no head": lambda whole: whole[5:],
    "no bytes of text": lambda whole: b"\xff" + whole[1:],
    "no input": other_head(input=None),
    "another input": other_head(input={"kind": "OddInput"}),
    "an input whose kind is no name": other_head(input={"kind": []}),
    "an input of wrong sizes": other_head(input={"kind": "LogMelInput", "mel_frames": -1}),
    "no front end": other_head(front_end={}),
    "classes that are no names": other_head(classes=[1, 2, 3]),
    "a head that is a list": lambda whole: signed(b"[]\n" + whole.split(b"\n", 2)[2]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_made_anew_and_a_line_says_so(checkpoint, made, caplog, tmp_path, damage):
    tone = clips.make_tone(tmp_path / "a.wav", duration_s=2.0).path
    expected = list(predict_files([tone], [checkpoint], None, 3, engine="onnxruntime"))
    (path,) = kept()
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert path.read_bytes() != whole
    assert list(predict_files([tone], [checkpoint], None, 3, engine="onnxruntime")) == expected
    assert len(made) == 2
    assert path.read_bytes() == whole
    assert f"{path.name}: is damaged, and is made anew" in caplog.text


def test_eight_bits_are_kept_for_each_calibration(checkpoint, made):
    model = load_model(checkpoint)
    calibration = [model.example(8, CPU)]
    first = outputs(ENGINES["onnxruntime-int8"].start(model, CPU, calibration), model)
    again = outputs(ENGINES["onnxruntime-int8"].start(model, CPU, calibration), model)
    np.testing.assert_array_equal(first, again)
    assert len(kept()) == 2  # of 32 bits, and of 8
    ENGINES["onnxruntime-int8"].start(model, CPU, [(2 * calibration[0][0],)])
    assert (len(made), len(kept())) == (1, 3)


def test_what_was_not_used_for_longest_makes_room(checkpoint, monkeypatch):
    monkeypatch.setattr(export_cache, "MAX_FILES", 2)
    said = load_model(checkpoint).description
    for trial in range(5):
        export_cache.keep_trial("", trial)  # small ones, which don't count
    for age, number in enumerate((3, 2, 1)):
        export_cache.keep_export(b"onnx", said, number)
        for path in kept():
            os.utime(path, (age - 10**6 if path == kept_path(number) else path.stat().st_mtime,) * 2)
    assert kept() == sorted(map(kept_path, (2, 1)))
    assert export_cache.read_export(2).onnx == b"onnx"  # and is the newest by that
    export_cache.keep_export(b"onnx", said, 4)
    assert kept() == sorted(map(kept_path, (2, 4)))
    assert [export_cache.tried_before(trial) for trial in range(5)] == [""] * 5


def test_what_another_process_removes_meanwhile_is_no_trouble(checkpoint, monkeypatch, caplog):
    said = load_model(checkpoint).description
    for number in (1, 2):
        export_cache.keep_export(b"onnx", said, number)
    monkeypatch.setattr(export_cache, "MAX_FILES", 1)
    gone, stat = kept_path(1), Path.stat

    def stat_of(path, **options):
        if path.name == gone.name:
            path.unlink(missing_ok=True)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", stat_of)
    export_cache.keep_export(b"onnx", said, 3)
    assert kept() == [kept_path(3)]
    assert not caplog.records


def kept_path(number):
    return export_cache._path((number,), "onnx").relative_to(Path.cwd())


def test_where_nothing_can_be_kept_a_prediction_still_comes(checkpoint, caplog, tmp_path):
    (tmp_path / ".avrecog").write_text("no folder")
    tone = clips.make_tone(tmp_path / "a.wav", duration_s=2.0).path
    (text,) = predict_files([tone], [checkpoint], None, 3, engine="onnxruntime")
    assert "class 0" in text
    assert "can't be kept" in caplog.text


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_a_checkpoint_that_may_not_be_read_is_said_to_be_that(checkpoint, monkeypatch, tmp_path, engine):
    def open_it(path, *args, **options):
        if path == checkpoint:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **options)

    real = Path.open
    monkeypatch.setattr(Path, "open", open_it)
    with pytest.raises(CheckpointError, match=r"ours\.ckpt: may not be read; give yourself the right to"):
        list(predict_files([tmp_path / "a.wav"], [checkpoint], None, 3, engine=engine))


def test_outside_of_a_project_exports_lie_in_the_users_cache(checkpoint, monkeypatch, tmp_path):
    (tmp_path / "dvc.yaml").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ENGINES["onnxruntime"].start(load_model(checkpoint), CPU)
    assert len(list((tmp_path / "cache/avrecog/exports").glob("*.onnx"))) == 1
    assert not (tmp_path / ".avrecog").exists()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ENGINES["onnxruntime"].start(load_model(checkpoint), CPU)
    assert len(list((tmp_path / "home/.cache/avrecog/exports").glob("*.onnx"))) == 1


PREDICT = """
import sys
sys.argv = ["avrecog", "predict", "--engine", "onnxruntime", "--checkpoint", *sys.argv[1:]]
from avrecog.cli import main
main()
sys.stdout.write(f"loaded: {[name for name in ('torch', 'timm', 'scipy.optimize', 'mlflow') if name in sys.modules]}")
"""


def test_nothing_but_the_classes_is_printed_and_the_second_prediction_needs_no_pytorch(checkpoint, tmp_path):
    tone = clips.make_tone(tmp_path / "a.wav", duration_s=2.0).path
    environment = {**os.environ, "PYTHONPATH": str(projects.ROOT / "src")}
    said = []
    for _ in range(2):
        command = [sys.executable, "-c", PREDICT, str(checkpoint), str(tone)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert done.stderr == ""
        said.append(done.stdout.splitlines())
    assert said[0][:-1] == said[1][:-1]
    assert len(said[0]) == 5  # the file, three classes, and what was loaded
    assert "torch" in said[0][-1]
    assert said[1][-1] == "loaded: []"


def test_git_and_dvc_know_nothing_of_what_is_kept():
    for name, line in ((".gitignore", "/.avrecog/"), (".dvcignore", "/.avrecog")):
        assert line in (projects.ROOT / name).read_text().splitlines()
