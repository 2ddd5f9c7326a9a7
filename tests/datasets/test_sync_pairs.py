import numpy as np
import torch

from avrecog.datasets.audiovisual import AVClips
from avrecog.datasets.augment import AudioAugmentConfig, VideoAugmentConfig
from avrecog.datasets.frame_spans import FrameClips
from avrecog.datasets.sync_pairs import SyncPairs
from avrecog.features.settings import LogMelConfig
from avrecog.features.store import MemoryStore
from avrecog.inputs import MisalignedSounds

CPU = torch.device("cpu")
NAMES = ["a", "b", "c", "d", "e"]
FRONT_END = LogMelConfig(
    sample_rate=16000, n_fft=1600, hop_length=1600, n_mels=4
)  # 10 mel frames a second, as many as pictures


def pairs(hard_share=1.0, own_first=False):
    """Frames and mel frames hold the number of their time, from 0 to 40; mel band 1 that of the clip."""
    video = MemoryStore({name: np.arange(41, dtype=np.uint8)[:, None, None, None].repeat(3, 3) for name in NAMES})
    sound = np.zeros((len(NAMES), 41, 4), np.float16)
    sound[:, :, 0], sound[:, :, 1] = np.arange(41), np.arange(len(NAMES))[:, None]
    audio = MemoryStore(dict(zip(NAMES, sound, strict=True)))
    pictures = FrameClips(
        video,
        NAMES,
        np.zeros(len(NAMES)),
        frames=8,
        frame_stride=1,
        size=(1, 1),
        n_crops=1,
        augment=VideoAugmentConfig(),
    )
    return SyncPairs(
        AVClips(
            pictures,
            audio,
            fps=10.0,
            mel_frames=9,
            front_end=FRONT_END,
            augment=AudioAugmentConfig(),
            sync=MisalignedSounds(hard_from_epoch=0, hard_share=hard_share),
        ),
        own_first,
    )


def first_times(frames, *sounds):
    return [(frames[:, 0, 0, 0, 0] * 255).round(), *(sound[:, 0, 0, 0] for sound in sounds)]


def test_the_labels_say_which_sound_is_the_pictures_own():
    dataset = pairs()
    assert dataset.labels.tolist() == [0, 1, 0, 1, 0]
    for frames, *sounds in (
        dataset.training_batch(np.arange(5), dataset.draw(0, 3), CPU),
        dataset.view_batch(dataset.views(1), CPU),
    ):
        seen, *heard = first_times(frames, *sounds)
        for clip, label in enumerate(dataset.labels):
            assert heard[label][clip] == seen[clip]
            assert abs(heard[1 - label][clip] - seen[clip]) >= 5
            assert heard[0][clip] != heard[1][clip]
        assert [sound[:, 0, 0, 1].tolist() for sound in sounds] == [[0, 1, 2, 3, 4]] * 2


def test_in_training_the_own_sound_is_the_first():
    dataset = pairs(own_first=True)
    assert not dataset.labels.any()
    seen, first, second = first_times(*dataset.training_batch(np.arange(5), dataset.draw(0, 3), CPU))
    assert (first == seen).all()
    assert (second != seen).all()


def test_easy_pairs_have_the_sound_of_another_clip():
    dataset = pairs(hard_share=0.0)
    _, first, second = dataset.training_batch(np.arange(5), dataset.draw(0, 0), CPU)
    sounds = torch.stack([first, second])[:, :, 0, 0, 1]
    for clip, label in enumerate(dataset.labels):
        assert sounds[label, clip] == clip
        assert sounds[1 - label, clip] != clip


def test_the_pairs_of_a_test_are_the_same_each_time_and_differ_from_each_other():
    dataset = pairs()
    views = dataset.views(3)
    assert views.tolist()[:4] == [[0, 0], [0, 1], [0, 2], [1, 0]]
    once, again = dataset.view_batch(views, CPU), pairs().view_batch(views[::-1].copy(), CPU)
    for one, other in zip(once, again, strict=True):
        torch.testing.assert_close(one, other.flip(0))
    assert len(set((once[0][:, 0, 0, 0, 0] * 255).round().tolist())) > 5
