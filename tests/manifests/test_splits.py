from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog.errors import LeakError, ManifestError
from avrecog.manifests.splits import counts, make_splits


def split(labels: list[str], **changes: Any) -> dict[str, str]:
    ids = [f"clip{index}" for index in range(len(labels))]
    values = {
        "groups": ids,
        "annotated": [None] * len(ids),
        "folds": [None] * len(ids),
        "test_fold": None,
        "val_fraction": 0.2,
        "test_fraction": 0.2,
        "seed": 0,
    }
    return make_splits(ids, labels, **{**values, **changes})


def names(splits: dict[str, str], wanted: str) -> set[str]:
    return {clip_id for clip_id, name in splits.items() if name == wanted}


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15)), min_size=1, max_size=60),
    seed=st.integers(0, 5),
    fraction=st.floats(0.1, 0.5),
)
def test_a_group_never_stands_on_two_sides_and_no_share_is_exceeded(rows, seed, fraction):
    labels, groups = [label for label, _ in rows], [f"g{group}" for _, group in rows]
    try:
        splits = split(labels, groups=groups, seed=seed, val_fraction=fraction, test_fraction=fraction)
    except ManifestError:
        return  # too few to cut off a split
    sides = defaultdict(set)
    for group, side in zip(groups, splits.values(), strict=True):
        sides[group].add(side)
    assert all(len(side) == 1 for side in sides.values())
    of_class = Counter(labels)
    for side in ("val", "test"):
        taken = Counter(labels[int(clip_id[4:])] for clip_id in names(splits, side))
        assert all(count <= round(of_class[label] * fraction) for label, count in taken.items())


def test_each_class_gives_its_share():
    labels = ["common"] * 100 + ["rare"] * 20
    splits = split(labels, val_fraction=0.25, test_fraction=0.2)
    table = counts(splits, {f"clip{index}": label for index, label in enumerate(labels)})
    assert table == {
        "train": {"common": 60, "rare": 12},
        "val": {"common": 20, "rare": 4},
        "test": {"common": 20, "rare": 4},
    }


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    labels = ["a", "b"] * 20
    assert split(labels, seed=3) == split(labels, seed=3)
    for side in ("val", "test"):
        assert names(split(labels, seed=3), side) != names(split(labels, seed=4), side)


def test_the_order_of_the_rows_does_not_matter():
    ids = [f"clip{index}" for index in range(20)]
    fixed = {"test_fold": None, "val_fraction": 0.2, "test_fraction": 0.2, "seed": 0}
    forth, back = (
        make_splits(order, ["ab"[int(i[4:]) % 2] for i in order], order, [None] * 20, [None] * 20, **fixed)
        for order in (ids, ids[::-1])
    )
    assert forth == back


def test_the_annotations_own_splits_stand():
    annotated = ["train", "val", "test", "train"]
    assert list(split(list("abab"), annotated=annotated).values()) == annotated


def test_a_val_is_cut_from_train_and_never_from_test():
    annotated = ["train", "test"] * 20
    splits = split(["a"] * 40, annotated=annotated)
    assert names(splits, "test") == {f"clip{index}" for index in range(1, 40, 2)}
    assert len(names(splits, "val")) == 4


def test_a_test_is_cut_from_train_and_never_from_val():
    annotated = ["train", "val"] * 20
    splits = split(["a"] * 40, annotated=annotated)
    assert names(splits, "val") == {f"clip{index}" for index in range(1, 40, 2)}
    assert len(names(splits, "test")) == 4


def test_the_test_does_not_change_with_the_fraction_of_val():
    one, other = (split(["a", "b"] * 30, val_fraction=fraction) for fraction in (0.1, 0.4))
    assert names(one, "test") == names(other, "test")
    assert names(one, "val") < names(other, "val")


def test_a_fold_is_the_test_and_the_others_are_train_and_val(caplog):
    folds = [index % 5 for index in range(50)]
    splits = split(["a"] * 50, folds=folds, test_fold=2, annotated=["train"] * 50)
    assert "column `split` is passed over" in caplog.text
    assert names(splits, "test") == {f"clip{index}" for index in range(2, 50, 5)}
    assert len(names(splits, "val")) == 8


@pytest.mark.parametrize(("folds", "known"), [([1, 2, None], "1, 2"), ([None] * 3, "none")])
def test_a_fold_that_no_clip_has_is_refused(folds, known):
    with pytest.raises(ManifestError, match=f"no clip has fold 9; the annotation's folds: {known}"):
        split(["a"] * 3, folds=folds, test_fold=9)


def test_a_clip_without_a_fold_is_never_taken_for_training():
    with pytest.raises(ManifestError, match="data.test_fold: 1 clips have no fold, the first is clip2; fill the col"):
        split(["a"] * 3, folds=[1, 2, None], test_fold=1)


def test_splits_for_some_clips_only_are_refused():
    with pytest.raises(ManifestError, match="2 clips have no split while others do, the first is clip1"):
        split(["a"] * 3, annotated=["train", None, None])


@pytest.mark.parametrize(
    "changes",
    [{"annotated": ["train", "test", "val"]}, {"folds": [0, 1, 0], "test_fold": 1}],
)
def test_a_group_that_the_annotation_puts_on_two_sides_is_refused_with_its_clips(changes):
    with pytest.raises(LeakError, match=r"group 'g' stands in train and in test \(train: clip0; test: clip1\)"):
        split(["a"] * 3, groups=["g", "g", "h"], **changes)


def test_every_torn_group_is_named():
    with pytest.raises(LeakError) as error:
        split(["a"] * 5, groups=["g", "g", "h", "h", "h"], annotated=["val", "test", "val", "test", "train"])
    assert "group 'g' stands in val and in test (val: clip0; test: clip1)" in str(error.value)
    assert "group 'h' stands in train and in val and in test (train: clip4; val: clip2; test: clip3)" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("changes", "empty"),
    [
        ({"groups": ["g"] * 4}, "val"),
        ({"annotated": ["val", "test", "test", "test"]}, "train"),
        ({"annotated": ["val", "train", "val", "val"]}, "test"),
    ],
)
def test_a_split_that_stays_empty_is_refused(changes, empty):
    with pytest.raises(ManifestError, match=f"split {empty} is empty: 4 clips in . groups are too few"):
        split(["a"] * 4, **changes)
