import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from avrecog.annotations import kinetics_source
from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.kinetics_source import check_only_lists, read_kinetics, read_label_map
from avrecog.annotations.prepare import prepare
from avrecog.annotations.settings import DataConfig, KineticsConfig
from avrecog.config import validate
from avrecog.errors import ConfigError, LeakError, ManifestError
from avrecog.manifest import read_labels, read_manifest, read_splits
from avrecog.media.kinds import claims_to_be_media
from clips import make_kinetics, make_tone

NAMES = {"train": "train.txt", "label_map": "labels.txt"}


@pytest.fixture
def read(tmp_path):
    """The rows that a train list gives, with empty files below the root."""

    def from_lines(lines: str | bytes, *files: str, labels: str = "abseiling\nair drumming\n") -> list[AnnotatedClip]:
        for file in files:
            (tmp_path / "root" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / file).write_text("words\n" if file.endswith(".txt") else "")
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "lists").mkdir(exist_ok=True)
        (tmp_path / "lists/train.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
        (tmp_path / "lists/labels.txt").write_text(labels)
        config = KineticsConfig(**NAMES, train_root=str(tmp_path / "root"))
        return read_kinetics(tmp_path / "lists", config)

    return from_lines


@pytest.fixture
def found(read, tmp_path):
    """The file, below the root, that the only entry of a list stands for."""

    def among(entry: str, *files: str) -> str:
        (clip,) = read(f"{entry} 1\n", *files)
        return str(Path(clip.path).relative_to(tmp_path / "root"))

    return among


def test_a_line_gives_path_class_split_and_group(read, tmp_path):
    assert read("air_drumming/-3B32lodo2M.mp4 1\n", "air_drumming/-3B32lodo2M.mp4") == [
        AnnotatedClip(
            path=str(tmp_path / "root/air_drumming/-3B32lodo2M.mp4"),
            label="air drumming",
            where="train.txt, line 1",
            split="train",
            group="-3B32lodo2M",
        )
    ]


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("a.mp4 1", "a.mp4", "air drumming"),
        ("a 300 0", "a", "abseiling"),
        ("a.mp4 300 0", "a.mp4", "abseiling"),
        ("air drumming/a.mp4 1", "air drumming/a.mp4", "air drumming"),
        ("air drumming/a 300 1", "air drumming/a", "air drumming"),
        ("  a\t300\t1  ", "a", "air drumming"),
        ("12 1", "12", "air drumming"),
    ],
)
def test_both_forms_are_parsed_from_the_right(read, tmp_path, line, path, label):
    (clip,) = read(f"{line}\n")
    assert (clip.path, clip.label) == (str(tmp_path / "root" / path), label)
    assert clip.n_frames == (300 if "300" in line else None)


@pytest.mark.parametrize("name", ["a" * 300, f"{'a' * 300}/b.mp4", "b/" * 3000 + "c"])
def test_a_name_that_no_file_can_have_is_that_of_a_file_that_is_not_there(read, tmp_path, name):
    (clip,) = read(f"{name} 1\n")
    assert clip.path == str(tmp_path / "root" / name)


def test_blank_lines_a_byte_order_mark_and_crlf_change_nothing_but_the_line_numbers(read):
    clips = read(b"\xef\xbb\xbfa 1\r\n\r\nb 0\r\n", labels="abseiling\r\nair drumming\r\n\r\n")
    assert [(clip.where, clip.label) for clip in clips] == [
        ("train.txt, line 1", "air drumming"),
        ("train.txt, line 3", "abseiling"),
    ]


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ("a.mp4", "a.mp4"),
        ("a", "a.webm"),
        ("a.npy", "a.mkv"),
        ("a", "air drumming/a.mp4"),
        ("a.mp4", "air drumming/a.mp4"),
        ("a", "air_drumming/a.MP4"),
        ("air_drumming/a", "air drumming/a.mp4"),
        ("a", "air drumming/a_000012_000022.mp4"),
        ("air drumming/a.mp4", "air drumming/a_000012_000022.mp4"),
        ("a_000012_000022", "a_000012_000022.mp4"),
        ("parts/1/a", "parts/1/a.mp4"),
    ],
)
def test_an_entry_finds_its_file(found, entry, file):
    assert found(entry, file, "ab.mp4", "a.txt", "abseiling/a.mp4") == file


