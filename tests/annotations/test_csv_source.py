from pathlib import Path

import pytest

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.csv_source import read_csv
from avrecog.errors import ManifestError
from clips import write_annotation


@pytest.fixture
def read(tmp_path):
    def from_text(content: str | bytes) -> list[AnnotatedClip]:
        path = tmp_path / "clips.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_csv(path, Path("data"))

    return from_text


def test_a_row_says_all_that_the_columns_hold(tmp_path):
    row = {"path": "a.mp4", "label": "dog", "split": "val", "fold": 2, "group": "g", "start": 0.5, "end": 2}
    path = write_annotation(tmp_path / "clips.csv", [{**row, "clip_id": "one", "remark": "passed over"}])
    assert read_csv(path, Path("data")) == [
        AnnotatedClip("data/a.mp4", "dog", "clips.csv, line 2", "val", 2, "g", 0.5, 2.0, "one")
    ]


def test_what_a_row_leaves_empty_is_none(read):
    bare = AnnotatedClip("data/a.mp4", "dog", "clips.csv, line 2")
    assert read("path,label\na.mp4,dog\n") == [bare]
    assert read("clip_id,end,start,group,fold,split,label,path\n,,,, ,,dog,a.mp4\n") == [bare]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfpath,label\na b.mp4,dog\nc.mp4,cat\n",
        b"path,label\r\na b.mp4,dog\r\nc.mp4,cat\r\n",
        b'"path","label"\n"a b.mp4","dog"\n"c.mp4","cat"',
        b"label,path\n dog ,a b.mp4\n\ncat,c.mp4\n",
    ],
    ids=["byte order mark", "CRLF", "quotes", "blank line and spaces"],
)
def test_what_spreadsheets_make_of_a_csv_is_read_alike(read, content):
    assert [(clip.path, clip.label) for clip in read(content)] == [("data/a b.mp4", "dog"), ("data/c.mp4", "cat")]


def test_a_quoted_cell_may_hold_commas_and_quotes(read):
    (clip,) = read('path,label\n"a,b.mp4","dog ""rex"", old"\n')
    assert (clip.path, clip.label) == ("data/a,b.mp4", 'dog "rex", old')


def test_an_absolute_path_stays_as_it_is(read):
    assert read("path,label\n/media/a.mp4,dog\n")[0].path == "/media/a.mp4"


def test_a_file_may_have_many_clips(read):
    found = read("path,label,start,end\na.mp4,dog,0,1\na.mp4,cat,1,\na.mp4,cat,,0.5\n")
    assert [(clip.start_s, clip.stop_s) for clip in found] == [(0.0, 1.0), (1.0, None), (None, 0.5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,class\na.mp4,dog\n", "column `label` is missing; expected path, label and optionally .*got path, class"),
        ("", "column `path` is missing; .*got an empty file"),
        ("path,label\n", "has a header and no rows"),
        ("path,label\n\n\n", "has a header and no rows"),
        (b"path,label\n\xff.mp4,dog\n", "expected a CSV in UTF-8"),
        ('path,label\na.mp4,"dog\nb.mp4,cat\n', "not a CSV file: .*; look for a quote that isn't closed"),
        (f"path,label\n{'x' * 200_000},dog\n", "not a CSV file: field larger"),
    ],
)
def test_a_file_that_is_no_annotation_is_refused(read, content, message):
    with pytest.raises(ManifestError, match=f"clips.csv: {message}"):
        read(content)


def test_a_missing_file_names_the_key_that_points_to_it(tmp_path):
    with pytest.raises(ManifestError, match="No such file or directory.*; see data.annotation in params.yaml"):
        read_csv(tmp_path / "clips.csv", tmp_path)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"path": ""}, "`path` is empty"),
        ({"label": " "}, "`label` is empty"),
        ({"split": "dev"}, "expected split train, val or test, got 'dev'"),
        ({"split": "Train"}, "expected split train, val or test, got 'Train'"),
        ({"fold": "one"}, "expected a whole number as `fold`, got 'one'"),
        ({"fold": "1.0"}, "expected a whole number as `fold`, got '1.0'"),
        ({"start": "x"}, "expected `start` in seconds, got 'x'"),
        ({"start": "nan"}, "expected `start` in seconds, 0 or more, got 'nan'"),
        ({"start": "-1"}, "expected `start` in seconds, 0 or more, got '-1'"),
        ({"end": "inf"}, "expected `end` in seconds, 0 or more, got 'inf'"),
        ({"end": "nan"}, "expected `end` in seconds, 0 or more, got 'nan'"),
        ({"end": "0"}, "expected start before end, got start 0 and end 0"),
        ({"start": "2", "end": "1.5"}, "expected start before end, got start 2 and end 1.5"),
    ],
)
def test_a_wrong_cell_is_told_with_its_line(tmp_path, cells, message):
    columns = dict.fromkeys(["path", "label", "split", "fold", "start", "end"])
    rows = [{**columns, "path": "a.mp4", "label": "dog"}, {**columns, "path": "b.mp4", "label": "cat", **cells}]
    path = write_annotation(tmp_path / "clips.csv", rows)
    with pytest.raises(ManifestError, match=f"1 rows are wrong:\n  clips.csv, line [34]: {message}"):
        read_csv(path, tmp_path)


@pytest.mark.parametrize("row", ["a.mp4", "a.mp4,dog,more"])
def test_a_row_with_more_or_fewer_cells_than_the_header_is_told(read, row):
    with pytest.raises(ManifestError, match="line 2: expected as many cells as the header has"):
        read(f"path,label\n{row}\n")


def test_all_wrong_rows_are_counted_and_twenty_are_shown(read):
    with pytest.raises(ManifestError, match="25 rows are wrong") as caught:
        read("path,label\n" + ",dog\n" * 25)
    assert str(caught.value).count("`path` is empty") == 20
