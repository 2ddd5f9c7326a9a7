import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog.errors import ScoreError
from avrecog.scores.npz import read_scores, write_scores
from avrecog.scores.table import ScoreTable, join_scores, probabilities


def table(n_clips: int = 5, n_classes: int = 3, seed: int = 0, **changes) -> ScoreTable:
    rng = np.random.default_rng(seed)
    values = {
        "clip_ids": np.array([f"clip{i}" for i in range(n_clips)]),
        "labels": np.arange(n_clips) % n_classes,
        "scores": rng.normal(size=(n_clips, n_classes)).astype(np.float32),
        "classes": tuple(f"class {i}" for i in range(n_classes)),
        "kind": "logits",
        "model": "audio",
        "split": "val",
    }
    return ScoreTable(**{**values, **changes})


def rows(given: ScoreTable, order: np.ndarray) -> ScoreTable:
    return dataclasses.replace(
        given, clip_ids=given.clip_ids[order], labels=given.labels[order], scores=given.scores[order]
    )


def assert_same(one: ScoreTable, other: ScoreTable) -> None:
    for field in dataclasses.fields(ScoreTable):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert np.array_equal(a, b), field.name
        assert type(a) is type(b)


@given(n_clips=st.integers(1, 20), n_classes=st.integers(1, 5), name=st.text("aä ☂/", min_size=1))
def test_a_score_file_brings_back_what_was_written(tmp_path_factory, n_clips, n_classes, name):
    path = tmp_path_factory.getbasetemp() / "round_trip.npz"
    written = table(n_clips, n_classes, model=name)
    write_scores(path, written)
    assert_same(read_scores(path), written)


