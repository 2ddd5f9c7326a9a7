import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avrecog.commands.gather import page
from avrecog.errors import ScoreError
from avrecog.experiments.aggregate import Cell, heading, lacking, make_groups, shared_params, summarise
from avrecog.metrics import bootstrap_gain, bootstrap_interval, mcnemar_exact
from rows import experiment, grid


def only_group(rows):
    (group,), n_alone = make_groups(rows)
    assert n_alone == 0
    return group


def by_model(summaries):
    return {summary.model: summary for summary in summaries}


@settings(max_examples=25, deadline=None)
@given(n_folds=st.integers(1, 4), n_seeds=st.integers(1, 3), order=st.integers(0, 100))
def test_the_order_of_rows_changes_nothing(n_folds, n_seeds, order):
    rows, predictions = grid(list(range(1, n_folds + 1)), list(range(n_seeds)))
    shuffled = random.Random(order).sample(rows, len(rows))
    one, other = make_groups(rows), make_groups(shuffled)
    assert one == other
    for group, same in zip(one[0], other[0], strict=True):
        found, again = summarise(group, predictions), summarise(same, predictions)
        assert page(group, one[0], found) == page(same, other[0], again)
        assert [summary.gain for summary in found] == [summary.gain for summary in again]


@settings(max_examples=25, deadline=None)
@given(n_folds=st.integers(1, 4), n_seeds=st.integers(1, 3), n_clips=st.integers(1, 30))
def test_the_numbers_equal_direct_computation(n_folds, n_seeds, n_clips):
    rows, predictions = grid(list(range(n_folds)), list(range(n_seeds)), n_clips)
    if n_folds * n_seeds == 1:
        assert make_groups(rows) == ([], 1)
        return
    group = only_group(rows)
    for summary in summarise(group, predictions):
        tables = np.array(
            [
                [
                    predictions[group.rows(summary.model)[Cell(fold, str(seed))].run_id].correct
                    for seed in range(n_seeds)
                ]
                for fold in range(n_folds)
            ]
        )  # folds, seeds, clips
        assert summary.top1 == pytest.approx(tables.mean())
        assert summary.n_clips == n_folds * n_clips
        if n_folds > 1:
            assert summary.sd_folds == pytest.approx(tables.mean(axis=(1, 2)).std(ddof=1))
        else:
            assert summary.sd_folds is None
        if n_seeds > 1:
            assert summary.sd_seeds == pytest.approx(tables.mean(axis=(0, 2)).std(ddof=1))
        else:
            assert summary.sd_seeds is None
        low, high = summary.interval
        assert low <= summary.top1 + 1e-9
        assert high >= summary.top1 - 1e-9
        for seed, pooled in summary.pooled.items():
            assert pooled.correct.mean() == pytest.approx(tables[:, int(seed)].mean())


def test_with_one_seed_the_gain_is_that_of_the_paired_tests():
    rows, predictions = grid([1, 2, 3], [0], 50)
    found = by_model(summarise(only_group(rows), predictions))
    correct = {model: found[model].pooled["0"].correct for model in found}
    better = max(("audio", "rgb"), key=lambda model: correct[model].mean())
    gain = found["fusion"].gain
    assert gain.over == better
    assert gain.top1 == pytest.approx(correct["fusion"].mean() - correct[better].mean())
    assert gain.p_value == mcnemar_exact(correct["fusion"], correct[better])
    assert (gain.low, gain.high) == pytest.approx(bootstrap_gain(correct["fusion"], correct[better]), abs=0.03)
    assert found["audio"].interval == pytest.approx(bootstrap_interval(correct["audio"]), abs=0.03)
    assert found["audio"].gain is None


def test_several_seeds_narrow_the_interval_and_have_no_p_value():
    first, several = (
        by_model(summarise(only_group(rows), tables))
        for rows, tables in (grid([1, 2], [0], 60), grid([1, 2], [0, 1, 2, 3], 60))
    )
    one, many = (found["rgb"].interval[1] - found["rgb"].interval[0] for found in (first, several))
    assert many < 0.8 * one
    assert several["fusion"].gain.p_value is None
    assert first["fusion"].gain.p_value is not None


def test_other_parameters_are_another_group_that_is_told_apart():
    slow, fast = grid([1, 2], [0]), grid([1, 2], [0], lr="0.5")
    groups, _ = make_groups([*slow[0], *fast[0]])
    assert [heading(group, groups) for group in groups] == [
        "clips.csv; models.audio.train.lr 0.1; models.rgb.train.lr 0.1",
        "clips.csv; models.audio.train.lr 0.5; models.rgb.train.lr 0.5",
    ]
    assert groups[0].digest != groups[1].digest


