import pytest

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.clip_ids import clip_ids
from avrecog.errors import ManifestError


def row(path: str, **changes) -> AnnotatedClip:
    return AnnotatedClip(path=path, label="x", where=path, **changes)


def test_an_id_is_the_path_below_the_shared_folder_without_the_ending():
    assert clip_ids([row("clips/a/0.wav"), row("clips/b/0.mp4")]) == ["a/0", "b/0"]


def test_only_clips_that_share_a_stem_keep_their_endings():
    rows = [row(f"clips/{name}") for name in ("a/0.wav", "a/0.mp4", "a/1.wav", "b/0.wav")]
    assert clip_ids(rows) == ["a/0.wav", "a/0.mp4", "a/1", "b/0"]


def test_a_file_whose_stem_is_anothers_name_keeps_its_ending_too():
    rows = [row(f"clips/{name}") for name in ("0.wav", "0.mp4", "0.mp4.wav")]
    assert clip_ids(rows) == ["0.wav", "0.mp4", "0.mp4.wav"]


def test_pieces_of_two_files_of_one_stem_keep_their_endings_where_their_times_are_equal():
    rows = [row(f"clips/{name}", start_s=start) for name, start in (("0.wav", 1.0), ("0.mp4", 1.0), ("0.mp4", 2.0))]
    assert clip_ids(rows) == ["0.wav@1-", "0.mp4@1-", "0@2-"]


def test_an_id_that_the_annotation_gives_stands():
    rows = [row("clips/0.wav", clip_id="0.mp4"), row("clips/0.mp4")]
    assert clip_ids(rows) == ["0.mp4", "0"]


@pytest.mark.parametrize("second", [row("clips/0.wav"), row("clips/1.wav", clip_id="0")])
def test_one_file_twice_and_one_id_twice_are_refused(second):
    first = row("clips/0.wav", clip_id=second.clip_id)
    with pytest.raises(
        ManifestError, match=r"1 clip ids stand more than once, the first is '0.*clips/0.wav and clips/"
    ):
        clip_ids([first, second, row("clips/2.wav")])
