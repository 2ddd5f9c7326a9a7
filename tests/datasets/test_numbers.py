"""Without PyTorch a dataset gives the numbers that it gives with it."""

import numpy as np
import pytest
import torch

from avrecog.config import validate
from avrecog.datasets.build import StoredClips, make_dataset
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.store import MemoryStore
from avrecog.features.video_settings import VideoConfig
from avrecog.models.registry import model_section

FRONT_END = FrontEnd(AudioConfig(LogMelConfig(n_mels=20)), VideoConfig(height=20, width=24))
SIGHT = {"crop_height": 16, "crop_width": 16}
PATHWAYS = {**SIGHT, "depth": 14, "width": 8, "frames": 8, "alpha": 4}
SECTIONS = {
    "audio": {"architecture": "audio", "mel_frames": 32},
    "tsn": {"architecture": "tsn", "n_segments": 2, "snippet": 2, **SIGHT},
    "slowfast": {"architecture": "slowfast", "n_crops": 3, **PATHWAYS},
    "avslowfast": {"architecture": "avslowfast", "mel_frames": 16, **PATHWAYS},
}


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("n_rows", [(5, 20), (30, 90)])
def test_arrays_are_equal_to_tensors(name, n_rows):
    rng = np.random.default_rng(0)
    rows = {
        "video": MemoryStore({"clip": rng.integers(0, 256, (n_rows[0], 20, 24, 3), dtype=np.uint8)}),
        "audio": MemoryStore({"clip": rng.standard_normal((n_rows[1], 20)).astype(np.float16)}),
    }
    config = validate(model_section(), SECTIONS[name], "m")
    dataset = make_dataset(config.input(), StoredClips(FRONT_END, rows, ["clip"], np.zeros(1, np.int64)))
    views = dataset.views(None)
    arrays, tensors = dataset.view_batch(views, None), dataset.view_batch(views, torch.device("cpu"))
    assert len(arrays) == len(tensors)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensor.numpy())
