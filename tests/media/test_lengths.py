"""Durations that are guesses are told to be, and all of the sound is decoded, whatever a header says."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avrecog.media.audio import decode_audio
from avrecog.media.container import probe
from bad_input.media import longer_wav, written
from telling import Kind, make

RATE = 16_000


def noise_then_tone(seconds: float = 6.0) -> np.ndarray:
    """Sound whose bit rate varies: (S,) float32, as long of each."""
    times_s = np.arange(round(seconds * 44_100)) / 44_100
    noise = 0.3 * np.random.default_rng(0).standard_normal(len(times_s)).clip(-3, 3)
    return np.concatenate([noise, 0.3 * np.sin(2 * np.pi * 440 * times_s)]).astype(np.float32)


def mp3(path: Path, with_header: bool) -> Path:
    """12 s of variable bit rate, with the number of frames in its header or without."""
    with av.open(str(path), "w", options={} if with_header else {"write_xing": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono")
        stream.codec_context.options = {"global_quality": "236", "flags": "+qscale"}
        frame = av.AudioFrame.from_ndarray(noise_then_tone()[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seconds(path: Path) -> float:
    return len(decode_audio(path, RATE)) / RATE


def test_mp3_of_variable_bit_rate_without_a_header_is_a_guess_and_heard_whole(tmp_path):
    found = probe(mp3(tmp_path / "a.mp3", with_header=False))
    assert found.duration_estimated
    assert found.duration_s > 0
    assert abs(found.duration_s - 12) > 1, "the guess is right: nothing is tested"
    assert seconds(tmp_path / "a.mp3") == pytest.approx(12, abs=0.1)


def test_mp3_with_a_header_is_no_guess(tmp_path):
    found = probe(mp3(tmp_path / "a.mp3", with_header=True))
    assert not found.duration_estimated
    assert found.duration_s == pytest.approx(12, abs=0.1)


STATED = [Kind(ending, None, codec) for ending, codec in (
    (".wav", "pcm_s16le"), (".w64", "pcm_s16le"), (".flac", "flac"), (".m4a", "aac"), (".ogg", "libopus"),
    (".aiff", "pcm_s16be"), (".au", "pcm_s16be"), (".caf", "pcm_s16be"), (".wma", "wmav2"), (".mkv", "aac"),
    (".avi", "libmp3lame"), (".flv", "libmp3lame"), (".mp3", "libmp3lame"))]  # fmt: skip
GUESSED = [Kind(".aac", None, "aac"), Kind(".amr", None, "libopencore_amrnb"), Kind(".ts", None, "aac")]


@pytest.mark.parametrize("kind", [*STATED, *GUESSED], ids=str)
def test_whether_the_length_is_a_guess(tmp_path, kind):
    if kind.missing():
        pytest.skip(f"this build of FFmpeg has no encoder {kind.missing()[0]}")
    found = probe(make(tmp_path / f"a{kind.ending}", kind))
    assert found.duration_estimated == (kind in GUESSED)
    assert found.duration_s == pytest.approx(40, abs=1.5)


@pytest.mark.parametrize("stated", [0, 44_100, 44_100 * 5, 44_100 * 60])
def test_flac_with_a_wrong_total_is_heard_whole(tmp_path, stated):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise_then_tone(), 44_100)
    content = bytearray(path.read_bytes())  # the lower 32 bits of the number of samples, in STREAMINFO
    struct.pack_into(">I", content, 22, stated)
    found = probe(written(path, bytes(content)))
    assert found.duration_estimated
    assert found.duration_s == pytest.approx(12, abs=0.1)
    assert seconds(path) == pytest.approx(12, abs=1e-3)


def wav_that_says(path: Path, n_bytes: int) -> Path:
    soundfile.write(path, noise_then_tone(), 44_100)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"data") + 4, n_bytes)
    return written(path, bytes(content))


@pytest.mark.parametrize("n_bytes", [0, 2_000, 88_200 * 5, 88_200 * 5 + 1, 2**31 - 1, 2**32 - 1, 2**32 - 2])
def test_wav_with_a_wrong_size_is_heard_whole(tmp_path, n_bytes):
    path = wav_that_says(tmp_path / "a.wav", n_bytes)
    found = probe(path)
    assert found.duration_estimated
    assert found.duration_s == pytest.approx(12, abs=0.01)
    assert seconds(path) == pytest.approx(12, abs=1e-3)
    assert len(decode_audio(path, RATE, 11.0, 11.5)) == RATE // 2


@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("tail", [b"LIST\x04\0\0\0INFO", b"id3 \x02\0\0\0ab", b"\0" * 512, b"junk"])
def test_what_follows_the_samples_of_a_wav_is_no_sound(tmp_path, tail, odd):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise_then_tone()[: 44_100 + odd], 44_100, subtype="PCM_U8")
    content = path.read_bytes()
    found = probe(written(path, content + tail))
    assert not found.duration_estimated
    assert len(decode_audio(path, 44_100)) == 44_100 + odd


def test_wav_that_claims_more_than_the_file_holds(tmp_path):
    path = longer_wav(tmp_path / "a.wav")
    found = probe(path)
    assert found.duration_estimated
    assert found.duration_s == pytest.approx(1.0, abs=0.01)


def test_raw_video_has_a_length(tmp_path):
    source = make(tmp_path / "a.mp4", Kind(".mp4", "libx264", None))
    with av.open(str(source)) as old, av.open(str(tmp_path / "a.h264"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    found = probe(tmp_path / "a.h264")
    assert found.duration_estimated
    assert found.duration_s * found.fps == pytest.approx(400, abs=1)


def live(path: Path, kind: Kind) -> Path:
    """A recording in Matroska whose header says nothing of the length, as while it goes on."""
    source = make(path.with_name(f"source{kind.ending}"), kind)
    with av.open(str(source)) as old, av.open(str(path), "w", options={"live": "1"}) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return path


@pytest.mark.parametrize("kind", [Kind(".mkv", None, "libmp3lame"), Kind(".webm", "libvpx", "libopus")], ids=str)
def test_a_live_recording_is_a_guess_and_measured(tmp_path, kind):
    found = probe(live(tmp_path / f"live{kind.ending}", kind))
    assert found.duration_estimated
    assert found.duration_s == pytest.approx(40, abs=0.1)


JOINED = [
    Kind(".mp3", None, "libmp3lame"),
    Kind(".ogg", None, "libopus"),
    Kind(".flac", None, "flac"),
    Kind(".mkv", None, "aac"),
    Kind(".ts", "libx264", "aac"),
]


@pytest.mark.parametrize("kind", JOINED, ids=str)
def test_the_first_parts_length_is_not_the_whole(tmp_path, kind):
    content = make(tmp_path / f"a{kind.ending}", kind, seconds=range(10)).read_bytes()
    found = probe(written(tmp_path / f"b{kind.ending}", content + content))
    assert found.duration_estimated
    assert found.duration_s == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125)])
def test_mp3_of_variable_bit_rate_that_were_put_together_are_measured(tmp_path, between):
    content = mp3(tmp_path / "a.mp3", with_header=True).read_bytes()
    path = written(tmp_path / "b.mp3", content + between + content)
    found = probe(path)
    assert found.duration_estimated
    assert found.duration_s == pytest.approx(24, abs=0.2)
    assert seconds(path) == pytest.approx(24, abs=0.2)
    assert not probe(written(path, content + between)).duration_estimated


def avi_that_says(path: Path, times: float) -> Path:
    content = bytearray(make(path, Kind(".avi", "mpeg4", "pcm_s16le")).read_bytes())
    for chunk, offset in ((b"avih", 24), (b"strh", 40)):  # dwTotalFrames and dwLength
        at = -1
        while (at := content.find(chunk, at + 1)) >= 0:
            (n,) = struct.unpack_from("<I", content, at + offset)
            struct.pack_into("<I", content, at + offset, round(times * n))
    return written(path, bytes(content))


def mkv_that_says(path: Path, times: float) -> Path:
    content = bytearray(make(path, Kind(".mkv", "libx264", "aac")).read_bytes())
    place = content.index(b"\x44\x89\x88") + 3
    struct.pack_into(">d", content, place, times * struct.unpack_from(">d", content, place)[0])
    return written(path, bytes(content))


def flv_that_says(path: Path, times: float) -> Path:
    content = bytearray(make(path, Kind(".flv", "libx264", "libmp3lame")).read_bytes())
    place = content.index(b"duration") + 9
    struct.pack_into(">d", content, place, times * struct.unpack_from(">d", content, place)[0])
    return written(path, bytes(content))


@pytest.mark.parametrize("say", [avi_that_says, mkv_that_says, flv_that_says])
def test_a_header_that_says_less_than_the_packets_is_no_statement(tmp_path, say):
    found = probe(say(tmp_path / f"a.{say.__name__[:3]}", 0.25))
    assert found.duration_estimated
    assert found.duration_s == pytest.approx(40, abs=0.3)


def test_a_cut_off_avi_is_measured(tmp_path):
    whole = make(tmp_path / "a.avi", Kind(".avi", "libx264", "libmp3lame")).read_bytes()
    path = written(tmp_path / "b.avi", whole[: len(whole) // 3])
    found = probe(path)
    assert found.duration_estimated
    assert found.duration_s == pytest.approx(seconds(path), abs=0.5)
