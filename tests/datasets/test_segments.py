import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avrecog.datasets.augment import VideoAugmentConfig
from avrecog.datasets.segments import RgbClips
from avrecog.features.store import MemoryStore

CPU = torch.device("cpu")
STRONG = VideoAugmentConfig(min_area=0.4, max_aspect=1.3, flip=True, brightness=0.3, contrast=0.3, saturation=0.3)


def clip_set(
    *lengths: int,
    n_segments: int = 3,
    snippet: int = 1,
    size: tuple[int, int] = (6, 8),
    augment: VideoAugmentConfig | None = None,
    clip_ids: list[str] | None = None,
) -> RgbClips:
    """Clips `0`, `1`, ... of 6 x 8 frames; frame f has red 50 * clip + f, green its row, blue its column."""
    arrays = {}
    for index, n in enumerate(lengths):
        frames = np.zeros((n, 6, 8, 3), np.uint8)
        frames[..., 0] = (50 * index + np.arange(n))[:, None, None]
        frames[..., 1], frames[..., 2] = np.arange(6)[:, None], np.arange(8)
        arrays[str(index)] = frames
    clip_ids = list(arrays) if clip_ids is None else clip_ids
    labels = np.arange(len(clip_ids))
    return RgbClips(
        MemoryStore(arrays),
        clip_ids,
        labels,
        n_segments=n_segments,
        snippet=snippet,
        size=size,
        augment=augment or VideoAugmentConfig(),
    )


def red(batch: torch.Tensor) -> np.ndarray:
    """(B, N, snippet): which frame each one is."""
    pixels = (batch * 255).round().to(torch.int64).numpy()
    assert pixels.min() >= 0
    return pixels[:, :, ::3, 0, 0]


def test_a_training_batch_has_a_frame_of_each_segment():
    clips = clip_set(30, 12)
    (batch,) = clips.training_batch(np.array([1, 0, 1]), clips.draw(0, 0), CPU)
    assert batch.shape == (3, 3, 3, 6, 8)
    assert batch.dtype == torch.float32
    assert 0 <= float(batch.min()) <= float(batch.max()) <= 1
    for frames, first, n in zip(red(batch)[:, :, 0], [50, 0, 50], [12, 30, 12], strict=True):
        assert (np.floor((frames - first) * 3 / n) == [0, 1, 2]).all()


def test_a_snippet_is_consecutive_frames_stacked_as_channels():
    clips = clip_set(30, 4, snippet=5)
    (batch,) = clips.training_batch(np.array([0, 1]), clips.draw(0, 0), CPU)
    assert batch.shape == (2, 3, 15, 6, 8)
    frames = red(batch)
    assert (np.diff(frames[0], axis=1) == 1).all()
    assert frames[1].tolist() == [[50, 51, 52, 53, 53]] * 3  # a video shorter than a snippet: the last frame stays
    torch.testing.assert_close(batch[0, 0, 1] * 255, torch.arange(6.0)[:, None].expand(6, 8), atol=1e-3, rtol=0)
    torch.testing.assert_close(batch[0, 0, 2] * 255, torch.arange(8.0).expand(6, 8), atol=1e-3, rtol=0)


def test_augmented_batches_have_the_models_size():
    clips = clip_set(9, 9, size=(4, 5), augment=STRONG)
    (batch,) = clips.training_batch(np.array([0, 1]), clips.draw(0, 0), CPU)
    assert batch.shape == (2, 3, 3, 4, 5)
    assert 0 <= float(batch.min()) <= float(batch.max()) <= 1


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(5)), st.integers(1, 5))
def test_what_a_clip_becomes_does_not_depend_on_its_batch(order, batch_size):
    clips = clip_set(30, 1, 12, 3, 40, augment=STRONG)
    draw = clips.draw(3, 7)
    (whole,) = clips.training_batch(np.arange(5), draw, CPU)
    for begin in range(0, 5, batch_size):
        indices = np.array(order[begin : begin + batch_size])
        torch.testing.assert_close(clips.training_batch(indices, draw, CPU)[0], whole[indices])


def test_draws_change_with_seed_and_epoch_and_with_nothing_else():
    clips = clip_set(9, 9)
    np.testing.assert_array_equal(clips.draw(0, 1).position, clips.draw(0, 1).position)
    assert not np.array_equal(clips.draw(0, 1).position, clips.draw(0, 2).position)
    assert not np.array_equal(clips.draw(0, 1).position, clips.draw(1, 1).position)


def test_one_view_is_the_middle_of_each_segment():
    clips = clip_set(9, 30)
    views = clips.views(1)
    assert views.tolist() == [[0, 0, 1], [1, 0, 1]]
    (batch,) = clips.view_batch(views, CPU)
    assert red(batch)[:, :, 0].tolist() == [[1, 4, 7], [55, 65, 75]]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    n_segments=st.integers(1, 5),
    n_views=st.none() | st.integers(1, 4),
    snippet=st.integers(1, 12),
)
def test_views_are_in_clip_order_and_all_of_them_show_every_frame(lengths, n_segments, n_views, snippet):
    clips = clip_set(*lengths, n_segments=n_segments, snippet=snippet, augment=STRONG)
    views = clips.views(n_views)
    assert views.dtype == np.int64
    assert (np.diff(views[:, 0]) >= 0).all()
    assert set(views[:, 0]) == set(range(len(lengths)))
    per_clip = np.bincount(views[:, 0])
    covering = -(-np.array(lengths) // (n_segments * snippet))
    assert (per_clip == (covering if n_views is None else np.minimum(covering, n_views))).all()
    if n_views is None:
        seen = set(red(clips.view_batch(views, CPU)[0]).ravel().tolist())
        assert seen == {50 * index + frame for index, n in enumerate(lengths) for frame in range(n)}


@pytest.mark.parametrize(("size", "top", "left"), [((6, 8), 0, 0), ((4, 4), 1, 2), ((5, 7), 0, 0), ((2, 8), 2, 0)])
def test_a_view_is_the_middle_of_the_picture_without_augmentation(size, top, left):
    clips = clip_set(9, size=size, augment=STRONG)
    (batch,) = clips.view_batch(clips.views(1), CPU)
    assert batch.shape == (1, 3, 3, *size)
    rows, columns = (batch[0, 0, 1:] * 255).round()
    assert rows[:, 0].tolist() == list(range(top, top + size[0]))
    assert columns[0].tolist() == list(range(left, left + size[1]))


def test_clips_with_fewer_frames_than_segments_are_counted():
    assert clip_set(2, 3, 4).n_shorter == 1
    assert clip_set(2, 3, 7, snippet=2).n_shorter == 2


def test_clips_stand_in_the_order_asked_for():
    clips = clip_set(9, 9, 9, clip_ids=["2", "0"])
    assert len(clips) == 2
    (batch,) = clips.view_batch(clips.views(1), CPU)
    assert red(batch)[:, 0, 0].tolist() == [101, 1]


def test_no_clips_have_no_views():
    clips = clip_set(9, clip_ids=[])
    assert clips.views(None).shape == clips.views(2).shape == (0, 3)
