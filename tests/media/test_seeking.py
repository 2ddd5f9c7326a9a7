"""Pieces of files, and whole ones, in every container: each second of them is known by brightness and pitch."""

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avrecog.features.video_settings import VideoConfig
from avrecog.media.audio import Heard, audio_blocks
from avrecog.media.container import probe
from avrecog.media.video import decode_video
from telling import KEY_FRAMES_S, N_SECONDS, Kind, heard, make, seen, tone

RATE = 8_000
VIDEO = VideoConfig(fps=5.0, height=8, width=8)
SOUNDS = {
    ".wav": "pcm_s16le",
    ".w64": "pcm_s16le",
    ".flac": "flac",
    ".mp3": "libmp3lame",
    ".m4a": "aac",
    ".aac": "aac",
    ".ogg": "libopus",
    ".opus": "libopus",
    ".aiff": "pcm_s16be",
    ".au": "pcm_s16be",
    ".caf": "pcm_s16be",
    ".amr": "libopencore_amrnb",
    ".wma": "wmav2",
}
ONE_EACH = [
    *(Kind(ending, None, codec) for ending, codec in SOUNDS.items()),
    Kind(".mp4", "libx264", "aac"),
    Kind(".mov", "mpeg4", "aac"),
    Kind(".mkv", "libx264", "aac"),
    Kind(".webm", "libvpx", "libopus"),
    Kind(".avi", "libx264", "libmp3lame"),
    Kind(".flv", "libx264", "libmp3lame"),
    Kind(".ts", "libx264", "aac"),
    Kind(".m2ts", "libx264", "aac"),
    Kind(".mpg", "mpeg2video", "mp2"),
    Kind(".vob", "mpeg2video", "ac3"),
    Kind(".3gp", "mpeg4", "aac"),
    Kind(".wmv", "wmv2", "wmav2"),
]
OTHERS = [
    *(Kind(".mp4", codec, "aac") for codec in ("libx265", "mpeg2video", "mpeg4", "libvpx-vp9", "libsvtav1")),
    *(Kind(".mov", codec, "aac") for codec in ("libx264", "libx265", "mpeg2video")),
    *(Kind(".mkv", codec, "aac") for codec in ("libx265", "mpeg2video", "mpeg4", "libvpx", "libvpx-vp9", "libsvtav1")),
    *(Kind(".mkv", "libx264", codec) for codec in ("ac3", "flac", "libmp3lame", "libopus")),
    *(Kind(".webm", codec, "libopus") for codec in ("libvpx-vp9", "libsvtav1")),
    *(Kind(".avi", codec, "libmp3lame") for codec in ("mpeg2video", "mpeg4")),
    Kind(".avi", "libx264", "pcm_s16le"),
    Kind(".flv", "flv", "libmp3lame"),
    Kind(".flv", "libx264", "aac"),
    *(Kind(ending, codec, "aac") for ending in (".ts", ".m2ts") for codec in ("libx265", "mpeg2video", "mpeg4")),
    *(Kind(".ts", "libx264", codec) for codec in ("mp2", "ac3", "libmp3lame", "libopus")),
    Kind(".mpg", "mpeg2video", "ac3"),
    Kind(".vob", "mpeg2video", "mp2"),
    *(Kind(".3gp", codec, "aac") for codec in ("libx264", "h263")),
    Kind(".ogg", None, "flac"),
    Kind(".mkv", None, "libmp3lame"),
    Kind(".mp4", "libx264", None),
    Kind(".ts", "libx264", None),
    Kind(".mpg", "mpeg2video", None),
]
every_kind = pytest.mark.parametrize(
    "kind", [*ONE_EACH, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)], ids=str
)


def made(path: Path, kind: Kind, **changes) -> Path:
    if kind.missing():
        pytest.skip(f"this build of FFmpeg has no encoder {' and no '.join(kind.missing())}")
    return make(path, kind, **changes)


def sound(path: Path, start_s: float = 0.0, stop_s: float | None = None) -> np.ndarray:
    """The sound of a file without gaps."""
    told = Heard()
    wave = np.concatenate(list(audio_blocks(path, RATE, start_s, stop_s, told)))
    assert told.gaps == told.overlaps == []
    return wave


def seconds_heard(wave: np.ndarray, seconds: range, offset_s: float) -> list[float]:
    """What the middle of each second of a whole sound says."""
    cut = [wave[round((offset_s + k + 0.2) * RATE) : round((offset_s + k + 0.8) * RATE)] for k in seconds]
    return [heard(each, RATE) for each in cut]


