import dataclasses

import numpy as np
import pytest

from avrecog.config import plain, validate
from avrecog.datasets.open import Features, open_split
from avrecog.errors import ManifestError
from avrecog.extraction.store_writer import StoreWriter
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig, LogMelConfig
from avrecog.features.store import Store
from avrecog.manifest import Clip, LabelledClips
from avrecog.models.registry import model_section

FRONT_END = FrontEnd(AudioConfig(logmel=LogMelConfig(n_mels=4)), None)
CLIP = Clip("a", "a.mp4", "x", "g", None, 0.0, 10.0, 10.0, 100, 10.0, 16_000, True, True)


@pytest.fixture
def open_test(tmp_path):
    """Opens split test of clips that have 400 mel frames each."""

    def opened(*clips, **config):
        writer = StoreWriter(tmp_path / "audio", plain(FRONT_END.audio.logmel), (4,), "float16")
        for clip in clips:
            writer.append(clip.clip_id, np.zeros((400, 4)))
        writer.finish()
        writer.seal()
        tables = LabelledClips(clips, {clip.clip_id: "test" for clip in clips}, ["x"])
        model = validate(model_section(), {"architecture": "audio", **config}, "models.m")
        features = Features(Store(tmp_path / "audio"), FRONT_END, tables)
        return open_split(model.input(), features, "test").clips

    return opened


def test_crops_lie_by_time_unless_asked_otherwise(open_test):
    assert open_test(CLIP).views(1).tolist() == [[0, 136]]


def test_crops_by_frame_number_take_the_number_from_the_manifest(open_test):
    """The middle 64 of 100 frames are those from 18 to 82: rows 76 to 328 of 400, of which a crop takes 128."""
    other = dataclasses.replace(CLIP, clip_id="b", n_frames=200)
    views = open_test(CLIP, other, sampling="mmaction2-1.x").views(1)
    assert views.tolist() == [[0, 76, 128], [1, 138, 126]]


def test_clips_without_frames_are_refused_where_frames_are_counted(open_test):
    silent = dataclasses.replace(CLIP, clip_id="b", n_frames=0, fps=0.0, has_video=False)
    assert len(open_test(CLIP, silent)) == 2
    with pytest.raises(ManifestError, match=r"sampling mmaction2-0\.x counts video frames, and 1 clips have none.* b;"):
        open_test(CLIP, silent, sampling="mmaction2-0.x")


def test_a_clip_has_as_many_views_by_frame_number_as_are_asked_for():
    by_time = validate(model_section(), {"architecture": "audio"}, "models.m")
    by_frames = dataclasses.replace(by_time, sampling="mmaction2-1.x")
    assert by_time.input().n_views(130, 10) == 3
    assert by_frames.input().n_views(130, 10) == 10
