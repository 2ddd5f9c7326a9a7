from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import ValidationError

from avrecog.errors import MediaError
from avrecog.features.video_settings import CropConfig, VideoConfig
from avrecog.media.video import decode_video
from clips import frame_number, make_tone, make_video


def numbers(path: Path, fps: float, start_s: float = 0.0, stop_s: float | None = None) -> list[int]:
    frames = decode_video(path, VideoConfig(fps=fps, height=24, width=32), start_s, stop_s)
    return [frame_number(frame) for frame in frames]


def on_screen(fps: float, held_fps: float, start_s: float, stop_s: float) -> list[int]:
    """Which frame of a file of constant rate shows at start_s + (i + 0.5) / fps."""
    ticks_s = start_s + (np.arange(round((stop_s - start_s) * fps)) + 0.5) / fps
    return np.floor(ticks_s * held_fps + 1e-9).astype(int).tolist()


def write_video(path: Path, frames: np.ndarray, times_ms: list[int]) -> Path:
    """Frames (N, H, W, 3) without loss, each at its time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"crf": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, time_ms in zip(frames, times_ms, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            picture.pts, picture.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """250 frames at 25 a second, key frames some seconds apart."""
    return make_video(tmp_path_factory.mktemp("film") / "a.mp4", n_frames=250, with_audio=False).path


@pytest.mark.parametrize("fps", [25.0, 10.0, 3.0, 60.0])
def test_frames_are_those_on_screen_at_the_ticks(film, fps):
    assert numbers(film, fps) == on_screen(fps, 25.0, 0.0, 10.0)


@pytest.mark.parametrize(("start_s", "stop_s"), [(0.0, 1.0), (0.4, 1.2), (3.3, 4.3), (9.0, 10.0), (0.02, 0.52)])
def test_a_span_holds_the_frames_of_its_ticks(film, start_s, stop_s):
    assert numbers(film, 10.0, start_s, stop_s) == on_screen(10.0, 25.0, start_s, stop_s)


def test_a_span_beyond_the_end_stops_at_the_end(film):
    assert numbers(film, 10.0, 9.5, 20.0) == on_screen(10.0, 25.0, 9.5, 10.0)


@pytest.mark.parametrize(("start_s", "stop_s", "number"), [(4.0, 4.12, 101), (0.0, 0.04, 0), (9.9, 10.0, 248)])
def test_a_span_shorter_than_a_tick_has_the_frame_in_its_middle(film, start_s, stop_s, number):
    for fps in (0.1, 1.0, 4.0):
        assert numbers(film, fps, start_s, stop_s) == [number]


def test_frames_come_as_they_are_stored_when_nothing_is_asked(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mkv", pictures, [0, 40, 80, 120, 160])
    frames = decode_video(path, VideoConfig(fps=25.0, height=16, width=24))
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, pictures)


def test_a_variable_frame_rate_is_sampled_by_time(tmp_path):
    pictures = np.zeros((4, 16, 16, 3), np.uint8) + (np.arange(4) * 60).astype(np.uint8)[:, None, None, None]
    path = write_video(tmp_path / "a.mkv", pictures, [0, 100, 900, 1000])
    frames = decode_video(path, VideoConfig(fps=10.0, height=16, width=16))
    assert (frames[:, 8, 8, 0] // 60).tolist() == [0, *[1] * 8, 2]


def test_a_picture_is_scaled_to_cover_and_cut_in_the_middle(tmp_path):
    picture = np.zeros((1, 32, 96, 3), np.uint8)
    picture[:, :, :32], picture[:, :, 32:64], picture[:, :, 64:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = write_video(tmp_path / "a.mkv", picture, [0])
    square = decode_video(path, VideoConfig(height=16, width=16))[0]  # the middle third
    assert square.shape == (16, 16, 3)
    assert square[:, 2:14].reshape(-1, 3).mean(axis=0) == pytest.approx([0, 255, 0], abs=1)
    tall = decode_video(path, VideoConfig(height=64, width=32))[0]  # enlarged twice: the middle sixth
    assert tall.reshape(-1, 3).mean(axis=0) == pytest.approx([0, 255, 0], abs=1)
    wide = decode_video(path, VideoConfig(height=8, width=48))[0]  # the whole width, the middle half of the height
    assert [wide[4, x].argmax() for x in (4, 24, 44)] == [0, 1, 2]


@pytest.mark.parametrize(("height", "width"), [(2, 2), (34, 22), (90, 160), (200, 16)])
@pytest.mark.parametrize("crop", [None, CropConfig(x=3, y=1, width=13, height=9)])
def test_every_stored_size_is_filled(tmp_path, height, width, crop):
    path = write_video(tmp_path / "a.mkv", np.full((1, 48, 64, 3), 200, np.uint8), [0])
    frames = decode_video(path, VideoConfig(height=height, width=width, crop=crop))
    assert frames.shape == (1, height, width, 3)
    assert np.abs(frames.astype(int) - 200).max() <= 1


def test_a_crop_cuts_that_region_before_scaling(tmp_path):
    picture = np.zeros((1, 48, 64, 3), np.uint8)
    picture[:, 10:30, 20:50] = 255
    path = write_video(tmp_path / "a.mkv", picture, [0])
    inside = VideoConfig(height=20, width=30, crop=CropConfig(x=20, y=10, width=30, height=20))
    assert decode_video(path, inside).min() == 255
    outside = VideoConfig(height=10, width=20, crop=CropConfig(x=0, y=0, width=20, height=10))
    assert decode_video(path, outside).max() == 0


@pytest.mark.parametrize(("x", "y", "width", "height"), [(60, 0, 5, 4), (0, 40, 4, 9), (0, 0, 65, 48)])
def test_a_crop_outside_the_picture_is_refused(tmp_path, x, y, width, height):
    path = write_video(tmp_path / "a.mkv", np.zeros((1, 48, 64, 3), np.uint8), [0])
    config = VideoConfig(crop=CropConfig(x=x, y=y, width=width, height=height))
    with pytest.raises(MediaError, match=r"a.mkv: video.crop \(x .*\) lies outside its picture of 64 x 48"):
        decode_video(path, config)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_is_turned_upright(tmp_path, rotation):
    video = make_video(tmp_path / "a.mp4", n_frames=20, width=64, height=48, rotation=rotation, with_audio=False)
    frames = decode_video(video.path, VideoConfig(fps=25.0, height=48, width=64))
    assert [frame_number(frame) for frame in frames] == list(range(20))


def test_a_crop_counts_in_the_upright_picture(tmp_path):
    video = make_video(tmp_path / "a.mp4", n_frames=18, width=64, height=48, rotation=90, with_audio=False)
    upper = VideoConfig(fps=25.0, height=16, width=64, crop=CropConfig(x=0, y=0, width=64, height=16))
    frames = decode_video(video.path, upper)
    assert [round((float(frame.mean()) - 20) / 14) for frame in frames] == [*range(16), 0, 1]


def test_a_video_of_one_frame_gives_one_frame(tmp_path):
    path = make_video(tmp_path / "a.mp4", n_frames=1).path
    for fps in (1.0, 10.0, 25.0):
        assert numbers(path, fps) == [0]


def test_a_file_without_a_picture_says_what_to_do(tmp_path):
    path = make_tone(tmp_path / "a.wav").path
    with pytest.raises(MediaError, match="a.wav: no moving picture; drop the row or leave rgb out"):
        decode_video(path, VideoConfig())


def test_a_span_with_nothing_in_it_is_refused(film):
    with pytest.raises(MediaError, match="a.mp4: no picture between 12 s and 13 s|no picture between 12 s and 13"):
        decode_video(film, VideoConfig(), 12.0, 13.0)
    with pytest.raises(MediaError, match="no picture between 12 s and the end"):
        decode_video(film, VideoConfig(), 12.0)


@pytest.mark.parametrize("name", ["missing.mp4", ".", "text.mp4", "cut.mp4"])
def test_what_is_no_video_is_refused(tmp_path, name):
    (tmp_path / "text.mp4").write_text("no film")
    content = make_video(tmp_path / "whole.mp4").path.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match="no such file|is a folder|can't be decoded"):
        decode_video(tmp_path / name, VideoConfig())


def test_a_stream_that_breaks_off_gives_what_is_there(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mkv", pictures, [40 * index for index in range(10)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    frames = decode_video(path, VideoConfig(fps=25.0, height=16, width=16))
    assert 3 <= len(frames) <= 7
    np.testing.assert_array_equal(frames[:3], pictures[:3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 71}, "expected even height and width, got 71 x 72"),
        ({"width": 71}, "expected even height and width, got 72 x 71"),
        ({"fps": 0.0}, "fps"),
        ({"height": True}, "height"),
        ({"crop": {"x": -1, "y": 0, "width": 2, "height": 2}}, "crop.x"),
        ({"crop": {"x": 0, "y": 0, "width": 0, "height": 2}}, "crop.width"),
    ],
)
def test_a_wrong_setting_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        VideoConfig(**changes)