def test_equal_tables_give_equal_bytes(tmp_path):
    write_scores(tmp_path / "deep" / "a.npz", table())
    write_scores(tmp_path / "b.npz", table())
    assert (tmp_path / "deep" / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.npz", "deep"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.zeros((5, 3))}, r"scores: expected \(clips, 3 classes\) float32, got shape \(5, 3\) float64"),
        ({"scores": np.zeros((5, 4), np.float32)}, r"got shape \(5, 4\)"),
        ({"scores": np.zeros((0, 3), np.float32)}, "got 0 clips"),
        ({"clip_ids": np.arange(5)}, r"clip_id: expected \(5,\) text, got shape \(5,\) int64"),
        ({"labels": np.zeros(5, np.int32)}, r"label: expected \(5,\) int64, got shape \(5,\) int32"),
        ({"labels": np.zeros(4, np.int64)}, r"label: expected \(5,\)"),
        ({"labels": np.array([0, 1, 2, 3, 0])}, "label: expected 0 to 2, got 3 for clip 'clip3'"),
        ({"classes": ("a", "b", "a")}, "classes: 'a' is there twice"),
        ({"kind": "votes"}, "kind: expected logits or probabilities, got 'votes'"),
        ({"split": "dev"}, "split: expected train, val or test, got 'dev'"),
        ({"model": ""}, "model: expected a name"),
        ({"clip_ids": np.array(list("abbcc"))}, "clip_id: clip 'b' and 1 more are there more than once"),
        ({"clip_ids": np.array(list("abbcd"))}, "clip_id: clip 'b' is there more than once"),
        ({"scores": np.full((5, 3), np.nan, np.float32)}, "NaN or infinity for clip 'clip0' and 4 more"),
        ({"kind": "probabilities"}, "expected probabilities .* for clip 'clip0'; if they are logits"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ScoreError, match=message):
        table(**changes)


def save(path, **changes) -> None:
    good = table()
    entries = {
        "clip_id": good.clip_ids,
        "label": good.labels,
        "scores": good.scores,
        "classes": np.array(good.classes),
        "kind": np.array("logits"),
        "model": np.array("audio"),
        "split": np.array("val"),
    }
    np.savez(path, **{name: value for name, value in {**entries, **changes}.items() if value is not None})


def test_reading_says_which_file_is_wrong_and_what_to_do(tmp_path):
    path = tmp_path / "val.npz"
    with pytest.raises(ScoreError, match=r"val\.npz: there is no such score file; make it with stage test"):
        read_scores(path)
    save(path, label=np.array([0, 1, 2, 9, 0]))
    with pytest.raises(ScoreError, match=r"val\.npz: label: expected 0 to 2, got 9 for clip 'clip3'; make it anew"):
        read_scores(path)
    save(path, kind=None, split=None)
    with pytest.raises(ScoreError, match=r"entries missing: kind, split; got clip_id, label"):
        read_scores(path)


def test_nothing_is_ever_unpickled(tmp_path):
    path = tmp_path / "val.npz"
    save(path, classes=np.array(["a", "b", "c"], dtype=object))
    with pytest.raises(ScoreError, match="Object arrays cannot be loaded"):
        read_scores(path)
    path.write_bytes(pickle.dumps([[0.1, 0.9]]))
    with pytest.raises(ScoreError, match=r"expected a score file \(.npz without pickled objects\)"):
        read_scores(path)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "val.npz"
    write_scores(path, table())
    whole = path.read_bytes()
    for n_bytes in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(ScoreError, match="can't be read"):
            read_scores(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ScoreError, match="File is not a zip file"):
        read_scores(path)


@given(seed=st.integers(0, 100), n_clips=st.integers(1, 30))
def test_joining_undoes_any_row_order(seed, n_clips):
    first = table(n_clips)
    other = table(n_clips, seed=1, model="rgb")
    shuffled = rows(other, np.random.default_rng(seed).permutation(n_clips))
    joined = join_scores([first, shuffled])
    assert_same(joined[0], first)
    assert_same(joined[1], other)


def test_a_missing_clip_is_named():
    whole, part = table(), rows(table(model="rgb"), np.array([0, 2, 4]))
    message = r"clip 'clip1' and 1 more are in the scores of {} but not of {}"
    with pytest.raises(ScoreError, match=message.format(r"audio \(val\)", r"rgb \(val\)")):
        join_scores([whole, part])
    with pytest.raises(ScoreError, match=message.format(r"audio \(val\)", r"rgb \(val\)")):
        join_scores([part, whole])


def test_what_differs_is_named():
    with pytest.raises(ScoreError, match=r"different splits: audio \(val\) and audio \(test\)"):
        join_scores([table(), table(split="test")])
    with pytest.raises(ScoreError, match="class 1 is 'class 1' and 'x'"):
        join_scores([table(), table(classes=("class 0", "x", "class 2"))])
    with pytest.raises(ScoreError, match="different classes: 3 and 4 of them"):
        join_scores([table(), table(n_classes=4)])
    with pytest.raises(ScoreError, match=r"clip 'clip4' is 'class 1' for audio \(val\) but 'class 0' for rgb \(val\)"):
        join_scores([table(), table(model="rgb", labels=np.array([0, 1, 2, 0, 0]))])
    with pytest.raises(ScoreError, match="at least one score table, got none"):
        join_scores([])


def test_logits_become_their_softmax_and_probabilities_stay():
    scores = np.array([[0, np.log(3)], [1000, 0]], np.float32)
    logits = table(2, 2, scores=scores)
    assert probabilities(logits) == pytest.approx(np.array([[0.25, 0.75], [1, 0]]))
    ready = table(2, 2, scores=probabilities(logits), kind="probabilities")
    assert probabilities(ready) is ready.scores


def test_clips_that_a_model_says_it_left_out_are_left_out_of_all():
    one = table(6)
    other = rows(table(6, seed=1, model="rgb"), np.array([5, 3, 1, 0]))
    other = dataclasses.replace(other, left_out=np.array(["clip2", "clip4"]))
    first, second = join_scores([one, other])
    assert first.clip_ids.tolist() == second.clip_ids.tolist() == ["clip0", "clip1", "clip3", "clip5"]
    with pytest.raises(ScoreError, match="clip 'clip4' is in the scores of audio .* but not of rgb"):
        join_scores([one, dataclasses.replace(other, left_out=np.array(["clip2"]))])


def test_models_that_share_no_clip_cant_be_joined():
    one = dataclasses.replace(rows(table(4), np.array([0, 1])), left_out=np.array(["clip2", "clip3"]))
    other = dataclasses.replace(rows(table(4), np.array([2, 3])), left_out=np.array(["clip0", "clip1"]))
    with pytest.raises(ScoreError, match="no clip of split val in common"):
        join_scores([one, other])


def test_what_was_left_out_comes_back_from_the_file(tmp_path):
    given = table(left_out=np.array(["silent", "mute"]))
    write_scores(tmp_path / "a.npz", given)
    assert_same(read_scores(tmp_path / "a.npz"), given)


@pytest.mark.parametrize("left_out", [np.array(["clip1"]), np.array([1.0]), np.array([["a"]])])
def test_what_was_left_out_must_be_ids_that_are_not_scored(left_out):
    with pytest.raises(ScoreError, match="left_out"):
        table(left_out=left_out)
