"""Time stamps rule: missing sound is silence and told, doubled sound is cut, jitter is left alone."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avrecog.media.audio import Heard, audio_blocks
from telling import N_SECONDS, Kind, heard, make

RATE = 8_000
Change = Callable[[float], float | None]  # of a sound packet's time stamp in seconds; None: the packet is lost


def remuxed(source: Path, path: Path, change: Change) -> Path:
    """The file with other time stamps of the sound."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                stamp_s = change(float(packet.pts * packet.time_base))
                if stamp_s is None:
                    continue
                packet.pts = packet.dts = round(stamp_s / packet.time_base)
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return path


def sound(path: Path, start_s: float = 0.0, stop_s: float | None = None) -> tuple[np.ndarray, Heard]:
    told = Heard()
    return np.concatenate(list(audio_blocks(path, RATE, start_s, stop_s, told))), told


def second_at(wave: np.ndarray, time_s: float) -> float:
    return heard(wave[round((time_s + 0.2) * RATE) : round((time_s + 0.8) * RATE)], RATE)


KINDS = [
    Kind(".mp4", "libx264", "aac"),
    Kind(".mkv", None, "aac"),
    Kind(".ts", "libx264", "mp2"),
    Kind(".ogg", None, "libopus"),
    Kind(".webm", None, "libopus"),
    Kind(".flv", "libx264", "aac"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[Kind], Path]:
    folder = tmp_path_factory.mktemp("whole")

    def of(kind: Kind) -> Path:
        path = folder / f"{kind}{kind.ending}"
        return path if path.exists() else make(path, kind)

    return of


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_lost_packets_are_silence_that_keeps_the_time(tmp_path, whole, kind):
    path = remuxed(whole(kind), tmp_path / f"a{kind.ending}", lambda s: None if 12 <= s < 16 else s)
    wave, told = sound(path)
    assert len(wave) / RATE == pytest.approx(N_SECONDS, abs=0.3)
    ((begin_s, end_s),) = told.gaps
    assert (begin_s, end_s) == (pytest.approx(12, abs=0.25), pytest.approx(16, abs=0.25))
    assert [second_at(wave, k) for k in (2, 10, 17, 30)] == pytest.approx([2, 10, 17, 30], abs=0.3)
    assert np.abs(wave[round((begin_s + 0.1) * RATE) : round((end_s - 0.1) * RATE)]).max() < 0.02


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_piece_keeps_its_time_before_in_and_behind_a_gap(tmp_path, whole, kind):
    path = remuxed(whole(kind), tmp_path / f"a{kind.ending}", lambda s: None if 12 <= s < 16 else s)
    for start_s, stop_s, n_gaps in ((5.0, 8.0, 0), (11.0, 18.0, 1), (14.0, 18.0, 1), (13.2, 13.8, 1), (20.0, 24.0, 0)):
        wave, told = sound(path, start_s, stop_s)
        assert len(wave) == round((stop_s - start_s) * RATE)
        assert len(told.gaps) == n_gaps
        assert all(start_s <= begin_s < end_s <= stop_s for begin_s, end_s in told.gaps)
        if stop_s - start_s > 1:
            assert second_at(wave, stop_s - start_s - 1) == pytest.approx(stop_s - 1, abs=0.3)
        else:
            assert not wave.any()


def restamped(path: Path, change: Callable[[int], int]) -> Path:
    """An FLV with other time stamps, in milliseconds, of its sound, in whatever order."""
    content = bytearray(path.read_bytes())
    place = 13
    while place < len(content):
        if content[place] == 8:
            stamp = change(int.from_bytes(content[place + 4 : place + 7]))
            content[place + 4 : place + 7] = stamp.to_bytes(3)
        place += 15 + int.from_bytes(content[place + 1 : place + 4])
    path.write_bytes(content)
    return path


def test_doubled_sound_is_cut(tmp_path):
    path = make(tmp_path / "a.flv", Kind(".flv", None, "libmp3lame"))
    wave, told = sound(restamped(path, lambda ms: ms if ms < 20_000 else ms - 2_000))
    assert told.overlaps == [(pytest.approx(18, abs=0.1), pytest.approx(20, abs=0.1))]
    assert not told.gaps
    assert len(wave) / RATE == pytest.approx(N_SECONDS - 2, abs=0.2)
    assert [second_at(wave, k) for k in (10, 19, 21, 30)] == pytest.approx([10, 19, 23, 32], abs=0.3)


@pytest.mark.parametrize("off_ms", [30, -30])
def test_jitter_is_left_alone(tmp_path, off_ms):
    path = make(tmp_path / "a.flv", Kind(".flv", None, "libmp3lame"))
    expected, _ = sound(path)
    wave, told = sound(restamped(path, lambda ms: ms + off_ms * (ms // 1000 % 2)))
    assert told.gaps == told.overlaps == []
    np.testing.assert_array_equal(wave, expected)


def test_files_put_together_are_heard_whole(tmp_path, whole):
    path = tmp_path / "a.ts"
    path.write_bytes(2 * whole(Kind(".ts", "libx264", "mp2")).read_bytes())
    wave, told = sound(path)
    assert len(wave) / RATE == pytest.approx(2 * N_SECONDS, abs=0.5)
    assert told.gaps == told.overlaps == []
    assert [second_at(wave, k) for k in (10, 50)] == pytest.approx([10, 10], abs=0.3)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".mp3"])
@pytest.mark.parametrize(("right", "cancels"), [(-1.0, True), (-0.9, False), (1.0, False), (0.0, False)])
def test_stereo_that_cancels_when_mixed_is_noticed(tmp_path, ending, right, cancels):
    left = 0.4 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    soundfile.write(tmp_path / f"a{ending}", np.stack([left, right * left], axis=1), 16_000)
    assert sound(tmp_path / f"a{ending}")[1].cancels == cancels


def test_silence_does_not_count_as_cancelling(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([[1, -1]] * 16_000) / 32_768, 16_000)
    assert not sound(tmp_path / "a.wav")[1].cancels
