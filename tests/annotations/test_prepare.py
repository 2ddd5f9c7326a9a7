import dataclasses
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from avrecog.annotations.prepare import prepare
from avrecog.annotations.settings import DataConfig
from avrecog.annotations.sources import DataSection
from avrecog.config import validate
from avrecog.errors import ConfigError, LeakError, ManifestError
from avrecog.manifest import Clip, read_labels, read_manifest, read_splits
from avrecog.media import read_files
from avrecog.tracking.outcome import Outcome
from clips import make_labelled_folder, make_tone, make_video, write_annotation


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """a.wav and b.wav of 1 s, c.mp4 with and d.mp4 without sound, broken.mp4 that is text."""
    folder = tmp_path_factory.mktemp("media")
    for name, frequency_hz in (("a.wav", 440.0), ("b.wav", 550.0)):
        make_tone(folder / name, frequency_hz)
    make_video(folder / "c.mp4", n_frames=25)
    make_video(folder / "d.mp4", n_frames=10, fps=5.0, with_audio=False)
    (folder / "broken.mp4").write_text("not a film")
    return folder


@pytest.fixture
def run(media, tmp_path):
    """Prepare from rows of cells `path, label, ...`; the result's folder."""

    def from_rows(rows: list[dict[str, Any]], **changes: Any) -> Path:
        annotation = write_annotation(media / f"{tmp_path.name}.csv", rows)
        prepare(DataConfig(source="csv", annotation=str(annotation), **changes), tmp_path / "out")
        return tmp_path / "out"

    return from_rows


def spans(path: str = "a.wav", n: int = 10, **cells: Any) -> list[dict[str, Any]]:
    """Rows that cut one file into clips of two classes, each clip a group of its own."""
    return [
        {"path": path, "label": "xy"[i % 2], "group": f"{path}{i}", "start": i / 20, "end": i / 20 + 0.05, **cells}
        for i in range(n)
    ]


def test_an_unknown_source_is_refused_from_python_too(tmp_path):
    with pytest.raises(ConfigError, match="source: expected one of demo, csv, .*, got 'cvs'; did you mean `csv`"):
        prepare(DataConfig(source="cvs", annotation="clips.csv"), tmp_path / "out")


def test_copies_of_a_file_are_cut_to_one_side(tmp_path):
    for index in range(12):
        make_tone(tmp_path / f"{index}.wav", 300.0 + 20 * index)
        shutil.copy(tmp_path / f"{index}.wav", tmp_path / f"copy of {index}.wav")
    rows = [{"path": path.name, "label": "xy"[len(path.name) % 2]} for path in sorted(tmp_path.glob("*.wav"))]
    annotation = write_annotation(tmp_path / "clips.csv", rows)
    prepare(DataConfig(source="csv", annotation=str(annotation), val_fraction=0.3), tmp_path / "out")
    splits = read_splits(tmp_path / "out/splits.csv")
    assert set(splits.values()) == {"train", "val", "test"}
    assert all(splits[str(index)] == splits[f"copy of {index}"] for index in range(12))