def test_splits_without_folds_are_no_fold_of_a_group_with_folds():
    folds, none = grid([1, 2], [0, 1]), grid([None], [0, 1])
    groups, _ = make_groups([*folds[0], *none[0]])
    assert sorted([cell.fold for cell in group.cells] for group in groups if None in {c.fold for c in group.cells}) == [
        [None, None]
    ]
    assert len(groups) == 2


def test_the_newest_run_of_a_cell_counts():
    rows, predictions = grid([1, 2], [0])
    newer, tables = experiment(2, 0, started=7)
    group = only_group([*newer, *rows])
    assert group.rows("audio")[Cell(2, "0")].started_ms == 7
    assert by_model(summarise(group, predictions | tables))["audio"].n_clips == 40


def test_more_folds_do_not_change_the_digest():
    assert only_group(grid([1, 2], [0])[0]).digest == only_group(grid([1, 2, 3], [0, 1])[0]).digest


def test_a_run_that_stands_alone_is_counted_not_shown():
    rows, _ = grid([1], [0])
    assert make_groups(rows) == ([], 1)


def test_an_annotation_can_be_chosen():
    rows, _ = grid([1, 2], [0])
    assert len(make_groups(rows, "clips")[0]) == 1
    assert make_groups(rows, "other") == ([], 0)


def test_cells_that_are_missing_are_named_and_spread_over_seeds_is_of_whole_folds():
    rows, predictions = grid([1, 2, 3], [0, 1])
    kept = [row for row in rows if not (row.params["data.test_fold"] == "3" and row.run_id[3:5] == "01")]
    group = only_group([row for row in kept if not (row.model == "rgb" and row.run_id.startswith("10200"))])
    assert lacking(group) == ["fold 1 with seed 0 (rgb)", "fold 3 with seed 1"]
    audio = by_model(summarise(group, predictions))["audio"]
    top1 = {cell: row.metrics["test.top1"] for cell, row in group.rows("audio").items()}
    means = [np.mean([top1[Cell(fold, seed)] for fold in (1, 2)]) for seed in "01"]
    assert audio.sd_seeds == pytest.approx(np.std(means, ddof=1))
    assert "Incomplete: missing are fold 1 with seed 0 (rgb), fold 3 with seed 1." in page(
        group, [group], summarise(group, predictions)
    )


def test_a_clip_in_two_folds_is_named_with_its_runs():
    rows, predictions = grid([1, 2], [0])
    group = only_group(rows)
    one, other = (group.rows("rgb")[Cell(fold, "0")].run_id for fold in (1, 2))
    with pytest.raises(ScoreError, match=rf"clip 'f1c0' is in the test of fold 1 \(run {one}\) and of fold 2"):
        summarise(group, predictions | {other: predictions[one]})


def test_without_some_predictions_there_is_no_interval_and_it_is_said():
    rows, predictions = grid([1, 2], [0])
    group = only_group(rows)
    del predictions[group.rows("rgb")[Cell(2, "0")].run_id]
    found = by_model(summarise(group, predictions))
    assert found["rgb"].interval is None
    assert found["rgb"].n_clips == 40
    assert found["fusion"].gain is None
    assert found["audio"].interval is not None
    assert "No interval for rgb: some rows keep no predictions" in page(group, [group], list(found.values()))


def test_code_and_clips_that_are_not_the_same_are_told():
    rows, predictions = grid([1], [0], **{"data.manifest": "m1"})
    more, tables = grid([2], [0], **{"git.commit": "b" * 40, "git.dirty": "true", "data.manifest": "m2"})
    group = only_group([*rows, *more])
    text = page(group, [group], summarise(group, predictions | tables))
    assert "Not all of the same code: git.commit is aaaaaaaaaa, bbbbbbbbbb." in text
    assert "Not all of the same manifests: data.manifest is m1, m2." in text
    assert "changes of more than parameters that no commit has" in text


def test_what_the_rows_share_has_no_seed_and_nothing_found():
    shared = shared_params(list(only_group(grid([1, 2], [0, 1])[0]).rows("fusion").values()))
    assert shared["models.audio.train.lr"] == "0.1"
    assert not {"data.test_fold", "models.audio.train.seed", "coefficients.audio"} & shared.keys()
