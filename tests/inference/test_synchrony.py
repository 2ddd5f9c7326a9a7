from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avrecog.commands import sync
from avrecog.commands.sync import sync_files
from avrecog.config import validate
from avrecog.errors import CheckpointError, MediaError
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.store import MemoryStore
from avrecog.features.video_settings import VideoConfig
from avrecog.inference import synchrony as module
from avrecog.inference.synchrony import load_sync, synchrony
from avrecog.models.avsync import AVSync
from avrecog.models.registry import model_section
from checkpoint import small_checkpoint

SMALL = {"depth": 14, "width": 8, "frames": 8, "alpha": 2, "crop_height": 8, "crop_width": 8, "mel_frames": 32}
LOGMEL = LogMelConfig(sample_rate=16000, hop_length=160, n_mels=4)  # 100 mel frames a second


class Telling(AVSync):
    """Says what is in the first picture and in the first mel frame: their numbers are their times."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def embed_video(self, frames):
        return torch.stack([frames[:, 0, 0, 0, 0] * 255 / 12.5, 0 * frames[:, 0, 0, 0, 0]], dim=1)

    def embed_audio(self, log_mel):
        return torch.stack([log_mel[:, 0, 0, 0] / 100, 0 * log_mel[:, 0, 0, 0]], dim=1)


def model():
    config = validate(model_section(), {"architecture": "avsync", **SMALL}, "models.sync")
    front_end = FrontEnd(AudioConfig(LOGMEL), VideoConfig(fps=12.5, height=8, width=8))
    return SimpleNamespace(network=Telling(), input=config.input(), front_end=front_end)


def rows(late_s=0.0, seconds=2.0):
    """A clip whose sound comes `late_s` after its picture."""
    n_frames, n_mel = round(12.5 * seconds), round(100 * seconds) + 1
    video = np.arange(n_frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    audio = (np.arange(n_mel, dtype=np.float16) - 100 * late_s)[:, None] * np.ones((1, 4), np.float16)
    return {"video": MemoryStore({"clip": video}), "audio": MemoryStore({"clip": audio})}


@pytest.mark.parametrize("late_s", [0.0, 0.2, -0.2, 0.36, -0.36])
def test_the_offset_is_found_and_its_sign_says_that_the_sound_is_late(late_s):
    found = synchrony(model(), rows(late_s))
    assert found.offset_s == pytest.approx(late_s, abs=0.021)
    assert (found.score > 0.9) == (late_s == 0)
    assert np.nanargmin(found.distances) == np.argmin(np.abs(found.offsets_s - found.offset_s))


def test_windows_of_other_difficulty_do_not_move_the_offset():
    """Distances of a window that is far from every sound, and that has the early offsets only."""
    base = np.abs(np.arange(-3, 4.0))[None] + np.array([[0.0], [5.0], [0.5]])
    base[1, 4:] = base[0, :2] = np.nan
    assert module._of_offset(base).argmin() == 3


def test_clips_that_cannot_be_compared_are_refused():
    short = rows(seconds=0.8)
    with pytest.raises(MediaError, match=r"expected a clip of 0\.84 s at least"):
        synchrony(model(), short)
    silent = {**rows(), "audio": MemoryStore({}, np.zeros((0, 4), np.float16))}
    with pytest.raises(MediaError, match="expected a sound and a picture"):
        synchrony(model(), silent)


def test_another_network_is_refused(tmp_path):
    checkpoint = small_checkpoint(tmp_path, depth=18, width=4)
    with pytest.raises(CheckpointError, match="expected a model that compares sound and picture, got ResNet18"):
        load_sync(checkpoint)


def test_every_file_is_answered_or_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sync, "load_sync", lambda _: model())
    monkeypatch.setattr(sync, "decode_rows", lambda file, *_: rows(0.2 if "late" in file.name else 0.0))
    said = sync_files([tmp_path / "late.mp4", tmp_path / "right.mp4"], tmp_path, 0.5).splitlines()
    assert "late.mp4: the sound is 0.20 s late (of 0.5 s looked through)" in said[0]
    assert "right.mp4: sound and picture are in time" in said[1]
    monkeypatch.setattr(sync, "decode_rows", lambda file, *_: rows(0.2, 2.0 if "late" in file.name else 0.5))
    with pytest.raises(MediaError, match=r"(?s)late\.mp4: the sound is 0\.20 s late.*expected a clip of"):
        sync_files([tmp_path / "late.mp4", tmp_path / "short.mp4"], tmp_path, 0.5)
