import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avrecog.datasets.augment import AudioAugmentConfig
from avrecog.datasets.log_mel import AudioClips
from avrecog.datasets.mmaction2_sampling import FrameSampling
from avrecog.errors import ConfigError
from avrecog.features.settings import LogMelConfig
from avrecog.features.store import MemoryStore

CPU = torch.device("cpu")
FRONT_END = LogMelConfig(n_mels=4)
STRONG = AudioAugmentConfig(gain_db=6.0, n_frequency_masks=1, n_time_masks=2, frequency_shift=0.3)


def clip_set(*lengths: int, mel_frames: int = 10, augment: AudioAugmentConfig | None = None, **changes) -> AudioClips:
    """Clips `0`, `1`, ... whose row r holds 100 * clip + r in every band."""
    arrays = {
        str(index): np.repeat((100.0 * index + np.arange(n))[:, None], 4, axis=1).astype(np.float16)
        for index, n in enumerate(lengths)
    }
    clip_ids = changes.get("clip_ids", list(arrays))
    labels = np.arange(len(clip_ids))
    return AudioClips(
        MemoryStore(arrays),
        clip_ids,
        labels,
        mel_frames=mel_frames,
        front_end=FRONT_END,
        augment=augment or AudioAugmentConfig(),
        sampling=changes.get("sampling"),
    )


def rows_of(batch: torch.Tensor) -> list[list[float]]:
    return batch[:, 0, :, 0].tolist()


def test_a_training_batch_holds_a_piece_of_each_clip():
    clips = clip_set(30, 25, 10)
    (batch,) = clips.training_batch(np.array([2, 0, 1]), clips.draw(0, 0), CPU)
    assert batch.shape == (3, 1, 10, 4)
    assert batch.dtype == torch.float32
    for row, clip, n_rows in zip(rows_of(batch), [2, 0, 1], [10, 30, 25], strict=True):
        start = row[0] - 100 * clip
        assert 0 <= start <= n_rows - 10
        assert row == [row[0] + step for step in range(10)]


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_what_a_clip_becomes_does_not_depend_on_its_batch(order, batch_size):
    clips = clip_set(30, 5, 12, 10, 99, 40, augment=STRONG)
    draw = clips.draw(3, 7)
    (whole,) = clips.training_batch(np.arange(6), draw, CPU)
    for begin in range(0, 6, batch_size):
        indices = np.array(order[begin : begin + batch_size])
        (batch,) = clips.training_batch(indices, draw, CPU)
        torch.testing.assert_close(batch, whole[indices])


def test_draws_change_with_seed_and_epoch_and_with_nothing_else():
    clips = clip_set(*[50] * 20, augment=STRONG)
    first, again = clips.draw(0, 1), clips.draw(0, 1)
    np.testing.assert_array_equal(first.start, again.start)
    assert not np.array_equal(first.start, clips.draw(0, 2).start)
    assert not np.array_equal(first.start, clips.draw(1, 1).start)


def test_a_short_clip_stands_in_the_middle_of_silence():
    clips = clip_set(4, 5, 10)
    assert clips.n_shorter == 2
    silence = float(np.float16(FRONT_END.silence))
    for (batch,) in (
        clips.training_batch(np.array([0, 1]), clips.draw(0, 0), CPU),
        clips.view_batch(clips.views(3)[:2], CPU),
    ):
        assert rows_of(batch) == [
            [silence] * 3 + [0, 1, 2, 3] + [silence] * 3,
            [silence] * 3 + [100, 101, 102, 103, 104] + [silence] * 2,
        ]


def test_a_rolled_crop_goes_on_at_the_clips_begin():
    clips = clip_set(30, 12, 10, augment=AudioAugmentConfig(roll=True))
    for epoch in range(20):
        (batch,) = clips.training_batch(np.arange(3), clips.draw(0, epoch), CPU)
        for row, clip, n_rows in zip(rows_of(batch), range(3), [30, 12, 10], strict=True):
            first = row[0] - 100 * clip
            assert [value - 100 * clip for value in row] == [(first + step) % n_rows for step in range(10)]
    starts = {rows_of(clips.training_batch(np.array([0]), clips.draw(0, epoch), CPU)[0])[0][0] for epoch in range(300)}
    assert starts == set(range(30))  # every place is a beginning


