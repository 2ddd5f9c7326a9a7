import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from avrecog.datasets.augment import (
    AudioAugmentConfig,
    AudioDraw,
    VideoAugmentConfig,
    VideoDraw,
    apply_audio,
    apply_video,
    draw_audio,
    draw_mixup,
    draw_video,
)

units = st.floats(0, 1, exclude_max=True)


def audio_draw(n_clips: int = 3, n_masks: int = 0, **values) -> AudioDraw:
    """A draw that moves nothing but what is given."""
    middle = {name: np.full(n_clips, 0.5) for name in ("start", "gain", "shift")}
    masks = {name: np.zeros((n_clips, n_masks, 2)) for name in ("frequency_masks", "time_masks")}
    return AudioDraw(**{**middle, **masks, **values})


def video_draw(n_clips: int = 2, n_segments: int = 3, **values) -> VideoDraw:
    given = {
        "position": np.full((n_clips, n_segments), 0.5),
        "crop": np.full((n_clips, 4), 0.5),
        "flip": np.full(n_clips, 0.9),
        "colour": np.full((n_clips, 3), 0.5),
    }
    return VideoDraw(**{**given, **values})


def log_mels(n_clips: int = 3, mel_frames: int = 20, n_mels: int = 10) -> torch.Tensor:
    return torch.randn(n_clips, 1, mel_frames, n_mels, generator=torch.Generator().manual_seed(1))