def check(path: Path, picture_s: float = 0.0, sound_s: float = 0.0, lacks_s: float = 0.0) -> None:
    """Whole, and in 37 pieces, a file shows and sounds each second at its time.

    The tracks begin so late; the picture may end so early.
    """
    found = probe(path)
    pieces = range(1, 38)
    assert found.duration_s == pytest.approx(N_SECONDS + max(picture_s, sound_s), abs=1.1)
    if found.has_audio:
        wave = sound(path)
        assert len(wave) / RATE == pytest.approx(N_SECONDS + sound_s, abs=0.3)
        assert seconds_heard(wave, pieces, sound_s) == pytest.approx(list(pieces), abs=0.3)
        cut = [sound(path, sound_s + k + 0.2, sound_s + k + 0.8) for k in pieces]
        assert {len(each) for each in cut} == {round(0.6 * RATE)}
        assert [heard(each, RATE) for each in cut] == pytest.approx(list(pieces), abs=0.3)
    if found.has_video:
        frames = seen(decode_video(path, VIDEO))
        assert len(frames) == pytest.approx(VIDEO.fps * (N_SECONDS + picture_s - lacks_s), abs=2)
        ticks_s = (np.arange(len(frames)) + 0.5) / VIDEO.fps - picture_s
        assert np.abs(frames.round() - np.floor(ticks_s).clip(0, N_SECONDS - 1)).max() <= 0.3
        cut = [seen(decode_video(path, VIDEO, picture_s + k + 0.2, picture_s + k + 0.8)) for k in pieces]
        assert [len(each) for each in cut] == [3] * 37
        assert np.abs(np.array(cut).round() - np.array(pieces)[:, None]).max() <= 0.3


@every_kind
def test_every_piece_shows_its_own_second(tmp_path, kind):
    check(made(tmp_path / f"a{kind.ending}", kind))


LATE = [Kind(ending, codec, sound) for ending, codec, sound in (
    (".mp4", "libx264", "aac"), (".mkv", "libx264", "aac"), (".ts", "libx264", "aac"), (".flv", "libx264", "aac"),
    (".mpg", "mpeg2video", "mp2"))]  # fmt: skip


@pytest.mark.parametrize(("picture_s", "sound_s"), [(2.0, 0.0), (0.0, 2.0)])
@pytest.mark.parametrize("kind", [LATE[2], *(pytest.param(kind, marks=pytest.mark.slow) for kind in LATE)], ids=str)
def test_a_track_that_begins_late_keeps_its_place(tmp_path, kind, picture_s, sound_s):
    path = made(tmp_path / f"a{kind.ending}", kind, picture_begins_s=picture_s, sound_begins_s=sound_s)
    check(path, picture_s, sound_s)


@pytest.mark.parametrize("kind", [LATE[2], *(pytest.param(kind, marks=pytest.mark.slow) for kind in LATE[1:])], ids=str)
def test_time_counts_from_where_the_file_begins(tmp_path, kind):
    check(made(tmp_path / f"a{kind.ending}", kind, picture_begins_s=1000.0, sound_begins_s=1000.0))


@pytest.mark.parametrize("before_s", [25.0, pytest.param(0.02, marks=pytest.mark.slow)])
def test_time_stamps_that_run_over_are_below_zero_before(tmp_path, before_s):
    begin_s = 2**33 / 90_000 - before_s  # MPEG-TS counts 33 bits
    kind = Kind(".ts", "libx264", "aac")
    path = made(tmp_path / "a.ts", kind, picture_begins_s=begin_s, sound_begins_s=begin_s)
    with av.open(str(path)) as container:
        assert container.start_time < 0, "the file doesn't begin below zero: less is tested"
    check(path)


def test_theora_that_repeats_pictures(tmp_path):
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg on this machine: PyAV's has no encoder of Theora")
    source = made(tmp_path / "a.mp4", Kind(".mp4", "libx264", "aac"))
    path = tmp_path / "a.ogv"
    options = ["-c:v", "libtheora", "-g", "100", "-c:a", "libvorbis"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, *options, path], check=True)
    check(path, lacks_s=0.9)  # that the last picture is repeated isn't written


def test_ogg_vorbis(tmp_path):
    soundfile.write(tmp_path / "a.ogg", tone(44_100), 44_100, subtype="VORBIS")
    check(tmp_path / "a.ogg")


def test_key_frames_are_as_rare_as_the_tests_need(tmp_path):
    for kind in ONE_EACH:
        if kind.video in {"libx264", "mpeg2video", "libvpx"} and not kind.missing():
            with av.open(str(make(tmp_path / f"a{kind.ending}", kind))) as container:
                frames = list(container.decode(video=0))
            keys = [index for index, frame in enumerate(frames) if frame.key_frame]
            assert np.diff(keys).min() * N_SECONDS / len(frames) > KEY_FRAMES_S - 0.5
