import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avrecog.datasets.mmaction2_sampling import FrameSampling, clip_frames, starts_for_testing, starts_for_training

rules = st.sampled_from(["mmaction2-0.x", "mmaction2-1.x"])
lengths = st.lists(st.integers(1, 400), min_size=1, max_size=5)


@given(rules, lengths, st.integers(1, 80), st.integers(1, 12))
def test_frames_of_a_test_clip_lie_in_the_video(rule, n_frames, clip_len, n_clips):
    counts = np.array(n_frames)
    starts = starts_for_testing(rule, counts, clip_len, n_clips)
    assert starts.shape == (len(n_frames), n_clips)
    frames = clip_frames("mmaction2-1.x", starts, clip_len, counts)
    assert frames.shape == (len(n_frames), n_clips, clip_len)
    assert (frames >= 0).all()
    assert (frames < counts[:, None, None]).all()
    np.testing.assert_array_equal(clip_frames("mmaction2-0.x", starts, clip_len, counts), frames + 1)


@given(st.integers(1, 400), st.integers(1, 80), st.integers(1, 12), st.integers(0, 99))
def test_random_clips_begin_in_order(n_frames, clip_len, n_clips, seed):
    generator = np.random.default_rng(seed)
    starts = starts_for_training(n_frames, clip_len, n_clips, lambda stop, n: generator.integers(0, stop, n))
    assert starts.shape == (n_clips,)
    assert (np.diff(starts) >= 0).all()
    assert starts.min() >= 0
    assert starts.max() <= max(0, n_frames - clip_len + 1)  # more clips than frames: the last one is wrapped


@given(rules, st.lists(st.tuples(st.integers(1, 400), st.integers(1, 700)), min_size=1, max_size=6), st.integers(1, 10))
def test_crops_lie_in_the_clip(rule, sizes, n_views):
    n_frames, n_rows = np.array(sizes).T
    sampling = FrameSampling(rule, n_frames)
    uniform = np.linspace(0, 1, len(sizes), endpoint=False)
    starts, n_filled = sampling.training_crops(np.arange(len(sizes)), uniform, n_rows, 128)
    views = sampling.views(n_views, n_rows, 128)
    for start, n in ((starts, n_filled), (views[0].T, views[1].T)):
        assert ((n >= 0) & (n <= 128) & (start >= 0)).all()
        assert ((start + n <= n_rows) | (n == 0)).all()


@pytest.mark.parametrize(("n_frames", "rows"), [(1, 0), (50, 162), (62, 10), (63, 0), (64, 616)])
def test_a_clip_of_fewer_than_64_frames_keeps_little_of_its_sound(n_frames, rows):
    """626 mel frames are 10 s; what the reference loses of them is the reason for sampling by time."""
    _, n_filled = FrameSampling("mmaction2-1.x", np.array([n_frames])).views(1, np.array([626]), 1000)
    assert n_filled.tolist() == [[rows]]
