import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrecog.errors import ConfigError, ScoreError
from avrecog.experiments.comparison import Side, changed, compare_sides, find_row, format_comparison
from avrecog.metrics import bootstrap_gain, mcnemar_exact
from rows import experiment, grid
from rows import said as predictions


def clips(n, first=0):
    return [f"c{i:03}" for i in range(first, first + n)]


def side(name, *tables):
    return Side(name, {str(seed): table for seed, table in enumerate(tables)})


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), n_seeds=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_run_compared_with_itself_has_no_difference(n, n_seeds, seed):
    one = side("a", *(predictions(clips(n), 0.6, seed + i) for i in range(n_seeds)))
    found = compare_sides(one, one)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.p_value == (1 if n_seeds == 1 else None)
    assert found.wins == (0, 0)
    assert not found.is_more_than_luck


@settings(max_examples=30, deadline=None)
@given(n=st.integers(5, 60), seed=st.integers(0, 99), extra=st.integers(0, 9))
def test_the_numbers_are_those_of_the_common_clips_whatever_their_order(n, seed, extra):
    a, b = predictions(clips(n), 0.6, seed), predictions(clips(n, extra - 5 if extra > 5 else 0), 0.7, seed + 1000)
    order = np.random.default_rng(seed).permutation(len(b.clip_ids))
    columns = ("clip_ids", "labels", "predicted", "confidence", "label_probability")
    shuffled = dataclasses.replace(b, **{name: getattr(b, name)[order] for name in columns})
    found = compare_sides(side("a", a), side("b", shuffled))
    common = np.intersect1d(a.clip_ids, b.clip_ids)
    of_a, of_b = (table.correct[np.isin(table.clip_ids, common)] for table in (a, b))
    assert found.n_common == len(common)
    assert found.difference == pytest.approx(of_b.mean() - of_a.mean())
    assert (found.low, found.high) == bootstrap_gain(of_b, of_a)
    assert found.p_value == mcnemar_exact(of_b, of_a)
    assert found.wins == ((of_a & ~of_b).sum(), (of_b & ~of_a).sum())
    assert found.top1 == pytest.approx((a.correct.mean(), b.correct.mean()))


def test_a_large_difference_is_more_than_luck_and_a_small_one_is_not():
    a, b = predictions(clips(200), 0.4, 0), predictions(clips(200), 0.9, 1)
    better = compare_sides(side("x", a), side("y", b))
    assert "B is better than A by more than luck with these clips." in format_comparison(
        side("x", a), side("y", b), better
    )
    assert "B is worse than A by more than luck" in "\n".join(
        format_comparison(side("y", b), side("x", a), compare_sides(side("y", b), side("x", a)))
    )
    few = side("z", predictions(clips(5), 1, 2))
    found = compare_sides(side("x", predictions(clips(5), 0.5, 3)), few)
    assert "No difference that luck with these clips can't explain." in format_comparison(few, few, found)
    assert found.detectable == 1  # five clips can't make p < 0.05


def test_what_can_be_detected_is_detected_four_times_in_five():
    rng = np.random.default_rng(0)
    found = compare_sides(side("a", predictions(clips(400), 0.7, 1)), side("b", predictions(clips(400), 0.7, 2)))
    # as many clips differ as there, but with that difference between them
    spread = (found.wins[0] + found.wins[1]) / 400
    up = (spread + found.detectable) / 2
    seen = 0
    for _ in range(400):
        better, worse, _ = rng.multinomial(400, [up, spread - up, 1 - spread])
        b, a = np.arange(400) < better, (np.arange(400) >= better) & (np.arange(400) < better + worse)
        seen += mcnemar_exact(a, b) < 0.05
    assert 0.7 < seen / 400 < 0.9


def test_gathered_sides_are_compared_on_their_common_seeds():
    tables = [predictions(clips(50), 0.6, i) for i in range(4)]
    a, b = Side("a", {"0": tables[0], "1": tables[1]}), Side("b", {"1": tables[2], "2": tables[3]})
    found = compare_sides(a, b)
    assert list(found.seeds) == ["1"]
    assert found.difference == pytest.approx(tables[2].correct.mean() - tables[1].correct.mean())
    with pytest.raises(ScoreError, match="no seed is in both: a has 0, 1, b has 2, 3"):
        compare_sides(a, Side("b", {"2": tables[2], "3": tables[3]}))


