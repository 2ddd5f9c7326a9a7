import os
from pathlib import Path

import pytest

from avrecog.annotations.folder_source import passed_over, read_folder, why_unwatchable
from avrecog.errors import ManifestError


@pytest.fixture
def tree(tmp_path):
    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / name).touch()
        return tmp_path / "root"

    return make


def test_each_folder_is_a_class_in_sorted_order(tree):
    clips = read_folder(tree("dog/b.wav", "dog/a.MP4", "cat/x y.mkv"), Path("data"))
    assert [(clip.path, clip.label, clip.split) for clip in clips] == [
        ("data/cat/x y.mkv", "cat", None),
        ("data/dog/a.MP4", "dog", None),
        ("data/dog/b.wav", "dog", None),
    ]
    assert clips[0].where.endswith("root/cat/x y.mkv")


def test_a_first_level_of_splits_gives_the_splits(tree):
    clips = read_folder(tree("train/dog/a.wav", "test/dog/b.wav"), Path("data"))
    assert [(clip.path, clip.label, clip.split) for clip in clips] == [
        ("data/test/dog/b.wav", "dog", "test"),
        ("data/train/dog/a.wav", "dog", "train"),
    ]


def test_a_class_may_bear_the_name_of_a_split_beside_other_classes(tree):
    clips = read_folder(tree("train/a.wav", "plane/b.wav"), Path("data"))
    assert [(clip.label, clip.split) for clip in clips] == [("plane", None), ("train", None)]


def test_no_ending_is_asked_for(tree):
    clips = read_folder(tree("dog/a.w64", "dog/b.MTS", "dog/c", "dog/d.txt"), Path("data"))
    assert [clip.path for clip in clips] == [f"data/dog/{name}" for name in ("a.w64", "b.MTS", "c", "d.txt")]


def test_every_other_file_of_the_tree_is_listed_with_the_reason(tree):
    root = tree(
        *("dog/a.wav", "dog/.b.wav", ".cache/c.wav", "top.wav", "dog/deep/d.xyz", "dog/Thumbs.db", "dog/.DS_Store"),
        *("@eaDir/a.wav/thumb.jpg", "@eaDir/b.wav", "__MACOSX/dog/._a.wav"),
    )
    clips = read_folder(root, Path("data"))
    assert [clip.path for clip in clips] == ["data/dog/a.wav"]
    litter = "left there by a file manager or an operating system"
    assert {other.path: other.reason for other in passed_over(root, Path("data"), clips)} == {
        ".cache/c.wav": "hidden",
        "@eaDir/a.wav/thumb.jpg": litter,
        "@eaDir/b.wav": litter,
        "__MACOSX/dog/._a.wav": "hidden",
        "dog/.DS_Store": "hidden",
        "dog/.b.wav": "hidden",
        "dog/Thumbs.db": litter,
        "dog/deep/d.xyz": "lies in a folder below its class folder, where no clips are looked for",
        "top.wav": "doesn't lie in a class folder",
    }


def test_every_file_is_a_clip_or_listed(tree):
    root = tree("train/dog/a.wav", "test/dog/b.wav", "train/c.wav", "test/dog/deep/e/f.wav", "train/dog/desktop.ini")
    clips = read_folder(root, Path("data"))
    listed = {f"data/{other.path}" for other in passed_over(root, Path("data"), clips)}
    files = {str(Path("data") / path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert {clip.path for clip in clips} | listed == files
    assert len(clips) + len(listed) == 5


def test_a_class_may_be_a_link_to_a_folder_and_a_deeper_link_is_listed(tree, tmp_path):
    root = tree("dog/a.wav")
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/b.wav").touch()
    (root / "cat").symlink_to(tmp_path / "cats")
    (root / "dog/loop").symlink_to(root)
    clips = read_folder(root, Path("data"))
    assert [clip.path for clip in clips] == ["data/cat/b.wav", "data/dog/a.wav"]
    assert [other.path for other in passed_over(root, Path("data"), clips)] == ["dog/loop"]


def test_names_that_are_no_utf8_are_shown_escaped(tree):
    root = tree("dog/caf\udce9.wav", ".caf\udce9")
    clips = read_folder(root, Path("data"))
    assert clips[0].where.endswith(r"dog/caf\xe9.wav")
    assert [other.path for other in passed_over(root, Path("data"), clips)] == [r".caf\xe9"]
    assert "2 names in data are no UTF-8" in str(why_unwatchable(root, "data"))
    assert r"(.caf\xe9, dog/caf\xe9.wav)" in str(why_unwatchable(root, "data"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list any folder")
def test_a_folder_that_cannot_be_listed_is_refused(tree):
    root = tree("dog/a.wav", "cat/b.wav")
    (root / "cat").chmod(0)
    with pytest.raises(ManifestError, match="cat: can't be listed .Permission denied.; make it readable"):
        read_folder(root, Path("data"))


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(ManifestError, match="expected a folder with one folder a class; see data.annotation"):
            read_folder(root, Path("data"))
