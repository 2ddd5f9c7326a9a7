"""Log-mel without PyTorch is that with it."""

import numpy as np
import pytest
import torch

from avrecog.features.log_mel import LogMel
from avrecog.features.numpy_log_mel import BLOCK_ROWS, log_mel
from avrecog.features.settings import FRONT_ENDS, LogMelConfig

SETTINGS = {
    "ours": LogMelConfig(),
    **FRONT_ENDS,
    "magnitudes": LogMelConfig(power=1, window="sine", hop_length=200, n_fft=400),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("n_samples", [1, 300, 16_000, 40_001])
def test_numpy_gives_what_pytorch_gives(name, n_samples):
    config = SETTINGS[name]
    rng = np.random.default_rng(0)
    waveform = (0.3 * rng.standard_normal(n_samples)).astype(np.float32)
    waveform[: n_samples // 4] = 0
    found, expected = log_mel(waveform, config), LogMel(config)(torch.from_numpy(waveform)).numpy()
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-3 if config.log == "natural" else 1e-5)


def test_blocks_leave_no_seam():
    config = LogMelConfig(hop_length=64, n_fft=128, n_mels=8)
    waveform = np.random.default_rng(0).standard_normal(64 * (BLOCK_ROWS + 10)).astype(np.float32)
    found = log_mel(waveform, config)
    assert len(found) == BLOCK_ROWS + 11
    np.testing.assert_allclose(found, LogMel(config)(torch.from_numpy(waveform)).numpy(), atol=1e-3)
