import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avrecog.errors import ScoreError
from avrecog.scores.predictions import predictions_from, read_predictions, write_predictions

HEADER = "clip_id,label,predicted,confidence,label_probability\n"
NAME = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=6)  # nor has a manifest


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ids=st.lists(NAME, min_size=1, max_size=8, unique=True), seed=st.integers(0, 100))
def test_what_is_written_is_read_again_whatever_the_clips_are_called(tmp_path, ids, seed):
    ids = list({clip_id.rstrip("\0"): None for clip_id in ids if clip_id.rstrip("\0")})  # numpy drops NULs at the end
    if not ids:
        return
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 3, len(ids)), rng.dirichlet(np.ones(3), len(ids)).astype(np.float32)
    table = predictions_from(ids, labels, scores, ["a,b", 'c"', "d\ne"])
    write_predictions(tmp_path / "p.csv", ids, labels, scores, ["a,b", 'c"', "d\ne"])
    again = read_predictions(tmp_path / "p.csv")
    for name in ("clip_ids", "labels", "predicted"):
        assert getattr(again, name).tolist() == getattr(table, name).tolist()
    np.testing.assert_allclose(again.confidence, table.confidence, atol=5.1e-7)
    np.testing.assert_allclose(again.label_probability, table.label_probability, atol=5.1e-7)
    order = np.argsort(np.array(ids))
    assert again.correct.tolist() == (scores.argmax(1) == labels)[order].tolist()


def test_the_file_is_sorted_by_clip_and_has_six_digits(tmp_path):
    write_predictions(tmp_path / "p.csv", ["b", "a"], np.array([0, 1]), np.array([[0.75, 0.25], [1, 0]]), ["x", "y"])
    assert (tmp_path / "p.csv").read_text() == f"{HEADER}a,y,x,1.000000,0.000000\nb,x,x,0.750000,0.750000\n"
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected columns clip_id, .*, got an empty file"),
        ("clip,label\n", "got clip, label"),
        (HEADER, "has a header and no rows"),
        (f"{HEADER}a,x,x,0.5\n", "line 2: expected 5 cells, got 4"),
        (f"{HEADER}a,x,x,0.5,0.5\nb,x,x,much,0.5\n", "line 3: could not convert string to float: 'much'"),
        (f"{HEADER}a,x,x,nan,0.5\n", "line 2: expected a probability, got nan"),
        (f"{HEADER}a,x,x,0.5,7\n", "line 2: expected a probability, got 7"),
        (f"{HEADER}a,x,x,0.5,0.5\na,x,y,0.5,0.5\n", "line 3: clip 'a' is there more than once"),
        (f'{HEADER}a,x,"x,0.5,0.5\n', "not CSV: unexpected end of data"),
    ],
)
def test_a_wrong_file_says_where(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ScoreError, match=rf"p\.csv.*{message}"):
        read_predictions(tmp_path / "p.csv")


def test_a_missing_file_and_one_of_other_bytes_are_told(tmp_path):
    with pytest.raises(ScoreError, match=r"gone\.csv: can't be read \(No such file"):
        read_predictions(tmp_path / "gone.csv")
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ScoreError, match=r"p\.csv: expected a CSV in UTF-8"):
        read_predictions(tmp_path / "p.csv")
