from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avrecog.errors import MediaError
from avrecog.media import audio
from avrecog.media.audio import decode_audio
from clips import make_tone, make_video


def frequency_hz(waveform: np.ndarray, sample_rate: int) -> float:
    """Where the spectrum is strongest."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 8 * len(waveform)))
    return float(np.argmax(spectrum)) * sample_rate / (8 * len(waveform))


def amplitude(waveform: np.ndarray) -> float:
    """Of the sine, away from the ends."""
    inner = waveform[len(waveform) // 4 : -len(waveform) // 4]
    return float(np.sqrt(2 * np.mean(inner.astype(np.float64) ** 2)))


def write_wav(path: Path, samples: np.ndarray, codec: str, kind: str, sample_rate: int = 16_000) -> Path:
    """(1, S) samples as mono WAV."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sample_rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".m4a"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_frequency_and_level_of_a_tone_survive(tmp_path, ending, n_channels):
    tone = make_tone(tmp_path / f"a{ending}", 700.0, sample_rate=48_000, n_channels=n_channels)
    waveform = decode_audio(tone.path, 16_000)
    assert waveform.dtype == np.float32
    assert waveform.shape == pytest.approx((16_000,), abs=700)  # AAC pads to whole blocks
    assert frequency_hz(waveform, 16_000) == pytest.approx(700.0, abs=0.5)
    assert amplitude(waveform) == pytest.approx(np.mean(tone.amplitudes), rel=0.03)


@pytest.mark.parametrize("n_channels", [1, 2, 6])
def test_lossless_sound_is_the_mean_of_its_channels_to_one_step_of_16_bits(tmp_path, n_channels):
    tone = make_tone(tmp_path / "a.wav", duration_s=0.2, n_channels=n_channels)
    np.testing.assert_allclose(decode_audio(tone.path, 16_000), tone.mono(), atol=1 / 32_768)


@pytest.mark.parametrize(
    ("codec", "kind", "full", "step"),
    [("pcm_u8", "u8", 127, 1 / 128), ("pcm_s32le", "s32", 2**31 - 1, 1e-6), ("pcm_f64le", "dbl", 1, 1e-7)],
)
def test_full_scale_is_one_in_every_sample_format(tmp_path, codec, kind, full, step):
    wave = np.sin(2 * np.pi * 440 * np.arange(1600) / 16_000)
    dtype = {"u8": np.uint8, "s32": np.int32, "dbl": np.float64}[kind]
    samples = (wave * full + (128 if kind == "u8" else 0)).astype(dtype)[None]
    waveform = decode_audio(write_wav(tmp_path / "a.wav", samples, codec, kind), 16_000)
    np.testing.assert_allclose(waveform, wave, atol=2 * step)


@pytest.mark.parametrize("held", [8_000, 16_000, 22_050, 44_100])
def test_resampling_keeps_length_phase_and_level(tmp_path, held):
    tone = make_tone(tmp_path / "a.wav", 300.0, duration_s=0.5, sample_rate=held)
    waveform = decode_audio(tone.path, 16_000)
    expected = 0.5 * np.sin(2 * np.pi * 300.0 * np.arange(8_000) / 16_000)
    assert len(waveform) == pytest.approx(8_000, abs=2)
    np.testing.assert_allclose(waveform[200:7_800], expected[200:7_800], atol=2e-3)


def test_resampling_down_removes_what_the_lower_rate_cannot_hold(tmp_path):
    tone = make_tone(tmp_path / "a.wav", 7_000.0, duration_s=0.5, sample_rate=16_000)
    assert amplitude(decode_audio(tone.path, 8_000)) < 1e-3