def test_a_short_clip_is_rolled_within_its_own_length():
    clips = clip_set(4, augment=AudioAugmentConfig(roll=True))
    silence = float(np.float16(FRONT_END.silence))
    seen = set()
    for epoch in range(60):
        (row,) = rows_of(clips.training_batch(np.array([0]), clips.draw(0, epoch), CPU)[0])
        assert row[:3] + row[7:] == [silence] * 6
        assert sorted(row[3:7]) == [0, 1, 2, 3]
        seen.add(row[3])
    assert seen == {0, 1, 2, 3}


def test_padding_leaves_the_store_as_it_is():
    clips = clip_set(4, 5)
    before = clips._values.copy()
    clips.view_batch(clips.views(None), CPU)
    np.testing.assert_array_equal(clips._values, before)


@pytest.mark.parametrize(
    ("n_views", "expected"),
    [
        (1, [(0, 10), (1, -2), (2, 0)]),
        (2, [(0, 0), (0, 20), (1, -2), (2, 0)]),
        (3, [(0, 0), (0, 10), (0, 20), (1, -2), (2, 0)]),
        (None, [(0, 0), (0, 10), (0, 20), (1, -2), (2, 0)]),
    ],
)
def test_views_stand_evenly_in_the_order_of_the_clips(n_views, expected):
    views = clip_set(30, 7, 10).views(n_views)
    assert views.dtype == np.int64
    assert [tuple(view) for view in views.tolist()] == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_all_views_together_show_every_row(lengths):
    clips = clip_set(*lengths, augment=STRONG)
    (batch,) = clips.view_batch(clips.views(None), CPU)
    seen = {value for row in rows_of(batch) for value in row}
    assert seen >= {100.0 * index + row for index, n in enumerate(lengths) for row in range(n)}


def test_clips_stand_in_the_order_asked_for():
    clips = clip_set(10, 10, 10, clip_ids=["2", "0"])
    assert len(clips) == 2
    assert clips.clip_ids == ["2", "0"]
    (batch,) = clips.view_batch(clips.views(1), CPU)
    assert [row[0] for row in rows_of(batch)] == [200, 0]


def test_no_clips_have_no_views():
    clips = clip_set(10, clip_ids=[])
    assert len(clips) == 0
    assert clips.views(None).shape == clips.views(2).shape == (0, 2)
    assert clips.n_shorter == 0


def by_frames(*n_frames: int, rule="mmaction2-1.x") -> FrameSampling:
    return FrameSampling(rule, np.array(n_frames))


def test_views_by_frame_number_are_cut_or_completed_with_silence():
    clips = clip_set(320, 100, sampling=by_frames(160, 160), mel_frames=100)
    views = clips.views(1)
    (batch,) = clips.view_batch(views, CPU)
    long, short = rows_of(batch)  # frames 48 to 111 of 160: rows 98 to 224 of 320, 31 to 70 of 100
    assert long == list(range(98, 198))
    silence = float(np.float16(FRONT_END.silence))
    assert short[:39] == [float(np.float16(100 + row)) for row in range(31, 70)]
    assert short[39:] == [silence] * 61


def test_training_crops_by_frame_number_begin_anywhere():
    clips = clip_set(400, sampling=by_frames(100), mel_frames=30)
    starts = set()
    for epoch in range(300):
        (row,) = rows_of(clips.training_batch(np.array([0]), clips.draw(0, epoch), CPU)[0])
        assert row == [row[0] + step for step in range(30)]
        starts.add(row[0])
    assert starts == {4.0 * (first + 1) for first in range(37)}


def test_empty_crops_are_silence_and_are_told_once(caplog):
    clips = clip_set(400, 400, sampling=by_frames(63, 100), mel_frames=30)
    assert "1 of 2 clips give empty crops" in caplog.text
    caplog.clear()
    (batch,) = clips.view_batch(clips.views(1), CPU)
    (training,) = clips.training_batch(np.array([0]), clips.draw(0, 0), CPU)
    silence = float(np.float16(FRONT_END.silence))
    assert rows_of(batch)[0] == rows_of(training)[0] == [silence] * 30
    assert silence not in rows_of(batch)[1]
    assert not caplog.text


def test_sampling_by_frame_number_refuses_what_it_has_no_rule_for():
    with pytest.raises(ConfigError, match=r"test\.n_clips: expected a number with sampling mmaction2-1\.x"):
        clip_set(100, sampling=by_frames(100)).views(None)
    with pytest.raises(ConfigError, match=r"roll: expected false with sampling mmaction2-1\.x"):
        clip_set(100, sampling=by_frames(100), augment=AudioAugmentConfig(roll=True))
