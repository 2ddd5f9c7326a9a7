"""Files that were put together of several are counted as one: whole, and in pieces, in sound and picture alike."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from avrecog.features.video_settings import VideoConfig
from avrecog.media.audio import decode_audio
from avrecog.media.container import probe
from avrecog.media.joined import restarts, stamps
from avrecog.media.video import decode_video
from telling import N_SECONDS, Kind, heard, make, seen

RATE = 8_000
VIDEO = VideoConfig(fps=5.0, height=8, width=8)
PIECES = [0, 3, 10, 18, 21, 25, 30, 38]
JOINED = [
    (Kind(".ts", "libx264", "aac"), "mpegts"),
    (Kind(".m2ts", "libx264", "ac3"), "mpegts"),
    (Kind(".mpg", "mpeg2video", "mp2"), "mpeg"),
    (Kind(".ogg", None, "libopus"), "ogg"),
    (Kind(".ogg", None, "flac"), "ogg"),
    (Kind(".flac", None, "flac"), "flac"),
    (Kind(".mkv", "libx264", "aac"), "matroska,webm"),
    (Kind(".webm", "libvpx", "libopus"), "matroska,webm"),
    (Kind(".aac", None, "aac"), "aac"),
    (Kind(".mp3", None, "libmp3lame"), "mp3"),
]


def joined(folder: Path, kind: Kind, *parts: range) -> Path:
    """The seconds of some stretches, each a file of its own, put together as `cat` does."""
    if kind.missing():
        pytest.skip(f"this build of FFmpeg has no encoder {kind.missing()[0]}")
    contents = []
    for number, part in enumerate(parts):
        contents.append(make(folder / f"part {number}{kind.ending}", kind, seconds=part).read_bytes())
    path = folder / f"joined{kind.ending}"
    path.write_bytes(b"".join(contents))
    return path


@pytest.mark.parametrize(("kind", "name"), JOINED, ids=lambda value: str(value))
@pytest.mark.parametrize("parts", [(0, 20, 40), (0, 5, 10, 40)], ids=str)
def test_each_piece_is_of_its_own_second(tmp_path, kind, name, parts):
    if name == "matroska,webm" and len(parts) > 3:
        pytest.skip("FFmpeg reads two parts of Matroska, no more")
    path = joined(tmp_path, kind, *itertools.starmap(range, itertools.pairwise(parts)))
    found = probe(path)
    assert len(decode_audio(path, RATE)) / RATE == pytest.approx(N_SECONDS, abs=0.5)
    cut = [decode_audio(path, RATE, k + 0.3, k + 0.7) for k in PIECES]
    assert [heard(each, RATE) for each in cut] == pytest.approx(PIECES, abs=0.3)
    if found.has_video:
        assert len(decode_video(path, VIDEO)) == pytest.approx(VIDEO.fps * N_SECONDS, abs=3)
        shown = [seen(decode_video(path, VIDEO, k + 0.3, k + 0.7)) for k in PIECES]
        assert [round(float(np.median(each)) + 0.2) for each in shown] == PIECES


@pytest.mark.parametrize(("kind", "name"), JOINED[:-2], ids=lambda value: str(value))
def test_only_joined_files_restart(tmp_path, kind, name):
    assert restarts(joined(tmp_path, kind, range(5), range(5, 12)), name)
    assert not restarts(joined(tmp_path, kind, range(12)), name)


@pytest.mark.parametrize(("kind", "name"), JOINED[:-2], ids=lambda value: str(value))
def test_the_parts_lengths_add_up(tmp_path, kind, name):
    assert stamps(joined(tmp_path, kind, range(5), range(5, 12))).end_s == pytest.approx(12, abs=0.5)


def test_a_file_that_has_changed_is_looked_at_again(tmp_path):
    kind = JOINED[0][0]
    path = joined(tmp_path, kind, range(5), range(5, 12))
    assert stamps(path).restart
    assert stamps(joined(tmp_path, kind, range(12))).restart is False