def pictures(n_clips: int = 2, n_frames: int = 3, channels: int = 3, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.rand(n_clips, n_frames, channels, height, width, generator=torch.Generator().manual_seed(2))


def test_mixup_draws_partners_and_weights_above_one_half():
    draw = draw_mixup(np.random.default_rng(0), 500, 0.4)
    assert draw.partner.shape == draw.weight.shape == (500,)
    assert set(draw.partner) <= set(range(500))
    assert draw.weight.dtype == np.float32
    assert 0.5 <= draw.weight.min() < draw.weight.max() <= 1


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_draws_are_in_0_to_1_and_follow_the_seed(kind):
    def draw(seed):
        generator = np.random.default_rng(seed)
        if kind == "audio":
            return draw_audio(generator, 7, AudioAugmentConfig(n_frequency_masks=2, n_time_masks=1))
        return draw_video(generator, 7, 3)

    one, same, other = draw(0), draw(0), draw(1)
    for name in one.__dataclass_fields__:
        values = getattr(one, name)
        assert len(values) == 7
        assert ((values >= 0) & (values < 1)).all()
        np.testing.assert_array_equal(values, getattr(same, name))
        assert not np.array_equal(values, getattr(other, name))


def test_a_draw_has_rows_for_a_batch():
    draw = draw_audio(np.random.default_rng(0), 7, AudioAugmentConfig(n_frequency_masks=2))
    rows = draw.rows(np.array([5, 1, 5]))
    np.testing.assert_array_equal(rows.gain, draw.gain[[5, 1, 5]])
    np.testing.assert_array_equal(rows.frequency_masks, draw.frequency_masks[[5, 1, 5]])
    assert rows.time_masks.shape == (3, 0, 2)


def test_without_audio_augmentation_the_input_is_left_as_it_is():
    given = log_mels()
    draw = draw_audio(np.random.default_rng(0), 3, AudioAugmentConfig())
    assert torch.equal(apply_audio(given, draw, AudioAugmentConfig(), 0.23), given)


@pytest.mark.parametrize(("gain", "decibel"), [(0.0, -6.0), (0.5, 0.0), (0.75, 3.0)])
def test_gain_moves_all_values_by_its_decibels_times_per_db(gain, decibel):
    given = log_mels()
    result = apply_audio(given, audio_draw(gain=np.full(3, gain)), AudioAugmentConfig(gain_db=6.0), 0.23)
    torch.testing.assert_close(result, given + decibel * 0.23)


@pytest.mark.parametrize(("shift", "steps"), [(0.0, -2), (0.5, 0), (0.999, 2)])
def test_a_shift_moves_the_bands_and_repeats_the_outermost(shift, steps):
    given = torch.arange(10.0).expand(3, 1, 20, 10)
    config = AudioAugmentConfig(frequency_shift=0.2)
    result = apply_audio(given, audio_draw(shift=np.full(3, shift)), config, 0.23)
    torch.testing.assert_close(result, (given - steps).clamp(0, 9))


@settings(deadline=None)
@given(
    numbers=st.lists(st.tuples(units, units), min_size=1, max_size=3),
    widest=st.floats(0, 1),
    axis=st.sampled_from(["frequency", "time"]),
)
def test_a_mask_is_one_block_no_wider_than_allowed_filled_with_the_mean(numbers, widest, axis):
    given = log_mels(n_clips=1)
    length = 10 if axis == "frequency" else 20
    config = AudioAugmentConfig(**{f"n_{axis}_masks": len(numbers), f"{axis}_mask": widest})
    draw = audio_draw(1, **{f"{axis}_masks": np.array([numbers])})
    changed = (apply_audio(given, draw, config, 0.23) != given)[0, 0]
    lines = changed.any(dim=0 if axis == "frequency" else 1)
    assert torch.equal(changed, lines.expand_as(changed) if axis == "frequency" else lines[:, None].expand_as(changed))
    assert int(lines.sum()) <= len(numbers) * np.ceil(widest * length)  # a part of a line counts as one
    if len(numbers) == 1 and lines.any():
        inside = torch.nonzero(lines)
        assert int(inside.max() - inside.min()) + 1 == int(lines.sum())
    if changed.any():
        mean = given.mean()
        torch.testing.assert_close(
            apply_audio(given, draw, config, 0.23)[0, 0][changed], mean.expand(int(changed.sum()))
        )


def test_a_mask_may_reach_both_ends_and_have_any_width_up_to_the_widest():
    config = AudioAugmentConfig(n_time_masks=1, time_mask=0.25)
    seen = set()
    for width in np.linspace(0, 0.999, 24):
        for place in (0.0, 0.999):
            draw = audio_draw(1, time_masks=np.array([[[width, place]]]))
            changed = (apply_audio(log_mels(1), draw, config, 1.0) != log_mels(1)).any(dim=3)[0, 0]
            if changed.any():
                assert changed[0 if place == 0 else -1]
            seen.add(int(changed.sum()))
    assert seen == {0, 1, 2, 3, 4, 5}


def test_masks_differ_between_the_clips_of_a_batch():
    config = AudioAugmentConfig(n_time_masks=1, time_mask=0.5)
    masks = np.array([[[0.5, 0.0]], [[0.5, 0.99]], [[0.0, 0.0]]])
    changed = (apply_audio(log_mels(), audio_draw(time_masks=masks), config, 1.0) != log_mels()).any(dim=3)[:, 0]
    assert changed[0, :5].all()
    assert changed[1, -5:].all()
    assert not changed[2].any()


@pytest.mark.parametrize("channels", [3, 6])
def test_without_video_augmentation_the_input_is_left_as_it_is(channels):
    given = pictures(channels=channels)
    result = apply_video(given, draw_video(np.random.default_rng(0), 2, 3), VideoAugmentConfig(), (12, 16))
    torch.testing.assert_close(result, given, atol=1e-5, rtol=0)


def test_a_crop_of_the_results_size_is_a_piece_of_the_input():
    given = pictures(height=12, width=16)
    corners = {(0.0, 0.0): (0, 0), (1.0, 1.0): (4, 6), (0.5, 0.5): (2, 3)}
    for (down, right), (top, left) in corners.items():
        crop = np.tile([0.5, 0.5, down, right], (2, 1))
        result = apply_video(given, video_draw(crop=crop), VideoAugmentConfig(), (8, 10))
        torch.testing.assert_close(result, given[..., top : top + 8, left : left + 10], atol=1e-5, rtol=0)


@settings(deadline=None)
@given(crop=st.tuples(units, units, units, units), min_area=st.floats(0.05, 1), max_aspect=st.floats(1, 2))
def test_a_random_crop_stays_inside_the_picture(crop, min_area, max_aspect):
    """Of a picture whose values are its coordinates, the crop shows which part it was cut from."""
    rows, columns = torch.linspace(0, 1, 12), torch.linspace(0, 1, 16)
    down, right = rows[:, None].expand(12, 16), columns[None].expand(12, 16)
    given = torch.stack([down, right, down])[None, None]
    config = VideoAugmentConfig(min_area=min_area, max_aspect=max_aspect if min_area < 1 else 1.0)
    result = apply_video(given, video_draw(1, 1, crop=np.array([crop])), config, (8, 8))[0, 0]
    for axis, coordinate in ((1, result[0]), (2, result[1])):
        line = coordinate.mean(dim=2 - axis)
        # a reflection at an edge would turn the coordinate back; the outermost half pixels are level
        assert (torch.diff(line) > -1e-5).all()


def test_the_area_of_a_random_crop_is_what_was_drawn():
    rows, columns = torch.arange(100.0), torch.arange(100.0)
    given = torch.stack([rows[:, None].expand(100, 100), columns[None].expand(100, 100), torch.zeros(100, 100)]) / 100
    config = VideoAugmentConfig(min_area=0.25, max_aspect=2.0)
    for area, aspect, expected in [(0.0, 0.5, (0.5, 0.5)), (0.0, 1.0, (0.354, 0.707)), (0.0, 0.0, (0.707, 0.354))]:
        crop = np.array([[area, aspect, 0.5, 0.5]])
        result = apply_video(given[None, None], video_draw(1, 1, crop=crop), config, (50, 50))[0, 0]
        seen = [float(part.max() - part.min()) for part in (result[0], result[1])]
        assert seen == pytest.approx(expected, abs=0.02)


def test_a_flip_mirrors_left_and_right_of_the_clips_that_were_drawn():
    given = pictures()
    result = apply_video(given, video_draw(flip=np.array([0.1, 0.9])), VideoAugmentConfig(flip=True), (12, 16))
    torch.testing.assert_close(result[0], given[0].flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(result[1], given[1], atol=1e-5, rtol=0)
    unmoved = apply_video(given, video_draw(flip=np.array([0.1, 0.9])), VideoAugmentConfig(flip=False), (12, 16))
    torch.testing.assert_close(unmoved, given, atol=1e-5, rtol=0)


@settings(deadline=None)
@given(colour=st.tuples(units, units, units), strength=st.floats(0.01, 1), channels=st.sampled_from([3, 6]))
def test_colour_keeps_the_range_and_the_shape(colour, strength, channels):
    given = pictures(channels=channels)
    config = VideoAugmentConfig(brightness=strength, contrast=strength, saturation=strength)
    result = apply_video(given, video_draw(colour=np.array([colour] * 2)), config, (12, 16))
    assert result.shape == given.shape
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


@pytest.mark.parametrize(
    ("name", "index", "towards"),
    [
        ("brightness", 0, torch.zeros_like),
        ("contrast", 1, lambda given: given.mean(dim=(1, 2, 3, 4), keepdim=True)),
        ("saturation", 2, lambda given: given.mean(dim=2, keepdim=True)),
    ],
)
@pytest.mark.parametrize("uniform", [0.0, 0.9])
def test_each_change_of_colour_is_what_its_name_says(name, index, towards, uniform):
    given = 0.3 + 0.4 * pictures()
    colour = np.full((2, 3), 0.5)
    colour[:, index] = uniform
    result = apply_video(given, video_draw(colour=colour), VideoAugmentConfig(**{name: 0.4}), (12, 16))
    factor = 1 + (uniform * 2 - 1) * 0.4
    wanted = (given * factor + towards(given) * (1 - factor)).clamp(0, 1)
    torch.testing.assert_close(result, wanted, atol=1e-5, rtol=0)


def test_the_frames_of_a_clip_share_crop_flip_and_colour():
    given = pictures(n_clips=4, n_frames=1).expand(4, 3, 3, 12, 16)
    config = VideoAugmentConfig(min_area=0.3, max_aspect=1.5, flip=True, brightness=0.3, contrast=0.3, saturation=0.3)
    result = apply_video(given, draw_video(np.random.default_rng(0), 4, 3), config, (8, 10))
    assert result.shape == (4, 3, 3, 8, 10)
    torch.testing.assert_close(result[:, 0], result[:, 2], atol=1e-6, rtol=0)
    assert not torch.allclose(result[0], apply_video(given, video_draw(4), VideoAugmentConfig(), (8, 10))[0], atol=0.01)


def test_applying_changes_no_input():
    given, frames = log_mels(), pictures()
    before, frames_before = given.clone(), frames.clone()
    strong = AudioAugmentConfig(gain_db=6.0, n_frequency_masks=1, n_time_masks=1, frequency_shift=0.2)
    apply_audio(given, draw_audio(np.random.default_rng(0), 3, strong), strong, 0.23)
    colourful = VideoAugmentConfig(brightness=0.5, contrast=0.5, saturation=0.5)
    apply_video(frames, draw_video(np.random.default_rng(0), 2, 3), colourful, (12, 16))
    assert torch.equal(given, before)
    assert torch.equal(frames, frames_before)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (VideoAugmentConfig, {"min_area": 0.0}, "min_area: expected above 0 and at most 1, got 0"),
        (VideoAugmentConfig, {"max_aspect": 0.9}, "max_aspect: expected at least 1, got 0.9"),
        (VideoAugmentConfig, {"flip": 1}, "flip"),
        (VideoAugmentConfig, {"brightness": 1.1}, "brightness"),
        (AudioAugmentConfig, {"gain_db": -1.0}, "gain_db"),
        (AudioAugmentConfig, {"time_mask": 1.5}, "time_mask"),
        (AudioAugmentConfig, {"n_time_masks": 1.5}, "n_time_masks"),
    ],
)
def test_a_wrong_setting_is_refused(config, changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)