def test_a_file_written_in_full_wins_over_its_like(found):
    assert found("a.mp4", "a.mp4", "a.webm", "air drumming/a.mp4", "a_000012_000022.mp4") == "a.mp4"
    assert found("a_000012_000022", "a.mp4", "a_000012_000022.mp4") == "a_000012_000022.mp4"


def test_what_a_downloader_leaves_beside_a_file_is_not_taken_for_it(found):
    assert found("a", "a.MTS", "a.txt") == "a.MTS"
    assert found("b", "b_000012_000022.amr", "b_000012_000022.txt") == "b_000012_000022.amr"


def test_what_a_downloader_leaves_beside_a_file_is_not_even_probed(found, monkeypatch):
    probed: list[str] = []
    probe = kinetics_source.probe
    monkeypatch.setattr(kinetics_source, "probe", lambda path: probed.append(path.name) or probe(path))
    video = "air drumming/a_000012_000022.mp4"
    assert found("a", video, "a.json", "air drumming/a.jpg", "air drumming/a.info.json", "air drumming/a.txt") == video
    assert probed == []


def test_where_no_file_claims_to_be_media_the_one_that_is_so_is_taken(found, tmp_path):
    (tmp_path / "root").mkdir()
    tone = np.sin(np.arange(16_000) * 0.1) * 0.3
    soundfile.write(tmp_path / "root/a.xyz", tone, 16_000, format="MP3")
    assert not claims_to_be_media(tmp_path / "root/a.xyz")
    (tmp_path / "root/a.json").write_text("{}")
    assert found("a", "a.txt") == "a.xyz"


def test_a_number_behind_a_dot_is_no_ending(found):
    assert found("v.1", "v.1.mp4", "v.2.mp4", "v_000001_000002.mp4") == "v.1.mp4"
    assert found("v.3", "v_000001_000002.mp4") == "v.3"  # missing, not another video


def test_a_class_folder_is_found_however_its_name_is_written(read, tmp_path):
    composed, decomposed = "caf\xe9 noise", "cafe\u0301_noise"
    (clip,) = read("a 0\n", f"{decomposed}/a.mp4", labels=f"{composed}\nother\n")
    assert (clip.path, clip.label) == (str(tmp_path / "root" / decomposed / "a.mp4"), composed)


def test_labels_are_counted_by_lines_whatever_else_ends_a_line_in_unicode(tmp_path):
    (tmp_path / "labels.txt").write_text("a\u2028b\nc\xa0\x0c\ncafe\u0301\n", encoding="utf-8")
    assert read_label_map(tmp_path, KineticsConfig(**NAMES, train_root="media")) == ["a b", "c", "caf\xe9"]