@pytest.mark.parametrize(("start_s", "stop_s"), [(0.0, 0.5), (0.25, 0.75), (1.2, 1.8), (1.5, None), (1.9, 5.0)])
@pytest.mark.parametrize(("name", "rate"), [("a.wav", 16_000), ("a.flac", 16_000), ("b.wav", 8_000)])
def test_a_span_is_that_piece_of_the_whole(tmp_path, start_s, stop_s, name, rate):
    path = make_tone(tmp_path / name, 500.0, duration_s=2.0).path
    whole = decode_audio(path, rate)
    part = decode_audio(path, rate, start_s, stop_s)
    begin, end = round(start_s * rate), None if stop_s is None else round(stop_s * rate)
    expected = whole[begin:end]
    # resampling begins where seeking led to: up to half a sample beside the samples of the whole (0.098 here)
    assert part.shape == pytest.approx(expected.shape, abs=0 if rate == 16_000 else 1)
    n = min(len(part), len(expected))
    np.testing.assert_allclose(part[:n], expected[:n], atol=0 if rate == 16_000 else 0.105)


def test_a_span_of_compressed_sound_stands_at_its_time(tmp_path):
    video = make_video(tmp_path / "a.mp4", n_frames=75, frequency_hz=437.0)
    whole, part = decode_audio(video.path, 16_000), decode_audio(video.path, 16_000, 1.5, 2.5)
    assert part.shape == (16_000,)
    np.testing.assert_allclose(part[2_000:], whole[26_000:40_000], atol=2e-3)  # AAC needs a run-up


def test_the_sound_of_a_video_is_decoded(tmp_path):
    video = make_video(tmp_path / "a.mp4", frequency_hz=600.0)
    waveform = decode_audio(video.path, 16_000)
    assert frequency_hz(waveform, 16_000) == pytest.approx(600.0, abs=0.5)
    assert amplitude(waveform) == pytest.approx(0.5, rel=0.05)


def test_a_video_without_sound_says_what_to_do(tmp_path):
    path = make_video(tmp_path / "a.mp4", with_audio=False).path
    with pytest.raises(MediaError, match="a.mp4: no audio stream; drop the row or leave audio out"):
        decode_audio(path, 16_000)


@pytest.mark.parametrize("name", ["missing.wav", ".", "text.mp4"])
def test_what_is_no_media_is_refused(tmp_path, name):
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(MediaError, match="no such file|is a folder|can't be decoded"):
        decode_audio(tmp_path / name, 16_000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("sample_rate", [16_000, 8_000])
def test_values_that_are_not_finite_are_refused(tmp_path, value, sample_rate):
    samples = np.zeros((1, 1_600), np.float32)
    samples[0, 700] = value
    path = write_wav(tmp_path / "a.wav", samples, "pcm_f32le", "flt")
    with pytest.raises(MediaError, match="a.wav: the sound holds values that are not finite"):
        decode_audio(path, sample_rate)


@pytest.mark.parametrize(("start_s", "stop_s"), [(1.0, None), (5.0, 6.0)])
def test_a_span_beyond_the_end_is_refused(tmp_path, start_s, stop_s):
    path = make_tone(tmp_path / "a.wav", duration_s=1.0).path
    with pytest.raises(MediaError, match=rf"no sound between {start_s:g} s and ({stop_s} s|6|the end)"):
        decode_audio(path, 16_000, start_s, stop_s)


def test_a_file_that_breaks_off_gives_what_is_there(tmp_path):
    tone = make_tone(tmp_path / "a.wav", duration_s=1.0)
    content = tone.path.read_bytes()
    tone.path.write_bytes(content[: len(content) // 2])
    waveform = decode_audio(tone.path, 16_000)
    assert 7_000 < len(waveform) < 8_100
    np.testing.assert_allclose(waveform, tone.mono()[: len(waveform)], atol=1 / 32_768)


def test_a_file_with_a_header_only_is_refused(tmp_path):
    path = make_tone(tmp_path / "a.wav", duration_s=1.0).path
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"data") + 8])
    with pytest.raises(MediaError, match=r"a.wav: no sound between 0 s and the end|can't be decoded"):
        decode_audio(path, 16_000)


def test_decoding_twice_gives_the_same_bytes(tmp_path):
    path = make_tone(tmp_path / "a.ogg").path
    np.testing.assert_array_equal(decode_audio(path, 16_000), decode_audio(path, 16_000))


