import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from avrecog.config import load_params, plain, validate
from avrecog.errors import ConfigError
from avrecog.features.log_mel import LogMel
from avrecog.features.numpy_log_mel import mel_basis
from avrecog.features.settings import FRONT_ENDS, AudioConfig, LogMelConfig

FRONT = {"default": LogMelConfig(), **FRONT_ENDS}


def sine(frequency_hz: float, n_samples: int = 16_000, amplitude: float = 0.5) -> torch.Tensor:
    times_s = torch.arange(n_samples, dtype=torch.float64) / 16_000
    return amplitude * torch.sin(2 * math.pi * frequency_hz * times_s)


@settings(deadline=None, max_examples=30)
@given(n_samples=st.integers(1, 5_000), hop_length=st.sampled_from([64, 100, 256]), n_mels=st.sampled_from([8, 20]))
def test_centred_frames_stand_a_hop_apart_from_the_first_sample_to_beyond_the_last(n_samples, hop_length, n_mels):
    log_mel = LogMel(LogMelConfig(n_fft=256, hop_length=hop_length, n_mels=n_mels))(torch.zeros(n_samples))
    assert log_mel.shape == (1 + math.ceil(n_samples / hop_length), n_mels)


@settings(deadline=None, max_examples=30)
@given(n_samples=st.integers(1, 5_000), hop_length=st.sampled_from([64, 100, 256]))
def test_frames_that_are_not_centred_lie_inside_the_waveform(n_samples, hop_length):
    config = LogMelConfig(n_fft=256, hop_length=hop_length, n_mels=20, center=False)
    assert LogMel(config)(torch.zeros(n_samples)).shape == (1 + max(0, n_samples - 256) // hop_length, 20)


@pytest.mark.parametrize("shape", [(2_000,), (3, 2_000), (2, 3, 2_000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_axes_and_precision_are_the_waveforms(shape, dtype):
    log_mel = LogMel(LogMelConfig(), dtype)(torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)))
    assert log_mel.shape == (*shape[:-1], 9, 80)
    assert log_mel.dtype == dtype


@pytest.mark.parametrize("config", FRONT.values(), ids=FRONT.keys())
def test_a_waveform_gives_the_same_alone_and_in_a_batch(config):
    waves = torch.stack([sine(500.0, 4_000), sine(900.0, 4_000, 0.1)])
    front = LogMel(config, torch.float64)
    torch.testing.assert_close(front(waves)[1], front(waves[1]))


@pytest.mark.parametrize(
    "config",
    [
        *FRONT.values(),
        LogMelConfig(offset=1e-3),
        LogMelConfig(log="decibel", reference_db=-20.0),
        LogMelConfig(log="decibel", reference_db=-200.0, floor_db=80.0, power=1),
    ],
)
def test_silence_has_the_value_that_the_config_says(config):
    log_mel = LogMel(config, torch.float64)(torch.zeros(2_000, dtype=torch.float64))
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, config.silence))


@pytest.mark.parametrize(
    "config",
    [
        LogMelConfig(offset=1e-14),
        LogMelConfig(power=1, offset=1e-9),
        LogMelConfig(log="decibel"),
        LogMelConfig(log="decibel", power=1, floor_db=80.0),
    ],
)
@pytest.mark.parametrize("gain_db", [-6.0, 3.0])
def test_a_gain_of_one_decibel_moves_a_value_by_per_db(config, gain_db):
    front = LogMel(config, torch.float64)
    wave = sine(1_000.0, 4_000, 0.1)
    before, after = front(wave), front(wave * 10 ** (gain_db / 20))
    frame, band = 8, int(before[8].argmax())
    assert float(after[frame, band] - before[frame, band]) == pytest.approx(gain_db * config.per_db, abs=1e-6)


def test_a_level_that_is_set_first_makes_gain_of_no_matter():
    front = LogMel(FRONT_ENDS["mmaction2"], torch.float64)
    torch.testing.assert_close(front(sine(700.0)), front(sine(700.0, amplitude=0.01)))


@pytest.mark.parametrize("config", FRONT.values(), ids=FRONT.keys())
@pytest.mark.parametrize("frequency_hz", [440.0, 1_000.0, 3_000.0, 6_500.0])
def test_a_tone_is_loudest_in_the_band_that_it_lies_in(config, frequency_hz):
    log_mel = LogMel(config, torch.float64)(sine(frequency_hz))
    weight = mel_basis(config)[:, round(frequency_hz / 16_000 * config.n_fft)]
    bands = log_mel[10:-10].argmax(dim=1)
    assert (np.abs(bands.numpy() - weight.argmax()) <= 1).all()


