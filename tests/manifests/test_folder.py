from pathlib import Path

import pytest

from avrecog.errors import ManifestError
from avrecog.manifests.folder import read_folder


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


def test_hidden_files_other_files_and_deeper_folders_are_passed_over(tree):
    root = tree("dog/a.wav", "dog/.b.wav", ".cache/c.wav", "dog/notes.txt", "top.wav", "dog/deep/d.wav", "dog/noending")
    assert [clip.path for clip in read_folder(root, Path("data"))] == ["data/dog/a.wav"]


def test_a_tree_without_media_is_refused(tree):
    with pytest.raises(ManifestError, match=r"no media files in it; expected .*/<class>/<file>\{\.3gp, "):
        read_folder(tree("dog/notes.txt"), Path("data"))


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(ManifestError, match="expected a folder with one folder a class; see data.annotation"):
            read_folder(root, Path("data"))
