import numpy as np
import pytest
import torch

from avrecog.datasets.audiovisual import AVClips
from avrecog.datasets.augment import AudioAugmentConfig, VideoAugmentConfig
from avrecog.datasets.frame_spans import GREY, FrameClips
from avrecog.errors import ConfigError
from avrecog.features.settings import LogMelConfig
from avrecog.features.store import MemoryStore
from avrecog.inputs import MisalignedSounds

CPU = torch.device("cpu")
FPS = 10.0
FRONT_END = LogMelConfig(sample_rate=16000, hop_length=160, n_mels=4)  # 100 mel frames a second
SILENCE = float(np.float16(FRONT_END.silence))
LENGTHS = {"long": 100, "short": 5, "deaf": 40, "blind": 40}  # video frames; deaf has no sound, blind no picture


def stores():
    """Frames and mel frames that hold their own number: frame i lasts as long as mel frames 10 i to 10 i + 9."""
    video = {
        name: np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 6, 8, 3)).copy()
        for name, n in LENGTHS.items()
        if name != "blind"
    }
    audio = {
        name: np.broadcast_to(np.arange(10 * n + 1, dtype=np.float16)[:, None], (10 * n + 1, 4)).copy()
        for name, n in LENGTHS.items()
        if name != "deaf"
    }
    return MemoryStore(video), MemoryStore(audio)


def clips(names=tuple(LENGTHS), frames=8, stride=2, mel_frames=32, n_crops=1, sync=None, **augment):
    video, audio = stores()
    labels = np.arange(len(names))
    pictures = FrameClips(
        video,
        names,
        labels,
        frames=frames,
        frame_stride=stride,
        size=(6, 6),
        n_crops=n_crops,
        augment=VideoAugmentConfig(),
    )
    return AVClips(
        pictures,
        audio,
        fps=FPS,
        mel_frames=mel_frames,
        front_end=FRONT_END,
        augment=AudioAugmentConfig(**augment),
        sync=sync,
    )


def numbers(frames):
    """(B, T) numbers of the frames."""
    return (frames[:, :, 0, 0, 0] * 255).round()


def test_sound_and_picture_of_a_view_are_of_the_same_time():
    dataset = clips(["long"])
    frames, log_mel, present = dataset.view_batch(dataset.views(4), CPU)
    first = numbers(frames)[:, 0]
    assert first.tolist() == [0, 28, 56, 84]
    assert numbers(frames)[1].tolist() == list(range(28, 44, 2))
    times = torch.linspace(0, 16, 32)[None] + first[:, None]  # of the mel frames, in video frames
    torch.testing.assert_close(log_mel[:, 0, :, 0] / 10, times, atol=0.051, rtol=0)
    assert present.tolist() == [[1.0, 1.0]] * 4


def test_sound_and_picture_of_a_training_batch_are_of_the_same_time():
    dataset = clips(["long"] * 1)
    seen = set()
    for epoch in range(30):
        frames, log_mel, _ = dataset.training_batch(np.array([0]), dataset.draw(0, epoch), CPU)
        first = float(numbers(frames)[0, 0])
        assert float(log_mel[0, 0, 0, 0]) == pytest.approx(10 * first)
        assert float(log_mel[0, 0, -1, 0]) == pytest.approx(min(1000, 10 * first + 160))
        seen.add(first)
    assert len(seen) > 15
    assert max(seen) <= 84


def test_what_a_clip_lacks_is_grey_or_silent_and_is_said():
    dataset = clips()
    frames, log_mel, present = dataset.view_batch(dataset.views(1), CPU)
    assert present.tolist() == [[1, 1], [1, 1], [1, 0], [0, 1]]
    assert dataset.n_one_sided == 2
    assert (log_mel[2] == SILENCE).all()
    torch.testing.assert_close(frames[3], torch.full_like(frames[3], GREY / 255))
    assert float(log_mel[3, 0, 0, 0]) == 120  # the middle of what is heard


def test_a_short_clip_stands_in_the_middle_its_ends_repeated_and_silence_around():
    dataset = clips(["short"])
    frames, log_mel, _ = dataset.view_batch(dataset.views(3), CPU)
    assert len(frames) == 1
    assert numbers(frames)[0].tolist() == [0, 0, 0, 0, 2, 4, 4, 4]
    sounding = log_mel[0, 0, :, 0] != SILENCE
    assert sounding.float().mean() == pytest.approx(5 / 16, abs=0.05)
    assert dataset.n_shorter == 1


def test_three_crops_lie_along_the_longer_side():
    video = {"a": np.broadcast_to(np.arange(8, dtype=np.uint8)[None, None, :, None], (4, 6, 8, 3)).copy()}
    dataset = FrameClips(
        MemoryStore(video),
        ["a"],
        np.zeros(1),
        frames=4,
        frame_stride=1,
        size=(6, 6),
        n_crops=3,
        augment=VideoAugmentConfig(),
    )
    views = dataset.views(1)
    assert views.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    (frames,) = dataset.view_batch(views, CPU)
    assert (frames[:, 0, 0, 0, 0] * 255).round().tolist() == [0, 1, 2]


def test_misaligned_sounds_are_other_clips_and_then_their_own_at_another_time():
    names = ["long", "other"]
    video = MemoryStore({name: np.zeros((100, 6, 8, 3), np.uint8) for name in names})
    audio = MemoryStore(
        {name: np.full((1001, 4), 2000 * i, np.float16) + np.arange(1001)[:, None] for i, name in enumerate(names)}
    )
    pictures = FrameClips(
        video, names, np.zeros(2), frames=8, frame_stride=2, size=(6, 6), n_crops=1, augment=VideoAugmentConfig()
    )
    dataset = AVClips(
        pictures,
        audio,
        fps=FPS,
        mel_frames=32,
        front_end=FRONT_END,
        augment=AudioAugmentConfig(),
        sync=MisalignedSounds(hard_from_epoch=3, hard_share=1.0),
    )
    indices = np.array([0, 1])
    for epoch in range(40):
        *_, own, _, misaligned = dataset.training_batch(indices, dataset.draw(0, epoch), CPU)
        clip_of = (misaligned[:, 0, 0, 0] >= 1500).long().tolist()
        if epoch < 3:
            assert clip_of == [1, 0]
        else:
            assert clip_of == [0, 1]
            apart = (misaligned[:, 0, 0, 0] - own[:, 0, 0, 0]).abs()
            assert (apart >= 50).all(), apart


def test_rolled_sound_is_refused():
    with pytest.raises(ConfigError, match="roll: expected false for a model of sound and picture"):
        clips(roll=True)


def test_what_a_clip_becomes_does_not_depend_on_its_batch():
    dataset = clips(gain_db=6.0)
    draw = dataset.draw(1, 2)
    together = dataset.training_batch(np.arange(4), draw, CPU)
    for index in range(4):
        alone = dataset.training_batch(np.array([index]), draw, CPU)
        for mine, all_of_them in zip(alone, together, strict=True):
            torch.testing.assert_close(mine[0], all_of_them[index])
