import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog.datasets.sampling import n_covering_views, random_starts, segment_frames, view_starts

lengths = st.integers(1, 2_000)
windows = st.integers(1, 300)
units = st.floats(0, 1, exclude_max=True)


@given(n_rows=lengths, window=windows, uniform=units)
def test_a_random_crop_lies_in_its_clip_or_is_centred_around_it(n_rows, window, uniform):
    (start,) = random_starts(np.array([n_rows]), window, np.array([uniform]))
    if n_rows >= window:
        assert 0 <= start <= n_rows - window
    else:
        before, after = -start, start + window - n_rows
        assert 0 <= before - after <= 1


def test_every_start_of_a_random_crop_is_equally_likely():
    uniform = (np.arange(6_000) + 0.5) / 6_000
    starts = random_starts(np.full(6_000, 15), 10, uniform)
    assert starts.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(starts), np.full(6, 1_000))


@given(n_rows=lengths, window=windows)
def test_covering_views_cover_every_row(n_rows, window):
    (n_views,) = n_covering_views(np.array([n_rows]), window)
    covered = np.zeros(n_rows, bool)
    for start in view_starts(n_rows, window, int(n_views)):
        covered[max(0, start) : start + window] = True
    assert covered.all()
    assert n_views == 1 or (n_views - 1) * window < n_rows


@given(n_rows=lengths, window=windows, n_views=st.integers(1, 20))
def test_views_lie_inside_and_reach_from_end_to_end(n_rows, window, n_views):
    starts = view_starts(n_rows, window, n_views)
    assert 1 <= len(starts) <= n_views
    assert starts.dtype == np.int64
    assert (np.diff(starts) > 0).all()
    if n_rows > window and n_views > 1:
        assert (starts[0], starts[-1]) == (0, n_rows - window)
    else:
        assert starts.tolist() == [(n_rows - window) // 2]


@given(
    n_frames=st.lists(lengths, min_size=1, max_size=5),
    n_segments=st.integers(1, 10),
    snippet=st.integers(1, 8),
    position=units,
)
def test_snippets_lie_in_the_video_and_in_order(n_frames, n_segments, snippet, position):
    positions = np.full((len(n_frames), n_segments), position)
    first = segment_frames(np.array(n_frames), n_segments, positions, snippet)
    assert first.shape == (len(n_frames), n_segments)
    assert first.dtype == np.int64
    assert (np.diff(first, axis=1) >= 0).all()
    last = np.maximum(0, np.array(n_frames) - snippet)[:, None]
    assert ((first >= 0) & (first <= last)).all()


@given(n_frames=st.integers(10, 500), n_segments=st.integers(1, 10), position=units)
def test_each_segment_gives_a_frame_of_its_own_slice(n_frames, n_segments, position):
    (first,) = segment_frames(np.array([n_frames]), n_segments, np.full((1, n_segments), position))
    for index, frame in enumerate(first):
        # a frame covers [frame, frame + 1) and must meet the slice
        assert frame + 1 > index * n_frames / n_segments - 1e-6
        assert frame < (index + 1) * n_frames / n_segments + 1e-6


@pytest.mark.parametrize(
    ("n_frames", "n_segments", "expected"),
    [(9, 3, [1, 4, 7]), (10, 1, [5]), (30, 3, [5, 15, 25]), (2, 4, [0, 0, 1, 1]), (1, 3, [0, 0, 0])],
)
def test_the_middle_position_is_tsns_test_time_rule(n_frames, n_segments, expected):
    position = np.full((1, n_segments), 0.5)
    assert segment_frames(np.array([n_frames]), n_segments, position).tolist() == [expected]