@pytest.mark.parametrize("config", FRONT.values(), ids=FRONT.keys())
def test_single_precision_is_close_to_double(config):
    wave = sine(440.0) + sine(3_000.0, amplitude=0.1)
    double, single = LogMel(config, torch.float64)(wave), LogMel(config)(wave.float())
    torch.testing.assert_close(single.double(), double, atol=2e-2 if config.log == "natural" else 1e-3, rtol=0)


def test_a_centred_frame_is_centred_on_its_sample():
    wave = torch.zeros(4_096, dtype=torch.float64)
    wave[2_048] = 1.0
    energy = LogMel(LogMelConfig(), torch.float64)(wave).sum(dim=1)
    assert int(energy.argmax()) == 8  # 8 hops of 256
    torch.testing.assert_close(energy[7], energy[9])


def test_mel_filters_of_slaney_norm_have_area_one_where_bins_are_dense():
    config = LogMelConfig(n_fft=8_192, n_mels=40)
    area = mel_basis(config).sum(axis=1) * config.sample_rate / config.n_fft
    np.testing.assert_allclose(area, 1, rtol=0.02)


@pytest.mark.parametrize("mel_scale", ["htk", "slaney"])
def test_filters_without_norm_overlap_to_one_between_the_outer_centres(mel_scale):
    config = LogMelConfig(n_fft=1_024, n_mels=20, mel_norm=None, mel_scale=mel_scale, f_min=100.0, f_max=7_000.0)
    basis = mel_basis(config)
    assert basis.shape == (20, 513)
    assert basis.dtype == np.float64
    first, last = basis[0].argmax() + 1, basis[-1].argmax()
    np.testing.assert_allclose(basis.sum(axis=0)[first:last], 1, atol=1e-9)
    hz = np.linspace(0, 8_000, 513)
    assert not basis[:, (hz < 100) | (hz > 7_000)].any()


def test_slaneys_scale_is_linear_below_1_khz_and_htk_gives_1000_mel_there():
    from avrecog.features.numpy_log_mel import _to_hz, _to_mel

    assert _to_mel(np.array([200.0, 1_000.0, 6_400.0]), "slaney") == pytest.approx([3, 15, 42])
    assert _to_mel(np.array([1_000.0]), "htk") == pytest.approx([1_000], abs=0.1)
    hz = np.array([50.0, 999.0, 1_001.0, 7_999.0])
    for scale in ("htk", "slaney"):
        np.testing.assert_allclose(_to_hz(_to_mel(hz, scale), scale), hz)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hop_length": 513}, r"hop_length: expected at most n_fft \(512\), got 513"),
        ({"f_max": 8_001.0}, r"f_max: expected at most half the sample rate \(8000\), got 8001.0"),
        ({"f_min": 8_000.0}, r"f_min: expected less than f_max \(8000\), got 8000"),
        ({"f_min": 300.0, "f_max": 300.0}, r"f_min: expected less than f_max \(300\)"),
        ({"floor_db": 0.0}, "floor_db"),
        ({"offset": 0.0}, "offset"),
        ({"n_mels": 0}, "n_mels"),
        ({"n_mels": True}, "n_mels"),
        ({"power": 3}, "power"),
        ({"window": "kaiser"}, "window"),
        ({"n_mel": 80}, "n_mel"),
    ],
)
def test_a_wrong_setting_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        LogMelConfig(**changes)


def test_the_section_needs_a_front_end():
    assert AudioConfig(logmel={"n_mels": 40}).logmel.n_mels == 40
    with pytest.raises(ValidationError, match="logmel"):
        AudioConfig()


def test_frames_per_second():
    assert LogMelConfig().frames_per_s == 62.5
    assert LogMelConfig(sample_rate=8_000, hop_length=80).frames_per_s == 100


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_front_end_is_had_by_its_name(name):
    assert validate(AudioConfig, {"logmel": name}, "audio").logmel == FRONT_ENDS[name]


def test_an_unknown_front_end_is_told_with_the_nearest_one():
    with pytest.raises(ConfigError) as caught:
        validate(AudioConfig | None, {"logmel": "mmaction"}, "audio")
    told = "audio.logmel: expected a mapping, or slowfast or mmaction2, got 'mmaction'; did you mean `mmaction2`?"
    assert str(caught.value) == told
    with pytest.raises(ConfigError, match=r"^audio\.logmel\.n_fftt: unknown key; did you mean `n_fft`\?$"):
        validate(AudioConfig | None, {"logmel": {"n_fftt": 512}}, "audio")


def test_a_named_front_end_reaches_the_store_and_the_tables_as_its_values(tmp_path):
    (tmp_path / "params.yaml").write_text("audio: {logmel: mmaction2}\n")
    params = load_params(tmp_path / "params.yaml", audio=AudioConfig | None)
    assert params.flat()["audio.logmel.window"] == "sine"
    assert validate(AudioConfig, plain(params.audio), "audio") == params.audio
