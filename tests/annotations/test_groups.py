import os

import pytest

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.groups import with_groups


def groups(*paths: str, contents: dict[str, str] | None = None, **annotated: str) -> list[str | None]:
    """Of rows with these paths; contents are their own, groups what is annotated for the n-th (`_0`)."""
    rows = [
        AnnotatedClip(path=path, label="x", where=path, group=annotated.get(f"_{number}"))
        for number, path in enumerate(paths)
    ]
    return [row.group for row in with_groups(rows, [(contents or {}).get(path, path) for path in paths])]


def test_a_file_of_its_own_is_a_group_of_its_own():
    assert groups("c/0.wav", "c/1.wav", "d/0.wav") == ["c/0.wav", "c/1.wav", "d/0.wav"]


def test_sound_and_picture_of_one_name_in_one_folder_are_one_group():
    assert groups("c/0.wav", "c/0.mp4", "c/1.wav", "d/0.mp4") == ["c/0", "c/0", "c/1.wav", "d/0.mp4"]


def test_a_copy_of_one_of_them_belongs_to_them_too_wherever_it_lies():
    contents = {"d/7.wav": "c/0.wav", "d/7.mkv": "d/7.mkv"}
    assert groups("c/0.wav", "d/7.wav", "c/0.mp4", "d/7.mkv", contents=contents) == ["c/0"] * 4


def test_the_same_folder_written_otherwise_is_the_same():
    found = groups("c/0.wav", os.path.abspath("c/0.mp4"), "d/../c/0.flac")
    assert len(set(found)) == 1


@pytest.mark.parametrize("names", [("take.1", "take.2"), ("1.5", "1.6"), ("a.wav", "a.b.wav")])
def test_a_number_behind_a_dot_is_no_ending(names):
    assert len(set(groups(*names))) == 2


def test_a_group_that_is_annotated_stands():
    assert groups("c/0.wav", "c/0.mp4", "c/0.flac", _1="g") == ["c/0", "g", "c/0"]