def test_clips_that_overlap_in_one_file_are_the_same_clip_and_others_are_not(run):
    rows = [{**row, "split": ("train", "train", "val", "test")[i // 2 % 4]} for i, row in enumerate(spans(n=16))]
    run(rows)  # they touch, and may stand in different splits
    rows[5]["end"] = rows[6]["start"] + 0.01  # of val, into the first of test
    with pytest.raises(
        LeakError, match=r"a.wav from 0.25 s, stands in val and in test \(val: a@0.25-0.31; test: a@0.3"
    ):
        run(rows)


def test_a_folder_becomes_manifest_splits_labels_and_report(tmp_path):
    made = make_labelled_folder(tmp_path / "clips", ["low", "high"], 5)
    outcome = prepare(DataConfig(source="folder", annotation=str(tmp_path / "clips")), tmp_path / "out")
    clips = read_manifest(tmp_path / "out/manifest.csv")
    assert {clip.clip_id: clip.label for clip in clips} == {
        f"{clip.label}/{clip.path.stem}": clip.label for clip in made
    }
    assert read_labels(tmp_path / "out/labels.txt") == ["high", "low"]
    splits = read_splits(tmp_path / "out/splits.csv")
    assert list(splits) == [clip.clip_id for clip in clips]
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report == {
        "n_clips": 10,
        "n_skipped": 0,
        "n_missing": 0,
        "skipped": [],
        "ends_cut": [],
        "passed_over": [],
        "remarks": {},
        "spellings": {},
        "n_silent": 0,
        "n_pictureless": 0,
        "splits": {"train": {"high": 3, "low": 3}, "val": {"high": 1, "low": 1}, "test": {"high": 1, "low": 1}},
        "hours": round(10 / 3600, 4),
    }
    assert outcome.summary.startswith("10 clips of 2 classes: 6 train, 2 val, 2 test; 0 skipped")
    assert outcome.metrics["n_train"] == 6
    assert (tmp_path / "out/demo").is_dir()


def test_clips_of_one_file_are_one_group_however_its_path_is_written(run, media):
    ways = ("a.wav", f"../{media.name}/a.wav", media / "a.wav")
    rows = [{"path": path, "label": "x", "start": n / 5, "end": n / 5 + 0.2} for n, path in enumerate(ways)]
    clips = read_manifest(run([*spans("b.wav"), *rows]) / "manifest.csv")
    assert len({clip.group for clip in clips[10:]}) == 1


def test_what_the_files_hold_stands_in_the_manifest(run, media):
    rows = [{"path": path, "label": "x", "split": "train"} for path in ("a.wav", "c.mp4", "d.mp4")]
    rows[1:1] = spans("b.wav", 4)
    for row, split in zip(rows[1:5], ["train", "train", "val", "test"], strict=True):
        row["split"] = split
    clips = {clip.clip_id: clip for clip in read_manifest(run(rows) / "manifest.csv")}
    a, c, d = (clips[name] for name in "acd")
    path = str(media / "a.wav")
    digest = hashlib.sha256((media / "a.wav").read_bytes()).hexdigest()
    assert a == Clip("a", path, "x", path, None, 0.0, None, 1.0, 0, 0.0, 16_000, True, False, False, digest)
    assert (c.n_frames, c.fps, c.sample_rate, c.has_audio, c.has_video) == (25, 25.0, 16_000, True, True)
    assert (d.n_frames, d.fps, d.sample_rate, d.has_audio, d.has_video) == (10, 5.0, 0, False, True)
    assert (d.stop_s, d.duration_s) == (None, 2.0)


def test_one_file_gives_many_clips_with_ids_of_their_times(run):
    clips = read_manifest(run(spans()) / "manifest.csv")
    assert [clip.clip_id for clip in clips][:2] == ["a@0-0.05", "a@0.05-0.1"]
    assert [(clip.start_s, clip.stop_s, clip.duration_s) for clip in clips][1] == (0.05, 0.1, 0.05)


def test_an_end_that_nobody_annotated_is_open_and_one_beyond_the_files_is_cut(run):
    rows = [
        *spans(n=8),
        {"path": "b.wav", "label": "x", "start": 0.75, "end": None, "group": "p"},
        {"path": "b.wav", "label": "x", "start": None, "end": 7.0, "group": "p"},
    ]
    clips = {clip.clip_id: clip for clip in read_manifest(run(rows) / "manifest.csv")}
    assert (clips["b@0.75-"].stop_s, clips["b@0.75-"].duration_s) == (None, 0.25)
    assert (clips["b@0-7"].stop_s, clips["b@0-7"].duration_s) == (1.0, 1.0)


def test_what_is_annotated_is_not_held_against_a_guess(run, monkeypatch):
    real = read_files.probe

    def guess(path):
        found = real(path)
        return dataclasses.replace(found, duration_s=0.5, duration_estimated=True) if path.name == "b.wav" else found

    monkeypatch.setattr(read_files, "probe", guess)
    rows = [
        *spans(n=8),
        {"path": "b.wav", "label": "x", "start": None, "end": None, "group": "p", "clip_id": "whole"},
        {"path": "b.wav", "label": "x", "start": 0.75, "end": None, "group": "p"},  # begins after the guess
        {"path": "b.wav", "label": "x", "start": 0.25, "end": 7.0, "group": "p"},
    ]
    out = run(rows, max_skipped=0.0)
    clips = {clip.clip_id: clip for clip in read_manifest(out / "manifest.csv")}
    assert [(clip.stop_s, clip.duration_s, clip.duration_estimated) for clip in list(clips.values())[8:]] == [
        (None, 0.5, True),
        (None, 0.01, True),
        (7.0, 6.75, False),
    ]
    assert json.loads((out / "report.json").read_text())["ends_cut"] == []
    with pytest.raises(ManifestError, match="expected 0.01 s at least, got 0.75 to 0.755 s"):
        run([*rows, {**rows[-1], "start": 0.75, "end": 0.755}], max_skipped=0.0)


def test_without_a_group_column_clips_of_one_file_stay_on_one_side(run):
    rows = [{**row, "group": None} for name in ("a.wav", "b.wav", "c.mp4") for row in spans(name, 4)]
    out = run(rows, val_fraction=0.5, test_fraction=0.34)
    splits, clips = read_splits(out / "splits.csv"), read_manifest(out / "manifest.csv")
    assert len({(clip.path, splits[clip.clip_id]) for clip in clips}) == 3


def test_folds_are_heeded(run):
    rows = [{**row, "fold": index // 4} for index, row in enumerate(spans(n=12))]
    splits = read_splits(run(rows, test_fold=2, val_fraction=0.25) / "splits.csv")
    assert list(splits.values())[8:] == ["test"] * 4
    assert "test" not in list(splits.values())[:8]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"path": "broken.mp4"}, "can't be decoded"),
        ({"path": "missing.wav"}, "no such file"),
        ({"path": f"{'a' * 300}.wav"}, "can't be read (File name too long)"),
        ({"path": f"{'a' * 300}/0.wav"}, "can't be read (File name too long)"),
        ({"path": "b/" * 3000 + "0.npy"}, "can't be read (File name too long)"),
        ({"path": "a.wav", "start": 1.5}, "starts at 1.5 s, but the file lasts 1 s"),
        ({"path": "a.wav", "start": 0.995}, "expected 0.01 s at least, got 0.995 to 1 s"),
    ],
)
def test_a_clip_that_cannot_be_read_is_skipped_counted_and_listed(run, row, reason):
    out = run([*spans(), {**row, "label": "x", "clip_id": "bad"}], max_skipped=0.1)
    report = json.loads((out / "report.json").read_text())
    assert (report["n_clips"], report["n_skipped"]) == (10, 1)
    (skipped,) = report["skipped"]
    assert skipped["clip_id"] == "bad"
    assert skipped["where"].endswith(".csv, line 12")
    assert reason in skipped["reason"]
    assert "bad" not in read_splits(out / "splits.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anywhere")
@pytest.mark.parametrize("folder", ["closed", "closed/deeper"])
def test_a_clip_in_a_folder_that_may_not_be_read_is_skipped(run, tmp_path, folder):
    made = make_tone(tmp_path / folder / "e.wav").path
    (tmp_path / "closed").chmod(0)
    try:
        out = run([*spans(), {"path": made, "label": "x"}], max_skipped=0.1)
    finally:
        (tmp_path / "closed").chmod(0o700)
    report = json.loads((out / "report.json").read_text())
    assert [item["reason"] for item in report["skipped"]] == [f"{made}: can't be read (Permission denied)"]


def test_too_many_unreadable_clips_fail_with_the_list(run):
    rows = [*spans(), {"path": "broken.mp4", "label": "x"}, {"path": "missing.wav", "label": "y"}]
    with pytest.raises(ManifestError, match=r"2 of 12 clips can't be read, more than data.max_skipped \(0.1\)") as told:
        run(rows, max_skipped=0.1)
    assert "allows; repair or drop them, or set data.max_skipped: 0.167 to go on without them:" in str(told.value)
    assert "line 12: " in str(told.value)
    assert "missing.wav: no such file" in str(told.value)


def test_doubled_ids_are_refused_with_their_lines(run):
    with pytest.raises(ManifestError, match=r"2 clip ids stand more than once, the first is 'a' \(.*2 and .*line 3\)"):
        run([{"path": path, "label": "x"} for path in ("a.wav", "a.wav", "b.wav", "b.wav")])


def test_ids_are_paths_below_the_folder_that_all_share(run, media):
    make_tone(media / "deep" / "e.wav", 700.0)
    rows = [*spans("a.wav", 9), {"path": "deep/e.wav", "label": "x"}]
    ids = [clip.clip_id for clip in read_manifest(run(rows) / "manifest.csv")]
    assert ids[0] == "a@0-0.05"
    assert ids[-1] == "deep/e"


def test_relative_and_absolute_paths_go_together(media, tmp_path, monkeypatch):
    monkeypatch.chdir(media.parent)
    rows = [*spans("a.wav", 10), *({**row, "path": str(media / "b.wav")} for row in spans("b.wav", 10))]
    write_annotation(media / "mixed.csv", rows)
    prepare(DataConfig(source="csv", annotation=f"{media.name}/mixed.csv"), tmp_path / "out")
    clips = read_manifest(tmp_path / "out/manifest.csv")
    assert (clips[0].clip_id, clips[0].path) == ("a@0-0.05", f"{media.name}/a.wav")
    assert (clips[-1].clip_id, clips[-1].path) == ("b@0.45-0.5", str(media / "b.wav"))


def test_one_class_is_refused(run):
    with pytest.raises(ManifestError, match=r"expected two classes at least, got 1 \(x\)"):
        run(spans(label="x"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_training_lacks_is_refused(run, split):
    rows = [{**row, "split": ["train", "val", "test"][min(2, i // 2)]} for i, row in enumerate(spans(n=6))]
    with pytest.raises(ManifestError, match="class 'new' stands in val or test and never in train"):
        run([*rows, {"path": "b.wav", "label": "new", "split": split}])


def test_a_class_that_only_training_has_is_a_warning(run, caplog):
    rows = [{**row, "split": ["train", "val", "test"][min(2, i // 2)]} for i, row in enumerate(spans(n=6))]
    with caplog.at_level(logging.WARNING):
        run([*rows, {"path": "b.wav", "label": "new", "split": "train"}])
    assert caplog.messages == [f"split {split} has no clip of 1 classes: new" for split in ("val", "test")]


def test_each_file_is_opened_once(run, monkeypatch):
    opened = []
    probe = read_files.probe
    monkeypatch.setattr(read_files, "probe", lambda path: opened.append(path.name) or probe(path))
    run([*spans("a.wav", 6), *spans("b.wav", 6)])
    assert sorted(opened) == ["a.wav", "b.wav"]


def test_the_same_annotation_gives_the_same_bytes(run, tmp_path):
    files = ["manifest.csv", "splits.csv", "labels.txt", "report.json"]
    first = [(run(spans()) / name).read_bytes() for name in files]
    assert [(run(spans()) / name).read_bytes() for name in files] == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "folder", "test_fold": 1}, "test_fold: source folder has no folds"),
        ({"source": "zip"}, "source: expected one of demo, csv, folder, kinetics, got 'zip'"),
        ({"source": "kinetics"}, "kinetics: expected the lists and the roots of the media with source kinetics"),
        ({"kinetics": {"train": "t", "label_map": "m", "train_root": "r"}}, "kinetics: expected null with source csv"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"max_skipped": 1.5}, "max_skipped"),
    ],
)
def test_a_wrong_setting_is_refused(changes, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        validate(DataSection, {"source": "csv", "annotation": "clips.csv", **changes}, "data")


def tree(folder: Path, classes: list[str | bytes], n: int = 6) -> Path:
    """A folder of classes of n tones."""
    for index, name in enumerate(classes):
        path = folder / os.fsdecode(name)
        for number in range(n):
            make_tone(path / f"{number}.wav", 300.0 + 100 * index + 7 * number)
    return folder


def prepared(root: Path, **changes: Any) -> Outcome:
    return prepare(DataConfig(source="folder", annotation=str(root), **changes), root.parent / "out")


def report_of(root: Path) -> dict[str, Any]:
    return json.loads((root.parent / "out/report.json").read_text(encoding="utf-8"))


def test_two_spellings_of_a_class_are_joined_and_a_line_says_so(tmp_path):
    root = tree(tmp_path / "clips", ["caf\xe9", "cafe\u0301", "low\u200b", "high"])
    outcome = prepared(root)
    assert read_labels(tmp_path / "out/labels.txt") == ["caf\xe9", "high", "low"]
    assert r"spellings joined: 'cafe\u0301' and 'caf\xe9' as café, 'low\u200b' as low" in outcome.summary
    assert len(read_manifest(tmp_path / "out/manifest.csv")) == 24


def test_groups_and_splits_are_joined_like_labels(run):
    rows = [
        {**row, "split": ("train\u200b", "train", "val", "test\xa0")[i // 2 % 4]} for i, row in enumerate(spans(n=8))
    ]
    rows[0]["group"], rows[1]["group"] = "Jose\u0301", "Jos\xe9 "
    out = run(rows)
    assert len({clip.group for clip in read_manifest(out / "manifest.csv")}) == 7
    rows[4]["group"] = "Jos\xe9"
    with pytest.raises(LeakError, match="group 'Jos\xe9' stands in train and in val"):
        run(rows)


def test_labels_that_look_alike_get_one_warning_that_names_both(run, caplog):
    rows = [{**row, "label": ("Dog", "dog")[i % 2]} for i, row in enumerate(spans())]
    with caplog.at_level(logging.WARNING):
        run(rows)
    assert caplog.messages == ["classes look alike and are told apart nevertheless: 'Dog' and 'dog'"]


def test_a_label_of_which_nothing_can_be_seen_is_refused(run):
    with pytest.raises(ManifestError, match=r"line 12: expected a label that can be seen, got '\\u200b'"):
        run([*spans(), {"path": "b.wav", "label": "\u200b"}])


def test_a_file_name_that_is_no_utf8_is_skipped_and_shown_escaped(tmp_path):
    root = tree(tmp_path / "clips", ["low", "high"])
    os.rename(root / "low/0.wav", os.fsencode(root / "low") + b"/caf\xe9.wav")
    prepared(root, max_skipped=0.1)
    (skipped,) = report_of(root)["skipped"]
    assert skipped["clip_id"] == r"low/caf\xe9"
    assert skipped["where"].endswith(r"low/caf\xe9.wav")
    assert "this path is no UTF-8, which no table can hold; rename it" in skipped["reason"]
    with pytest.raises(ManifestError, match=r"1 of 12 clips can't be read.*\n.*caf\\xe9.wav: this path is no UTF-8"):
        prepared(root, max_skipped=0.0)


@pytest.mark.parametrize("odd", ["low\r", "lo\nw", "low\x1b[2J"])
def test_control_characters_in_a_path_are_refused_with_the_path_escaped(tmp_path, odd):
    root = tree(tmp_path / "clips", [odd, "high"])
    with pytest.raises(ManifestError, match="holds a control character, which no table can hold; rename it") as told:
        prepared(root)
    assert str(told.value).splitlines()[1].isprintable()
    assert ascii(odd).strip("'") in str(told.value)


def test_a_clip_id_with_a_control_character_is_refused(run):
    with pytest.raises(ManifestError, match=r"a\\x1bb: this clip_id holds a control character"):
        run([*spans(), {"path": "b.wav", "label": "x", "clip_id": "a\x1bb"}])


def test_two_files_of_one_stem_are_two_clips(tmp_path):
    root = tree(tmp_path / "clips", ["low", "high"])
    make_tone(root / "low/0.flac", 333.0)
    prepared(root)
    ids = [clip.clip_id for clip in read_manifest(tmp_path / "out/manifest.csv")]
    assert sorted(ids)[6:9] == ["low/0.flac", "low/0.wav", "low/1"]


def test_the_sound_beside_its_own_film_is_cut_to_its_side(tmp_path):
    for number in range(20):
        folder = tmp_path / "clips" / "xy"[number % 2]
        make_tone(folder / f"{number}.wav", 300.0 + 20 * number)
        make_tone(folder / f"{number}.flac", 305.0 + 20 * number)  # of other bytes, as a film's are
    prepared(tmp_path / "clips", val_fraction=0.3)
    splits = read_splits(tmp_path / "out/splits.csv")
    assert len(splits) == 40
    assert set(splits.values()) == {"train", "val", "test"}
    assert all(splits[name] == splits[name.replace(".wav", ".flac")] for name in splits if name.endswith(".wav"))


def test_no_ending_is_asked_for(tmp_path):
    root = tree(tmp_path / "clips", ["low", "high"])
    for number in range(6):
        (root / "odd").mkdir(exist_ok=True)
        samples = np.sin(np.arange(8000) * 0.1 * (number + 1)) * 0.3
        soundfile.write(root / "odd" / f"{number}.{('w64', 'au', 'caf')[number % 3]}", samples, 8000)
        os.rename(root / f"low/{number}.wav", root / f"low/{number}")
    prepared(root)
    assert read_labels(tmp_path / "out/labels.txt") == ["high", "low", "odd"]
    assert len(read_manifest(tmp_path / "out/manifest.csv")) == 18


def test_what_is_no_medium_in_a_tree_is_passed_over_counted_and_listed(tmp_path, caplog):
    root = tree(tmp_path / "clips", ["low", "high"])
    (root / "low/notes.txt").write_text("what was heard\n")
    (root / "low/0.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\na dog\n")
    (root / "notes").mkdir()
    (root / "notes/README").write_text("nothing to hear\n")
    (root / "low/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    make_tone(root / "low/deep/6.wav")
    outcome = prepared(root, max_skipped=0.0)
    assert "; 5 other files passed over, see " in outcome.summary
    assert outcome.metrics["n_passed_over"] == 5
    assert sorted(other["path"] for other in report_of(root)["passed_over"]) == [
        "low/.DS_Store",
        "low/0.srt",
        "low/deep/6.wav",
        "low/notes.txt",
        "notes/README",
    ]
    assert not any(str(tmp_path) in other["reason"] for other in report_of(root)["passed_over"])
    assert any("no media files in the folders of 1 classes: notes" in message for message in caplog.messages)


def test_what_is_odd_in_a_file_is_told_counted_and_listed(run, media, monkeypatch):
    real = read_files.probe
    notes = {"b.wav": ("sound track 1 can't be decoded",)}
    monkeypatch.setattr(
        read_files, "probe", lambda path: dataclasses.replace(real(path), notes=notes.get(path.name, ()))
    )
    out = run([*spans(), *spans("b.wav")])
    assert json.loads((out / "report.json").read_text())["remarks"] == {str(media / "b.wav"): list(notes["b.wav"])}


def test_a_tree_without_media_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "clips/low").mkdir(parents=True)
    (tmp_path / "clips/low/notes.txt").write_text("words\n")
    with pytest.raises(ManifestError, match="no media files in it; expected .*, got 1 other files; low/notes.txt: "):
        prepared(tmp_path / "clips")


def test_media_that_change_under_an_unchanged_annotation_change_the_manifest(run, media):
    make_tone(media / "e.wav", 600.0)
    rows = [*spans(), {"path": "e.wav", "label": "x"}]
    first = (run(rows) / "manifest.csv").read_bytes()
    assert (run(rows) / "manifest.csv").read_bytes() == first
    os.utime(media / "e.wav", (1, 1))
    assert (run(rows) / "manifest.csv").read_bytes() == first  # equal bytes
    make_tone(media / "e.wav", 601.0)
    assert (run(rows) / "manifest.csv").read_bytes() != first
