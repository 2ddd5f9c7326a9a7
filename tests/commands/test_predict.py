"""What `avrecog predict` and `avrecog sync` decode of a file, and what they tell of it."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from avrecog.commands import sync
from avrecog.commands.predict import predict_files
from avrecog.commands.sync import sync_files
from avrecog.config import validate
from avrecog.extraction.extract import extract_all
from avrecog.extraction.media_file import decode_rows
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.store import Store
from avrecog.features.video_settings import VideoConfig
from avrecog.manifest import Clip
from avrecog.media.container import probe
from avrecog.models.registry import model_section
from bad_input.media import tone, without_packets, write_wav
from checkpoint import small_checkpoint
from clips import make_tone, make_video

FRONT_END = FrontEnd(AudioConfig(LogMelConfig(n_mels=16)), VideoConfig(fps=5.0, height=16, width=16))
BOTH = {"depth": 14, "width": 8, "frames": 8, "alpha": 2, "crop_height": 8, "crop_width": 8, "mel_frames": 32}
CONFIGS = {"audio": {"architecture": "audio"}, "both": {"architecture": "avsync", **BOTH}}


def described(name: str) -> SimpleNamespace:
    return SimpleNamespace(input=validate(model_section(), CONFIGS[name], "models.m").input(), front_end=FRONT_END)


@pytest.mark.parametrize(("ending", "duration_s"), [(".m4a", 1.0), (".m4a", 2.03), (".mp4", 1.0), (".wav", 1.0)])
def test_a_whole_file_is_what_extract_stores(tmp_path, ending, duration_s):
    path = tmp_path / f"a{ending}"
    if ending == ".mp4":
        make_video(path)
    else:
        make_tone(path, duration_s=duration_s, sample_rate=44_100)
    found = probe(path)
    whole = Clip(
        *("a", str(path), "x", "a", None, 0.0, None, found.duration_s, round(found.duration_s * found.fps), found.fps),
        *(found.sample_rate, found.has_audio, found.has_video, found.duration_estimated),
    )
    extract_all([whole], tmp_path / "out", FRONT_END.audio, FRONT_END.video if found.has_video else None, 0.0)
    rows = decode_rows(path, described("both" if found.has_video else "audio"))
    np.testing.assert_allclose(rows["audio"].values, Store(tmp_path / "out/audio")["a"], atol=0.02)
    if found.has_video:
        np.testing.assert_array_equal(rows["video"].values, Store(tmp_path / "out/video")["a"])


def with_gap(folder):
    return without_packets(make_tone(folder / "a.m4a", duration_s=3.0).path, 1.0, 2.0)


def in_opposite_phase(folder):
    return write_wav(folder / "a.wav", np.stack([tone(), -tone()], axis=1))


REMARKS = [
    (with_gap, "sound is missing, silence stands there: "),
    (in_opposite_phase, "its channels are in opposite phase and cancel each other out"),
]


@pytest.mark.parametrize(("make", "remark"), REMARKS)
def test_predict_tells_once_what_is_odd_about_a_file(tmp_path, caplog, make, remark):
    path = make(tmp_path)
    checkpoint = small_checkpoint(tmp_path, depth=18, width=4)
    with caplog.at_level(logging.WARNING):
        assert list(predict_files([path], [checkpoint, checkpoint], None, 3))
    (line,) = [record.getMessage() for record in caplog.records if str(path) in record.getMessage()]
    assert line.startswith(f"{path}: {remark}")
    assert line.count(remark) == 1
    assert "\n" not in line


def test_sync_tells_what_is_odd_about_a_file(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sync, "load_sync", lambda _: described("both"))
    monkeypatch.setattr(sync, "synchrony", lambda *_: SimpleNamespace(offset_s=0.0, score=0.5))
    path = without_packets(make_video(tmp_path / "a.mp4", n_frames=75).path, 1.0, 2.0)
    with caplog.at_level(logging.WARNING):
        assert "in time" in sync_files([path], tmp_path, 0.5)
    assert f"{path}: sound is missing" in caplog.text