def test_a_single_run_is_compared_with_the_mean_over_the_seeds_of_the_other():
    tables = [predictions(clips(50), 0.6, i) for i in range(3)]
    found = compare_sides(side("a", tables[0]), side("b", *tables[1:]))
    assert found.p_value is None
    assert found.difference == pytest.approx(
        np.mean([table.correct.mean() for table in tables[1:]]) - tables[0].correct.mean()
    )
    assert "mean of seeds 0, 1" in "\n".join(format_comparison(side("a", tables[0]), side("b", *tables[1:]), found))


def test_nothing_in_common_and_other_labels_are_errors():
    with pytest.raises(ScoreError, match="no clip is in both: a has 'c000', b has 'c100'"):
        compare_sides(side("a", predictions(clips(5), 1, 0)), side("b", predictions(clips(5, 100), 1, 0)))
    table = predictions(clips(5), 1, 0)
    other = dataclasses.replace(table, labels=np.array(["zebra", *table.labels[1:]]))
    with pytest.raises(ScoreError, match="clip 'c000' is .* for a and 'zebra' for b"):
        compare_sides(side("a", table), side("b", other))


def test_a_row_is_found_by_its_id_its_beginning_and_its_name():
    old, _ = experiment(1, 0, **{"dvc.exp_name": "tall-oak"})
    new, _ = experiment(1, 1, started=5, **{"dvc.exp_name": "tall-oak"})
    rows = [*new, *old]
    assert find_row("tall-oak", rows, None).model == "fusion"
    assert find_row("tall-oak", rows, None).started_ms == 5
    assert find_row("tall-oak", rows, "rgb") == new[1]
    assert find_row(old[0].run_id, rows, None) == old[0]
    assert find_row(old[0].run_id[:13], rows, None) == old[0]
    assert find_row(old[0].run_id, rows, "rgb") == old[1]


def test_names_that_mean_nothing_or_several_things_are_told():
    rows, _ = grid([1], [0, 1], **{"dvc.exp_name": "tall-oak"})
    with pytest.raises(ConfigError, match=r"tall-oek: neither a score file.*did you mean tall-oak\?"):
        find_row("tall-oek", rows, None)
    with pytest.raises(ConfigError, match=r"zzz: neither.*experiments there: tall-oak"):
        find_row("zzz", rows, None)
    with pytest.raises(ConfigError, match=r"00200: neither"):
        find_row("00200", rows, None)
    seeds = [dataclasses.replace(row, run_id=f"abcdef{number:026}") for number, row in enumerate(rows)]
    with pytest.raises(ConfigError, match="abcdef0: 6 runs begin so: .*give more of it"):
        find_row("abcdef0", seeds, None)
    with pytest.raises(ConfigError, match="tall-oak: has no row of model sound; there are audio, fusion, rgb"):
        find_row("tall-oak", rows, "sound")
    with pytest.raises(ConfigError, match="tall-oak: has rows of audio, rgb; choose with --model"):
        find_row("tall-oak", [row for row in rows if row.model != "fusion"], None)
    assert find_row("tall-oak", [row for row in rows if row.model == "rgb"], None).model == "rgb"


def test_what_changed_is_listed():
    tags = {"data.splits": "s1", "torch": "2.9", "git.dirty": "true"}
    a = experiment(1, 0, **tags)[0][0]
    b = experiment(1, 0, lr="0.5", **{"data.splits": "s2", "torch": "2.9", "git.commit": "b" * 40})[0][0]
    assert changed(a, b, " src/x.py | 2 +-") == [
        "train.lr: 0.1 -> 0.5",
        "data.splits: s1 -> s2",
        "the splits differ: they were not trained and tested on the same clips",
        f"git.commit: {'a' * 40}..{'b' * 40}",
        "   src/x.py | 2 +-",
        "A was made from a working tree with changes of more than parameters that no commit has",
    ]
    assert "this repository doesn't have both" in "\n".join(changed(a, b, None))
    assert "no file of src or stages differs" in "\n".join(changed(a, b, ""))
    clean = dataclasses.replace(a, tags={key: value for key, value in a.tags.items() if key != "git.dirty"})
    assert changed(clean, clean, None) == ["nothing that is recorded"]


def test_rows_of_two_models_are_told_apart_by_whole_parameter_names():
    (audio, rgb, fusion), _ = experiment(1, 0)
    lines = changed(audio, fusion, None)
    assert "models.rgb.train.lr: - -> 0.1" in lines
    assert not [line for line in lines if line.startswith(("train.", "models.audio.", "coefficients"))]
    assert "models.audio.train.lr: 0.1 -> -" in changed(audio, rgb, None)
