import math

import numpy as np
import pytest
import torch
from tqdm import tqdm

from avrecog.config import validate
from avrecog.datasets.audio import AudioClips
from avrecog.datasets.augment import AudioAugmentConfig
from avrecog.errors import TrainingError
from avrecog.logmel import LogMelConfig
from avrecog.models.audio_resnet import AudioResNet
from avrecog.store import MemoryStore
from avrecog.training.loop import Trainer
from avrecog.training.settings import TrainConfig

FRONT_END = LogMelConfig(n_mels=32)


def dataset(n=24, seed=0):
    """Two classes: more energy in the lower or in the upper bands."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    rows = {}
    for index, label in enumerate(labels):
        values = generator.normal(0, 0.3, (50, 32))
        values[:, 16 * label : 16 * label + 16] += 1
        rows[f"clip{index}"] = values.astype(np.float16)
    return AudioClips(MemoryStore(rows), list(rows), labels, 48, FRONT_END, AudioAugmentConfig())


def trainer(**changes):
    torch.manual_seed(0)
    settings = {"epochs": 4, "batch_size": 8, "base_batch_size": 8, "lr": 0.02, "warmup_epochs": 0.5, **changes}
    return Trainer(AudioResNet(10, 2, width=8, dropout=0.2), validate(TrainConfig, settings, "train"))


def fit(trained, train=None, val=None):
    trained.fit(train or dataset(), val or dataset(12, seed=1), lambda row: None, tqdm(disable=True))
    return trained


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "lr": 0.002},
        {"ema_decay": 0.5},
        {"augment": {"mixup_alpha": 0.2}, "label_smoothing": 0.1},
        {"precision": "bf16-mixed"},
        {"clip_grad_norm": None},
    ],
    ids=str,
)
def test_the_loop_learns_two_plain_classes(changes):
    trained = fit(trainer(**changes))
    assert trained.history[-1]["val_top1"] >= 0.9


def test_validation_keeps_its_interval_and_never_misses_the_last_epoch():
    trained = fit(trainer(epochs=5, val_interval=2))
    assert [row["epoch"] for row in trained.history if "val_top1" in row] == [2, 4, 5]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, second, other = (fit(trainer(seed=seed)).evaluated_weights() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_going_on_from_a_saved_state_changes_nothing():
    changes = {"ema_decay": 0.9, "augment": {"mixup_alpha": 0.3}}
    unbroken = fit(trainer(**changes))
    saved = []

    def save_second(row):
        if row["epoch"] == 2:
            saved.append(torch.load(_saved(broken.state()), weights_only=True))
            raise KeyboardInterrupt

    broken = trainer(**changes)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(dataset(), dataset(12, seed=1), save_second, tqdm(disable=True))
    resumed = trainer(**changes)
    resumed.load_state(saved[0])
    fit(resumed)
    assert resumed.history == unbroken.history
    for name, value in unbroken.evaluated_weights().items():
        assert torch.equal(resumed.evaluated_weights()[name], value), name


def _saved(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_the_average_is_what_is_evaluated_and_training_goes_on_with_the_weights():
    trained = fit(trainer(ema_decay=0.99, epochs=2))
    averaged, current = trained.evaluated_weights(), trained.bare_model.state_dict()
    assert not torch.equal(averaged["fc.weight"], current["fc.weight"])


def test_a_loss_that_is_no_number_stops_the_training_with_the_rate_in_force():
    broken = dataset()
    broken._values[:] = np.nan
    with pytest.raises(TrainingError, match=r"training loss of epoch 1 is nan; lower train\.lr \(in force: 0\.02\)"):
        fit(trainer(), train=broken)


def test_no_batch_is_ever_a_single_clip():
    trained = fit(trainer(epochs=1, warmup_epochs=0), train=dataset(17))
    assert math.isfinite(trained.history[0]["train_loss"])
