import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog.errors import ManifestError
from avrecog.manifest import (
    COLUMNS,
    Clip,
    media_path,
    read_labels,
    read_manifest,
    read_splits,
    write_manifest,
    write_splits,
)

CLIP = Clip("a", "media/a.mp4", "dog", "a", None, 0.0, 1.0, 1.0, 25, 25.0, 16_000, True, True)
HEADER = ",".join(COLUMNS)
ROW = "a,media/a.mp4,dog,a,,0.0,1.0,1.0,25,25.0,16000,true,true,false,"

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(",\"'\n; "), min_size=1)
times = st.floats(0, 1e6).map(lambda second: round(second, 6))


@st.composite
def clips(draw):
    start_s = draw(times)
    return Clip(
        clip_id=draw(words),
        path=draw(words),
        label=draw(words),
        group=draw(words),
        fold=draw(st.none() | st.integers(0, 9)),
        start_s=start_s,
        stop_s=draw(st.none() | st.floats(0.01, 1e6).map(lambda seconds: start_s + seconds)),
        duration_s=draw(st.floats(0.01, 1e6)),
        n_frames=draw(st.integers(0, 10**9)),
        fps=draw(times),
        sample_rate=draw(st.sampled_from([0, 16_000, 44_100])),
        has_audio=draw(st.booleans()),
        has_video=draw(st.booleans()),
        duration_estimated=draw(st.booleans()),
        digest=draw(st.sampled_from(["", "0" * 64])),
    )


@given(st.lists(clips(), max_size=4, unique_by=lambda clip: clip.clip_id))
def test_a_manifest_brings_back_the_clips_that_were_written(tmp_path_factory, written):
    path = tmp_path_factory.getbasetemp() / "manifest.csv"
    write_manifest(path, written)
    assert read_manifest(path) == written


@given(st.dictionaries(words, st.sampled_from(["train", "val", "test"]), max_size=5))
def test_splits_come_back_in_their_order(tmp_path_factory, splits):
    path = tmp_path_factory.getbasetemp() / "splits.csv"
    write_splits(path, splits)
    assert list(read_splits(path).items()) == list(splits.items())


def test_the_written_form_is_plain_csv(tmp_path):
    other = dataclasses.replace(CLIP, clip_id="b", fold=3, has_audio=False, stop_s=None)
    other = dataclasses.replace(other, duration_estimated=True, digest="00ff")
    write_manifest(tmp_path / "manifest.csv", [CLIP, other])
    assert (tmp_path / "manifest.csv").read_text() == (
        f"{HEADER}\n{ROW}\nb,media/a.mp4,dog,a,3,0.0,,1.0,25,25.0,16000,false,true,true,00ff\n"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("true,true", "true"), "line 2: .*expected true or false, got ''"),
        (ROW.replace("true,true", "True,true"), "line 2: expected true or false, got 'True'"),
        (ROW.replace(",25,", ",25.5,"), "line 2: invalid literal for int"),
        (ROW.replace(",0.0,", ",x,"), "line 2: could not convert string to float: 'x'; run `dvc repro -f prepare`"),
        (ROW.replace(",0.0,", ",nan,"), "line 2: expected 0 <= start_s < stop_s, got nan and 1.0"),
        (ROW.replace(",0.0,1.0,", ",0.0,nan,"), "got 0.0 and nan"),
        (ROW.replace(",0.0,1.0,", ",0.0,inf,"), "got 0.0 and inf"),
        (ROW.replace(",0.0,1.0,", ",-1.0,1.0,"), "got -1.0 and 1.0"),
        (ROW.replace(",0.0,1.0,", ",1.0,1.0,"), "got 1.0 and 1.0"),
        (ROW.replace(",0.0,1.0,1.0,", ",0.0,,0.0,"), "expected duration_s above 0, got 0.0"),
        (ROW.replace(",0.0,1.0,1.0,", ",0.0,,,"), "could not convert string to float: ''"),
        (ROW.removesuffix(","), "line 2: expected a digest, got no cell"),
        (f"{ROW}\n{ROW}", "clip_id 'a' stands twice"),
        ("a,b", "line 2: "),
    ],
)
def test_a_wrong_row_is_told_with_its_line(tmp_path, row, message):
    path = tmp_path / "manifest.csv"
    path.write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(ManifestError, match=f"manifest.csv.*{message}"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "column clip_id is missing; run `dvc repro -f prepare`"),
        (HEADER.replace(",fps", "").encode(), "column fps is missing"),
        (b"\xff\xfe", "not a CSV file in UTF-8"),
        (f"{HEADER}\n{'x' * 200_000}".encode(), "not a CSV file in UTF-8: field larger"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content, message):
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=f"manifest.csv: {message}"):
        read_manifest(path)


def test_a_missing_file_names_the_stage_that_makes_it(tmp_path):
    for read in (read_manifest, read_splits, read_labels):
        with pytest.raises(ManifestError, match="No such file or directory.*; run `dvc repro prepare`"):
            read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,train\nb,dev\n", "line 3: expected split train, val or test, got 'dev'"),
        ("a,train\na,val\n", "clip_id 'a' stands twice"),
        ("a\n", "line 2: expected split train, val or test, got None"),
    ],
)
def test_wrong_splits_are_refused(tmp_path, rows, message):
    path = tmp_path / "splits.csv"
    path.write_text(f"clip_id,split\n{rows}")
    with pytest.raises(ManifestError, match=message):
        read_splits(path)


def test_labels_are_read_in_their_order(tmp_path):
    (tmp_path / "labels.txt").write_text("dog\ncat bird\n")
    assert read_labels(tmp_path / "labels.txt") == ["dog", "cat bird"]


@pytest.mark.parametrize("content", ["", "dog\ncat\ndog\n"])
def test_no_labels_and_doubled_labels_are_refused(tmp_path, content):
    (tmp_path / "labels.txt").write_text(content)
    with pytest.raises(ManifestError, match="expected one class name a line, each once"):
        read_labels(tmp_path / "labels.txt")


def test_media_are_found_from_the_working_folder_then_from_the_project(tmp_path, monkeypatch):
    project, experiment = tmp_path / "project", tmp_path / "experiment"
    for folder in (project, experiment):
        folder.mkdir()
    (project / "a.wav").touch()
    (project / "b.wav").touch()
    (experiment / "b.wav").touch()
    monkeypatch.chdir(experiment)
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert media_path("a.wav") == project / "a.wav"
    assert os.path.samefile(media_path("b.wav"), experiment / "b.wav")
    assert media_path("/somewhere/c.wav").as_posix() == "/somewhere/c.wav"
    monkeypatch.delenv("DVC_ROOT")
    assert media_path("a.wav").as_posix() == "a.wav"