@pytest.mark.parametrize("start_s", [0.0, 0.25, 0.75])
def test_sound_that_begins_after_the_picture_keeps_its_place(tmp_path, start_s):
    video = make_video(tmp_path / "a.mp4", n_frames=50, sound_begins_s=0.5)
    waveform = decode_audio(video.path, 16_000, start_s, 2.0)
    assert len(waveform) == pytest.approx((2.0 - start_s) * 16_000, abs=1200)
    loud = np.abs(waveform) > 0.1
    assert loud.argmax() / 16_000 == pytest.approx(max(0.0, 0.5 - start_s), abs=0.07)


def test_a_span_before_the_sound_begins_holds_no_sound(tmp_path):
    video = make_video(tmp_path / "a.mp4", n_frames=50, sound_begins_s=1.0)
    with pytest.raises(MediaError, match="no sound between 0 s and 0.5"):
        decode_audio(video.path, 16_000, 0.0, 0.5)


SNDFILE = {".wav": "PCM_16", ".float.wav": "FLOAT"}


def of_two_channels(path: Path, subtype: str, rate: int = 44_100) -> Path:
    times_s = np.arange(2 * rate) / rate
    wave = [0.4 * np.sin(2 * np.pi * 440 * times_s), 0.2 * np.sin(2 * np.pi * 1234 * times_s**2)]
    soundfile.write(path, np.stack(wave, axis=1), rate, subtype=subtype)
    return path


@pytest.mark.parametrize(("start_s", "stop_s"), [(0.0, None), (0.0, 0.7), (1.23, 1.9), (0.8, None)])
@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("ending", SNDFILE)
def test_libsndfile_gives_the_samples_that_ffmpeg_gives(tmp_path, monkeypatch, ending, sample_rate, start_s, stop_s):
    path = of_two_channels(tmp_path / f"a{ending}", SNDFILE[ending])
    with monkeypatch.context() as patch:
        patch.setattr(audio, "_ffmpeg", None)  # not needed
        found = decode_audio(path, sample_rate, start_s, stop_s)
    monkeypatch.setattr(audio, "wav_size_is_right", lambda path: None)
    expected = decode_audio(path, sample_rate, start_s, stop_s)
    assert len(found) == pytest.approx(len(expected), abs=1)
    n = min(len(found), len(expected)) - 40  # the resampler's filter ends on other samples where both stop short
    np.testing.assert_allclose(found[40:n], expected[40:n], atol=2e-4)


@pytest.mark.parametrize(("start_s", "stop_s"), [(0.0, None), (1.23, 1.9)])
def test_ogg_vorbis_gives_the_samples_that_libsndfile_reads(tmp_path, start_s, stop_s):
    path = of_two_channels(tmp_path / "a.ogg", "VORBIS")
    expected = soundfile.read(path, dtype="float32")[0].mean(axis=1)
    stop = None if stop_s is None else round(stop_s * 44_100)
    expected = expected[round(start_s * 44_100) : stop]
    np.testing.assert_allclose(decode_audio(path, 44_100, start_s, stop_s), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["a.ogg", "a.m4a", "a.flac"])
def test_what_libsndfile_is_slower_or_other_with_is_ffmpegs(tmp_path, monkeypatch, name):
    tone = make_tone(tmp_path / name)  # Opus, AAC
    monkeypatch.setattr(audio, "_sndfile", None)
    assert len(decode_audio(tone.path, 16_000)) > 15_000


def test_a_wav_file_that_libsndfile_cannot_open_is_ffmpegs(tmp_path, monkeypatch):
    path = of_two_channels(tmp_path / "a.wav", "PCM_16")
    expected = decode_audio(path, 16_000)

    def refuse(path):
        raise soundfile.LibsndfileError(1)

    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    np.testing.assert_allclose(decode_audio(path, 16_000), expected, atol=1e-4)


def test_blocks_put_together_are_the_whole(tmp_path, monkeypatch):
    for path in (of_two_channels(tmp_path / "a.wav", "PCM_16"), make_tone(tmp_path / "a.m4a", duration_s=2.0).path):
        whole = decode_audio(path, 22_050)
        monkeypatch.setattr(audio, "BLOCK", 5_000)
        blocks = list(audio.audio_blocks(path, 22_050))
        assert len(blocks) > 5
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
        monkeypatch.undo()
