"""Which tracks are taken: by every reader the same ones, those that players choose and that can be decoded."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avrecog.errors import MediaError
from avrecog.features.video_settings import VideoConfig
from avrecog.media.audio import decode_audio
from avrecog.media.container import probe
from avrecog.media.video import decode_video

RATE = 16_000
VIDEO = VideoConfig(fps=5.0, height=16, width=16)


def film(path: Path, grays: Sequence[int], tones_hz: Sequence[float], default: Sequence[int] = ()) -> Path:
    """2 s with a track for each gray level and each tone (0: silence); the tracks of these numbers are default."""
    with av.open(str(path), "w") as container:
        pictures = [container.add_stream("libx264", rate=10, options={"preset": "ultrafast"}) for _ in grays]
        sounds = [container.add_stream("aac", rate=RATE, layout="mono") for _ in tones_hz]
        for stream in pictures:
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
        for number, stream in enumerate([*pictures, *sounds]):
            stream.disposition = av.stream.Disposition.default if number in default else av.stream.Disposition(0)
        container.start_encoding()
        for stream, gray in zip(pictures, grays, strict=True):
            for _ in range(20):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), gray, np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        for stream, hertz in zip(sounds, tones_hz, strict=True):
            wave = 0.4 * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE)
            frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def hertz(wave: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(wave)))) * RATE / len(wave)


def gray(path: Path) -> float:
    return float(decode_video(path, VIDEO).mean())


def without_decoder(path: Path, codec: bytes, setup: bytes) -> Path:
    """An MP4 whose first track of a codec is of one that nothing decodes."""
    content = bytearray(path.read_bytes())
    place = content.index(codec, content.index(b"stsd", content.index(b"moov")))
    content[place : place + 4] = b"apac"
    inner = content.index(setup, place)
    content[inner : inner + 4] = b"dapa"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("default", "expected"), [((), 300), ((0,), 300), ((1,), 700), ((2,), 1100), ((1, 2), 700)])
def test_the_sound_marked_as_default_is_heard(tmp_path, default, expected):
    path = film(tmp_path / "a.mkv", [], [300, 700, 1100], default)
    assert hertz(decode_audio(path, RATE)) == pytest.approx(expected, abs=2)
    assert hertz(decode_audio(path, RATE, 1.0, 1.5)) == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(("default", "expected"), [((), 50), ((1,), 150)])
def test_the_picture_marked_as_default_is_seen(tmp_path, default, expected):
    assert gray(film(tmp_path / "a.mkv", [50, 150], [], default)) == pytest.approx(expected, abs=3)


def test_a_sound_without_a_decoder_gives_way_to_the_next(tmp_path):
    path = without_decoder(film(tmp_path / "a.mp4", [90], [300, 700]), b"mp4a", b"esds")
    found = probe(path)
    assert (found.sample_rate, found.fps) == (RATE, 10)
    assert found.notes == ("sound track 1: no decoder for it",)
    assert hertz(decode_audio(path, RATE)) == pytest.approx(700, abs=2)
    assert gray(path) == pytest.approx(90, abs=3)


def test_where_no_sound_has_a_decoder_there_is_none(tmp_path):
    path = without_decoder(film(tmp_path / "a.mp4", [90], [300]), b"mp4a", b"esds")
    found = probe(path)
    assert (found.has_audio, found.has_video, found.notes) == (False, True, ("sound track 1: no decoder for it",))
    with pytest.raises(MediaError, match="no audio stream; .*; sound track 1: no decoder for it"):
        decode_audio(path, RATE)
    assert gray(path) == pytest.approx(90, abs=3)


def test_a_picture_without_a_decoder_leaves_the_sound(tmp_path):
    path = without_decoder(film(tmp_path / "a.mp4", [90], [300]), b"avc1", b"avcC")
    found = probe(path)
    assert (found.has_audio, found.has_video, found.notes) == (True, False, ("picture track 1: no decoder for it",))
    assert hertz(decode_audio(path, RATE)) == pytest.approx(300, abs=2)
    with pytest.raises(MediaError, match="no moving picture; .*; picture track 1: no decoder for it"):
        decode_video(path, VIDEO)


def test_where_nothing_has_a_decoder_the_file_is_refused(tmp_path):
    path = without_decoder(film(tmp_path / "a.mp4", [], [300]), b"mp4a", b"esds")
    with pytest.raises(MediaError, match="no sound and no moving picture; sound track 1: no decoder for it"):
        probe(path)


def test_a_damaged_track_is_passed_over_for_one_that_is_not(tmp_path):
    damaged = film(tmp_path / "a.mkv", [], [300, 700])
    content, place = bytearray(damaged.read_bytes()), 0
    with av.open(str(damaged)) as container:
        for packet in container.demux(container.streams[0]):
            if packet.size:
                place = content.index(bytes(packet), place)
                content[place : place + packet.size] = b"\xff" * packet.size
    damaged.write_bytes(content)
    assert hertz(decode_audio(damaged, RATE)) == pytest.approx(700, abs=2)
    assert probe(damaged).notes[0].startswith("sound track 1: can't be decoded (")


@pytest.mark.parametrize("ending", [".flv", ".mkv", ".ts"])
def test_a_file_that_begins_without_a_key_frame_is_read(tmp_path, ending):
    """As old cameras and recordings of broadcasts do."""
    path, cut = tmp_path / "whole.mkv", tmp_path / f"a{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "10", "preset": "ultrafast"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for index in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 + 5 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as old, av.open(str(cut), "w") as new:
        target = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux()):
            if packet.dts is not None and number >= 5:
                packet.stream = target
                new.mux(packet)
    assert probe(cut).fps == pytest.approx(10, abs=0.5)
    frames = decode_video(cut, VideoConfig(fps=10.0, height=16, width=16)).mean(axis=(1, 2, 3))
    assert len(frames) == pytest.approx(35, abs=6)
    assert frames[-1] == pytest.approx(20 + 5 * 39, abs=4)
    piece = decode_video(cut, VideoConfig(fps=10.0, height=16, width=16), 2.0, 2.5).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(piece, frames[20:25], atol=2)
