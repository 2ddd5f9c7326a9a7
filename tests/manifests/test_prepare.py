import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from avrecog.errors import ConfigError, LeakError, ManifestError
from avrecog.manifests.clip import Clip, read_labels, read_manifest, read_splits
from avrecog.manifests.prepare import DataConfig, prepare
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
    assert a == Clip("a", path, "x", path, None, 0.0, 1.0, 1.0, 0, 0.0, 16_000, True, False)
    assert (c.n_frames, c.fps, c.sample_rate, c.has_audio, c.has_video) == (25, 25.0, 16_000, True, True)
    assert (d.n_frames, d.fps, d.sample_rate, d.has_audio, d.has_video) == (10, 5.0, 0, False, True)
    assert d.stop_s == 2.0


def test_one_file_gives_many_clips_with_ids_of_their_times(run):
    clips = read_manifest(run(spans()) / "manifest.csv")
    assert [clip.clip_id for clip in clips][:2] == ["a@0-0.05", "a@0.05-0.1"]
    assert [(clip.start_s, clip.stop_s, clip.duration_s) for clip in clips][1] == (0.05, 0.1, 0.05)


def test_an_open_end_is_the_files_end_and_an_end_beyond_it_is_cut(run):
    rows = [
        *spans(n=8),
        {"path": "b.wav", "label": "x", "start": 0.75, "end": None, "group": "p"},
        {"path": "b.wav", "label": "x", "start": None, "end": 7.0, "group": "p"},
    ]
    clips = {clip.clip_id: clip for clip in read_manifest(run(rows) / "manifest.csv")}
    assert clips["b@0.75-"].stop_s == 1.0
    assert clips["b@0-7"].stop_s == 1.0


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
    from avrecog.manifests import prepare as module

    opened = []
    probe = module.probe
    monkeypatch.setattr(module, "probe", lambda path: opened.append(path.name) or probe(path))
    run([*spans("a.wav", 6), *spans("b.wav", 6)])
    assert sorted(opened) == ["a.wav", "b.wav"]


def test_the_same_annotation_gives_the_same_bytes(run, tmp_path):
    files = ["manifest.csv", "splits.csv", "labels.txt", "report.json"]
    first = [(run(spans()) / name).read_bytes() for name in files]
    assert [(run(spans()) / name).read_bytes() for name in files] == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "folder", "test_fold": 1}, "test_fold: only source csv has folds, got source folder"),
        ({"source": "zip"}, "'demo', 'csv', 'folder' or 'kinetics'"),
        ({"source": "kinetics"}, "kinetics: expected the lists and the roots of the media with source kinetics"),
        ({"kinetics": {"train": "t", "label_map": "m", "train_root": "r"}}, "kinetics: expected null with source csv"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"max_skipped": 1.5}, "max_skipped"),
    ],
)
def test_a_wrong_setting_is_refused(changes, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        DataConfig(**{"source": "csv", "annotation": "clips.csv", **changes})
