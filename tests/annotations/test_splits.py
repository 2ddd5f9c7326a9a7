from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.settings import DataConfig
from avrecog.annotations.splits import counts, make_splits
from avrecog.errors import LeakError, ManifestError


def split(labels: list[str], ids=None, groups=None, annotated=None, folds=None, **changes: Any) -> dict[str, str]:
    ids = ids or [f"clip{index}" for index in range(len(labels))]
    nothing = [None] * len(ids)
    rows = [
        AnnotatedClip(clip_id, label, "here", split=name, fold=fold, group=group)
        for clip_id, label, name, fold, group in zip(
            ids, labels, annotated or nothing, folds or nothing, groups or ids, strict=True
        )
    ]
    return make_splits(ids, rows, DataConfig(source="csv", annotation="clips.csv", **changes))


def names(splits: dict[str, str], wanted: str) -> set[str]:
    return {clip_id for clip_id, name in splits.items() if name == wanted}


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15)), min_size=1, max_size=60),
    seed=st.integers(0, 5),
    fraction=st.floats(0.1, 0.5),
)
def test_three_groups_can_always_be_cut_and_no_group_is_torn(rows, seed, fraction):
    labels, groups = [label for label, _ in rows], [f"g{group}" for _, group in rows]
    if len(set(groups)) < 3:
        with pytest.raises(ManifestError, match=r"clips in . groups are too few to cut it off"):
            split(labels, groups=groups, seed=seed, val_fraction=fraction, test_fraction=fraction)
        return
    splits = split(labels, groups=groups, seed=seed, val_fraction=fraction, test_fraction=fraction)
    sides = defaultdict(set)
    for group, side in zip(groups, splits.values(), strict=True):
        sides[group].add(side)
    assert all(len(side) == 1 for side in sides.values())
    assert set(splits.values()) == {"train", "val", "test"}


@given(
    sizes=st.lists(st.integers(3, 40), min_size=1, max_size=5),
    seed=st.integers(0, 5),
    fraction=st.floats(0.05, 0.6),
)
def test_each_class_of_three_clips_or_more_is_in_every_split(sizes, seed, fraction):
    labels = [f"class {number}" for number, size in enumerate(sizes) for _ in range(size)]
    splits = split(labels, seed=seed, val_fraction=fraction, test_fraction=fraction)
    table = counts(splits, {f"clip{index}": label for index, label in enumerate(labels)})
    assert all(set(by_class) == set(labels) for by_class in table.values()), table


def first_that_fit(splits: list[str], labels: list[str], groups: list[str], fraction: float, generator) -> set[int]:
    """What a cut takes where each class can give its share exactly: groups in a random order, none above its share."""
    members = defaultdict(list)
    for index, group in enumerate(groups):
        if splits[index] == "train":
            members[group].append(index)
    available = Counter(labels[index] for indices in members.values() for index in indices)
    taken, result = Counter(), set()
    for position in generator.permutation(len(members)):
        indices = members[sorted(members)[position]]
        gives = Counter(labels[index] for index in indices)
        if all(taken[label] + count <= round(available[label] * fraction) for label, count in gives.items()):
            taken += gives
            result.update(indices)
    return result


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("per_group", [1, 2])
def test_a_cut_that_is_exact_is_the_one_that_it_always_was(seed, per_group, caplog):
    labels = [label for label in "abc" for _ in range(40)]
    groups = [f"{label}{index // per_group}" for index, label in enumerate(labels)]
    splits = list(split(labels, groups=groups, seed=seed).values())
    expected = ["train"] * len(labels)
    for name, part in (("test", 1), ("val", 0)):
        taken = first_that_fit(expected, labels, groups, 0.2, np.random.default_rng([seed, part]))
        expected = [name if index in taken else each for index, each in enumerate(expected)]
    assert splits == expected
    assert not caplog.text


@pytest.mark.parametrize("fraction", [0.2, 0.25, 0.34])
@pytest.mark.parametrize("seed", [0, 1])
def test_five_speakers_are_cut_as_nearly_as_they_can_be_and_one_line_says_so(fraction, seed, caplog):
    generator = np.random.default_rng(0)
    labels = [f"digit {digit}" for digit in generator.integers(10, size=300)]
    groups = [f"speaker {speaker}" for speaker in generator.integers(5, size=300)]
    splits = split(labels, groups=groups, seed=seed, val_fraction=fraction, test_fraction=fraction)
    speakers = {
        side: {groups[int(clip_id[4:])] for clip_id in names(splits, side)} for side in ("train", "val", "test")
    }
    n_test = {0.2: 1, 0.25: 1, 0.34: 2}[fraction]  # 300 clips: 60, 75 and 102
    assert [len(speakers[side]) for side in ("train", "val", "test")] == [4 - n_test, 1, n_test]
    (line,) = caplog.messages
    assert f"data.test_fraction {fraction:g} and data.val_fraction {fraction:g} can't be had with whole groups" in line
    assert (
        f"test {len(names(splits, 'test')) / 300:.2g} ({len(names(splits, 'test'))} of 300 clips, {n_test} of 5" in line
    )


