"""Log-mel against the numbers of the two reference implementations (see shared/parity/*/README.md)."""

import numpy as np
import pytest
import torch

from avrecog.features.log_mel import LogMel
from avrecog.features.numpy_log_mel import mel_basis
from avrecog.features.settings import FRONT_ENDS

EXACT = 2e-6  # the references are stored as float32 of values up to 18; MMAction2's scaling is in float32 too
SINGLE = {"slowfast": 2e-3, "mmaction2": 3e-5}  # log(x + 1e-8) of weak bands, in float32


@pytest.fixture
def slowfast(shared):
    """The waveform (S,) float64 by its formula, the log-mel (frames, bands), and the file."""
    golden = np.load(shared / "parity/slowfast/logmel.npz")
    n = np.arange(35_200)
    t = n / 16_000
    wave = 0.5 * np.sin(2 * np.pi * 440 * t) + 0.25 * np.sin(2 * np.pi * (500 * t + 1200 * t**2))
    return wave + 0.01 * np.sin(12.9898 * n), golden["logmel"].T, golden


@pytest.fixture
def mmaction2(shared):
    return np.load(shared / "parity/mmaction2/logmel.npz")


def difference(name: str, wave: np.ndarray, expected: np.ndarray, dtype: torch.dtype) -> float:
    log_mel = LogMel(FRONT_ENDS[name], dtype)(torch.from_numpy(wave).to(dtype)).double().numpy()
    assert log_mel.shape == expected.shape
    return float(np.abs(log_mel - expected).max())


def test_slowfast_log_mel_is_the_references(slowfast):
    wave, expected, _ = slowfast
    assert difference("slowfast", wave, expected, torch.float64) < EXACT
    assert difference("slowfast", wave, expected, torch.float32) < SINGLE["slowfast"]


def test_slowfast_mel_filters_are_the_references(slowfast):
    golden = slowfast[2]
    basis = mel_basis(FRONT_ENDS["slowfast"])
    np.testing.assert_allclose(basis.sum(axis=1), golden["fb_rowsum"], rtol=1e-6)
    np.testing.assert_allclose(basis[10], golden["fb_row10"], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(basis[70], golden["fb_row70"], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["w0", "w2", "w3"])
def test_mmaction2_log_mel_is_the_references(mmaction2, name):
    wave, expected = mmaction2[f"wave_{name}"], mmaction2[f"logmel_{name}"]
    assert difference("mmaction2", wave, expected, torch.float64) < EXACT
    assert difference("mmaction2", wave, expected, torch.float32) < SINGLE["mmaction2"]


def test_mmaction2_log_mel_of_resampled_sound_is_the_references(mmaction2):
    wave, expected = mmaction2["loaded_st44"], mmaction2["logmel_st44"]
    assert difference("mmaction2", wave, expected, torch.float64) < EXACT


def test_mmaction2_mel_filters_and_window_are_the_references(mmaction2):
    np.testing.assert_allclose(mel_basis(FRONT_ENDS["mmaction2"]), mmaction2["mel_basis_512"], rtol=1e-6, atol=1e-9)
    window = LogMel(FRONT_ENDS["mmaction2"], torch.float64).spectrum.window.numpy()
    golden = mmaction2["lws_window_512"]
    np.testing.assert_allclose(window / window.max(), golden / golden.max(), atol=1e-9)