def test_an_absolute_path_stays_as_it_is(read, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.mp4").touch()
    assert [clip.path for clip in read(f"{tmp_path}/elsewhere/a 1\n")] == [str(tmp_path / "elsewhere/a.mp4")]


@pytest.mark.parametrize(
    "files", [("a.mp4", "a.webm"), ("a.mp4", "air drumming/a.mp4"), ("a_000012_000022.mp4", "a_000032_000042.mp4")]
)
def test_an_entry_that_several_files_fit_is_told(read, files):
    with pytest.raises(ManifestError, match=f"line 2: a may be {files[0]} or {files[1]} below .*; keep one of them"):
        read("b 0\na 1\n", *files)


def test_the_group_is_the_video_id_whatever_stands_around_it(read):
    lines = ["a 300 0", "x/a.mp4 0", "air drumming/a_000012_000022.mp4 1", "a.npy 300 1", "a_000100_000110 300 1"]
    assert {clip.group for clip in read("\n".join(lines))} == {"a"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.mp4", "expected `path label` or `path frames label`, got 'a.mp4'"),
        ("a.mp4 2", "expected a label from 0 to 1 as the last word, got '2'"),
        ("a.mp4 -1", "expected a label from 0 to 1 as the last word, got '-1'"),
        ("a.mp4 300 drumming", "expected a label from 0 to 1 as the last word, got 'drumming'"),
        ("a.mp4 ١", "expected a label from 0 to 1"),
        ("a\0.mp4 1", "expected text, got a NUL character"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(read, line, message):
    with pytest.raises(ManifestError, match=f"1 lines are wrong:\n  train.txt, line 2: {message}"):
        read(f"a.mp4 0\n{line}\n")


def test_all_wrong_lines_are_counted_and_twenty_are_shown(read):
    with pytest.raises(ManifestError, match="25 lines are wrong") as caught:
        read("a 7\n" * 25)
    assert str(caught.value).count("expected a label") == 20


@pytest.mark.parametrize(
    ("lines", "labels", "message"),
    [
        ("\n \n", "x\ny\n", "train.txt: has no lines"),
        ("a 0\n", "\n", "labels.txt: is empty; expected one class name a line"),
        ("a 0\n", "x\n\ny\n", "labels.txt, line 2: is empty; every line is a class"),
        ("a 0\n", "x\ny\nx\n", "labels.txt, line 3: class 'x' stands in line 1 already"),
        ("a 0\n", "caf\xe9\ny\ncafe\u0301\n", "labels.txt, line 3: class 'caf\xe9' stands in line 1 already"),
        (b"\xff 0\n", "x\ny\n", "train.txt: expected text in UTF-8"),
    ],
)
def test_a_file_that_is_no_list_or_no_map_is_refused(read, lines, labels, message):
    with pytest.raises(ManifestError, match=message):
        read(lines, labels=labels)


def test_what_is_missing_names_the_key_that_points_to_it(tmp_path):
    config = KineticsConfig(**NAMES, train_root=str(tmp_path / "nowhere"))
    with pytest.raises(ManifestError, match=r"labels.txt: can't be read \(.*see data.annotation and data.kinetics"):
        read_kinetics(tmp_path, config)
    (tmp_path / "labels.txt").write_text("x\n")
    with pytest.raises(ManifestError, match=r"data.kinetics.train_root: .*nowhere is no folder"):
        read_kinetics(tmp_path, config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": "lists/val.txt"}, "data.kinetics.val: expected the name of a file in the folder data.annotation"),
        ({"label_map": "/labels.txt"}, "label_map: expected the name of a file"),
        ({"val_root": "media"}, "val_root: expected null where val is null, got 'media'"),
        ({"test_root": "media"}, "test_root: expected null where test is null, got 'media'"),
    ],
)
def test_a_wrong_setting_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        validate(KineticsConfig, {**NAMES, "train_root": "media", **change}, "data.kinetics")


def test_a_folder_that_dvc_would_hash_for_hours_is_refused(tmp_path):
    (tmp_path / "train.txt").touch()
    check_only_lists(tmp_path)
    (tmp_path / "a.MP4").write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(ManifestError, match=r"holds a.MP4, which isn't text; DVC hashes everything in data.annotation"):
        check_only_lists(tmp_path)
    (tmp_path / "a.MP4").unlink()
    (tmp_path / "videos_train").mkdir()
    with pytest.raises(ManifestError, match=r"holds videos_train, a folder; DVC hashes"):
        check_only_lists(tmp_path)
    with pytest.raises(ManifestError, match="expected a folder with the lists and the label map"):
        check_only_lists(tmp_path / "train.txt")


def prepared(folder: Path, **changes: Any) -> Path:
    made = make_kinetics(folder)
    data = {
        "source": "kinetics",
        "annotation": str(made.lists),
        "kinetics": made.section,
        "max_skipped": 0.1,
        **changes,
    }
    prepare(DataConfig(**data), folder / "out")
    return folder / "out"


def test_a_kinetics_folder_becomes_manifest_splits_labels_and_report(tmp_path):
    out = prepared(tmp_path)
    clips = {clip.clip_id: clip for clip in read_manifest(out / "manifest.csv")}
    splits = read_splits(out / "splits.csv")
    report = json.loads((out / "report.json").read_text())
    assert read_labels(out / "labels.txt") == ["whistling", "air drumming", "zumba"]  # the map's order, and all of it
    assert len(clips) == 30
    assert {clip.label for clip in clips.values()} == {"whistling", "air drumming"}
    assert report["splits"]["train"] == {"air drumming": 8, "whistling": 8}
    assert {split: sum(report["splits"][split].values()) for split in ("val", "test")} == {"val": 4, "test": 10}
    assert all(clip_id.startswith("videos_val/") == (splits[clip_id] == "test") for clip_id in clips)
    assert "videos_train/air drumming/train_1_00_000012_000022" in clips
    assert (report["n_clips"], report["n_skipped"], report["n_missing"], report["n_silent"]) == (30, 2, 1, 1)
    reasons = {item["where"]: item["reason"] for item in report["skipped"]}
    assert set(reasons) == {"kinetics_train_list.txt, line 21", "kinetics_train_list.txt, line 22"}
    assert "no such file" in reasons["kinetics_train_list.txt, line 21"]
    assert "can't be decoded" in reasons["kinetics_train_list.txt, line 22"]


def test_too_many_missing_videos_fail_with_the_list(tmp_path):
    with pytest.raises(ManifestError, match=r"2 of 32 clips can't be read, more than data.max_skipped \(0.01\)"):
        prepared(tmp_path, max_skipped=0.01)


def test_two_clips_of_one_video_on_two_sides_are_refused(tmp_path):
    made = make_kinetics(tmp_path)
    make_tone(tmp_path / "videos_val/train_1_00_000032_000042.wav", 700.0)
    with (made.lists / "kinetics_val_list.txt").open("a") as file:
        file.write("train_1_00_000032_000042 300 1\n")
    data = DataConfig(source="kinetics", annotation=str(made.lists), kinetics=made.section, max_skipped=0.1)
    with pytest.raises(
        LeakError, match=r"group 'train_1_00' stands in train and in test \(train: videos_train/air dru"
    ):
        prepare(data, tmp_path / "out")


def test_the_label_map_gives_the_index_of_a_class(tmp_path):
    (tmp_path / "labels.txt").write_text("zumba\nabseiling\n")
    config = KineticsConfig(**NAMES, train_root="media")
    assert read_label_map(tmp_path, config) == ["zumba", "abseiling"]


def test_a_file_without_a_picture_has_the_frames_that_its_list_counts(tmp_path):
    made = make_kinetics(tmp_path)
    np.save(tmp_path / "videos_train/air drumming/features.npy", np.full((200, 80), 0.5, np.float32))
    with (made.lists / "kinetics_train_list.txt").open("a") as file:
        file.write("air drumming/features.npy 96 1\n")
    data = DataConfig(source="kinetics", annotation=str(made.lists), kinetics=made.section, max_skipped=0.1)
    prepare(data, tmp_path / "out")
    clips = {clip.clip_id: clip for clip in read_manifest(tmp_path / "out/manifest.csv")}
    features = clips["videos_train/air drumming/features"]
    assert (features.n_frames, features.has_video, features.duration_s) == (96, False, 3.2)
    assert all(clip.n_frames == round(clip.duration_s * clip.fps) for clip in clips.values() if clip.has_video)