def test_classes_of_three_clips_have_one_in_each_split_and_one_line_says_so(caplog):
    labels = [f"class {index // 3}" for index in range(30)]
    splits = split(labels)
    table = counts(splits, {f"clip{index}": label for index, label in enumerate(labels)})
    assert all(by_class == dict.fromkeys(set(labels), 1) for by_class in table.values())
    (line,) = caplog.messages
    assert line.endswith(
        "the nearest: test 0.33 (10 of 30 clips, 10 of 30 groups); val 0.5 (10 of 20 clips, 10 of 20 groups)"
    )


def test_a_class_of_one_clip_or_one_group_stays_in_train():
    labels = ["single", *["twins"] * 2, *["common"] * 20]
    groups = ["s", "t", "t", *(f"c{index}" for index in range(20))]
    for seed in range(5):
        splits = split(labels, groups=groups, seed=seed, test_fraction=0.6, val_fraction=0.6)
        assert {splits["clip0"], splits["clip1"]} == {"train"}


def test_rare_classes_that_share_groups_are_in_train_all_the_same():
    labels = ["a", "b", *["a"] * 10, *["c"] * 30]
    groups = ["x", "y", *["y"] * 10, *(f"c{index // 10}" for index in range(30))]
    for seed in range(5):
        splits = split(labels, groups=groups, seed=seed)
        assert {labels[int(clip_id[4:])] for clip_id in names(splits, "train")} == {"a", "b", "c"}


def test_among_cuts_that_are_equally_near_the_seed_decides():
    labels, groups = ["a", "b"] * 15, [f"g{index // 6}" for index in range(30)]
    found = {frozenset(names(split(labels, groups=groups, seed=seed, test_fraction=0.3), "test")) for seed in range(9)}
    assert len(found) > 2


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
    forth, back = (split(["ab"[int(i[4:]) % 2] for i in order], ids=order) for order in (ids, ids[::-1]))
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


@pytest.mark.parametrize(
    ("named", "sizes"),  # of 100 clips the named ones first; train, val and test of the others
    [
        ({"test": 20}, (64, 16, 0)),
        ({"val": 20}, (64, 0, 16)),
        ({"train": 20}, (51, 13, 16)),
        ({"train": 20, "test": 20}, (48, 12, 0)),
        ({"train": 20, "val": 20}, (48, 0, 12)),
        ({"val": 20, "test": 20}, (60, 0, 0)),
        ({"train": 20, "val": 20, "test": 20}, (40, 0, 0)),
    ],
)
def test_clips_without_a_split_are_cut_and_those_that_have_one_stand(named, sizes, caplog):
    annotated = [name for name, count in named.items() for _ in range(count)]
    n_blank = 100 - len(annotated)
    splits = list(split(["a"] * 100, annotated=[*annotated, *[None] * n_blank]).values())
    assert splits[: len(annotated)] == annotated
    others = Counter(splits[len(annotated) :])
    assert tuple(others[name] for name in ("train", "val", "test")) == sizes
    shares = ", ".join(f"{size} {name}" for name, size in zip(("train", "val", "test"), sizes, strict=True) if size)
    assert caplog.messages == [f"{n_blank} of 100 clips have no split in the annotation: {shares}"]


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_clip_without_a_split_goes_where_its_group_goes(name):
    annotated = [name, *[None] * 39]
    splits = split(["a", "b"] * 20, groups=["g"] * 4 + [f"h{index}" for index in range(36)], annotated=annotated)
    assert {splits[f"clip{index}"] for index in range(4)} == {name}
    assert set(splits.values()) == {"train", "val", "test"}


def test_what_lacks_is_cut_from_train_where_every_clip_without_a_split_goes_with_its_group():
    annotated = [*["train"] * 10, *["test"] * 5, None]
    splits = split(["a"] * 16, groups=[*(f"g{index}" for index in range(15)), "g0"], annotated=annotated)
    assert len(names(splits, "val")) == 2
    assert names(splits, "test") == {f"clip{index}" for index in range(10, 15)}


def test_a_group_with_two_splits_and_a_clip_that_has_none_is_refused():
    with pytest.raises(LeakError, match=r"group 'g' stands in train and in test \(train: clip0; test: clip1\)"):
        split(["a"] * 5, groups=["g", "g", "g", "h", "i"], annotated=["train", "test", None, None, None])


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
