import math
import threading

import numpy as np
import pytest
import torch
from tqdm import tqdm

from avrecog.config import validate
from avrecog.datasets.augment import AudioAugmentConfig
from avrecog.datasets.log_mel import AudioClips
from avrecog.errors import ConfigError, DivergedError, OutOfMemoryError
from avrecog.features.settings import LogMelConfig
from avrecog.features.store import MemoryStore
from avrecog.models.audio_resnet import AudioResNet
from avrecog.runtime.distributed import Processes
from avrecog.training.loop import Control, Trainer
from avrecog.training.optim import learning_rate
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
    return AudioClips(
        MemoryStore(rows), list(rows), labels, mel_frames=48, front_end=FRONT_END, augment=AudioAugmentConfig()
    )


class StopWhen(Control):
    def __init__(self, should_stop):
        self.should_stop = should_stop


def trainer(**changes):
    torch.manual_seed(0)
    settings = {"epochs": 4, "batch_size": 8, "base_batch_size": 8, "lr": 0.02, "warmup_epochs": 0.5, **changes}
    return Trainer(AudioResNet(10, 2, width=8, dropout=0.2), validate(TrainConfig, settings, "train"), Processes())


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


def test_a_network_that_cannot_be_compiled_here_is_refused_before_the_first_step(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"train.compile: can't be done here: there is no C.* compiler; install g"):
        trainer(compile=True)


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
    assert not torch.equal(averaged["fc.weight"].cpu(), current["fc.weight"].cpu())


def test_a_loss_that_is_no_number_stops_at_its_step_and_names_the_clips_of_the_batch():
    broken = dataset()
    broken._values[50 * 7 : 50 * 8] = np.nan
    trained = trainer()
    with pytest.raises(DivergedError, match=r"loss is nan at step \d of 3 of epoch 1; lower train\.lr .*0\.02") as stop:
        fit(trained, train=broken)
    named = str(stop.value).split(": ")[-1].split(", ")
    assert "clip7" in named
    assert len(named) == 8
    assert all(value.isfinite().all() for name, value in trained.state()["model"].items() if name.endswith("fc.weight"))


def test_a_loss_that_explodes_stops_the_training():
    with pytest.raises(DivergedError, match="the training loss is .* at step"):
        fit(trainer(lr=1e6, clip_grad_norm=None, warmup_epochs=0))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"), "out of GPU memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "out of memory"),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory"),
    ],
)
def test_out_of_memory_says_what_to_lower(error, words, monkeypatch):
    trained = trainer()

    def fall_over(*_):
        raise error

    monkeypatch.setattr(trained.bare_model, "forward", fall_over)
    with pytest.raises(OutOfMemoryError, match=rf"{words} .*; lower train\.batch_size"):
        fit(trained)


def test_an_error_of_ours_in_the_model_stays_what_it_is(monkeypatch):
    trained = trainer()

    def fall_over(*_):
        raise RuntimeError("shapes")

    monkeypatch.setattr(trained.bare_model, "forward", fall_over)
    with pytest.raises(RuntimeError, match="shapes"):
        fit(trained)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_reading_ahead_in_a_thread_as_on_a_gpu_changes_no_weight(alpha):
    plain, ahead = (trainer(augment={"mixup_alpha": alpha}, epochs=2) for _ in range(2))
    ahead.reads_ahead = True
    first, second = (fit(each).evaluated_weights() for each in (plain, ahead))
    assert plain.history == ahead.history
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_reading_ahead_ends_with_the_training_and_hands_its_errors_on(monkeypatch):
    ahead = trainer(epochs=1)
    ahead.reads_ahead = True
    train, steps = dataset(), []
    make = train.training_batch

    def fail_later(indices, draw, device):
        steps.append(len(indices))
        if len(steps) == 3:
            raise OSError("unreadable")
        return make(indices, draw, device)

    monkeypatch.setattr(train, "training_batch", fail_later)
    with pytest.raises(OSError, match="unreadable"):
        fit(ahead, train)
    assert ahead.steps_done == 2
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]


def test_an_error_while_a_batch_is_made_names_the_clip(monkeypatch):
    train = dataset()
    make = train.training_batch

    def fail_on_five(indices, draw, device):
        if 5 in indices:
            raise ValueError("cut off")
        return make(indices, draw, device)

    monkeypatch.setattr(train, "training_batch", fail_on_five)
    with pytest.raises(ValueError, match="cut off") as stop:
        fit(trainer(), train=train)
    assert stop.value.__notes__ == ["while making a training batch of clip clip5"]


@pytest.mark.parametrize("n_steps", [1, 4, 6])
def test_a_training_told_to_stop_between_two_steps_goes_on_from_that_step(n_steps):
    changes = {"ema_decay": 0.9, "augment": {"mixup_alpha": 0.3}}
    unbroken = fit(trainer(**changes))
    broken, asked = trainer(**changes), iter(range(100))
    done = broken.fit(
        dataset(), dataset(12, seed=1), lambda row: None, tqdm(disable=True), StopWhen(lambda: next(asked) == n_steps)
    )
    assert not done
    assert 3 * broken.epochs_done + broken.steps_done == n_steps
    resumed = trainer(**changes)
    resumed.load_state(torch.load(_saved(broken.state()), weights_only=True))
    fit(resumed)
    assert resumed.history == unbroken.history
    for name, value in unbroken.evaluated_weights().items():
        assert torch.equal(resumed.evaluated_weights()[name], value), name


def test_a_training_interrupted_in_its_validation_validates_when_it_goes_on(monkeypatch):
    unbroken = fit(trainer(ema_decay=0.9))
    broken, signalled = trainer(ema_decay=0.9), []

    def interrupt(*_, **__):
        signalled.append(True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("avrecog.training.loop.predict_scores", interrupt)
        when = StopWhen(lambda: bool(signalled))
        done = broken.fit(dataset(), dataset(12, seed=1), lambda row: None, tqdm(disable=True), when)
    assert not done
    assert (broken.epochs_done, broken.steps_done) == (0, 3)
    resumed = trainer(ema_decay=0.9)
    resumed.load_state(torch.load(_saved(broken.state()), weights_only=True))
    assert fit(resumed).history == unbroken.history


class Narrow(AudioResNet):
    """One that leaves its last batch norms one place of a crop."""

    def forward(self, log_mel):
        return super().forward(log_mel[:, :, :16, :16])


def narrow_trainer(**changes):
    torch.manual_seed(0)
    settings = {"epochs": 2, "base_batch_size": 8, "lr": 0.02, "warmup_epochs": 0.5, **changes}
    return Trainer(Narrow(10, 2, width=8, dropout=0.2), validate(TrainConfig, settings, "train"), Processes())


def recorded(train):
    """The dataset, and the clips of each of its training batches."""
    seen, make = [], train.training_batch

    def record(indices, draw, device):
        seen.append(indices.tolist())
        return make(indices, draw, device)

    train.training_batch = record
    return train, seen


@pytest.mark.parametrize("n_clips", [3, 5, 17])
def test_an_odd_clip_trains_with_its_neighbours_once_an_epoch(n_clips):
    train, seen = recorded(dataset(n_clips))
    trained = fit(narrow_trainer(batch_size=2), train=train)
    half = len(seen) // 2
    assert half == n_clips // 2
    for epoch in (seen[:half], seen[half:]):
        assert sorted(index for batch in epoch for index in batch) == list(range(n_clips))
    assert all(math.isfinite(row["train_loss"]) for row in trained.history)
    # the schedule counts the steps that are made
    assert trained.history[-1]["lr"] == pytest.approx(learning_rate(1 + (half - 0.5) / half, trained.config))


def test_a_training_with_an_odd_clip_goes_on_from_between_two_steps():
    unbroken = fit(narrow_trainer(batch_size=2), train=dataset(7))
    broken, asked = narrow_trainer(batch_size=2), iter(range(100))
    stop = StopWhen(lambda: next(asked) == 2)
    assert not broken.fit(dataset(7), dataset(12, seed=1), lambda row: None, tqdm(disable=True), stop)
    assert broken.steps_done == 2
    resumed = narrow_trainer(batch_size=2)
    resumed.load_state(torch.load(_saved(broken.state()), weights_only=True))
    assert fit(resumed, train=dataset(7)).history == unbroken.history


@pytest.mark.parametrize(("batch_size", "n_clips"), [(1, 6), (4, 1)])
def test_batches_of_one_clip_are_refused_before_a_step_where_a_batch_norm_would_see_one_value(batch_size, n_clips):
    train, seen = recorded(dataset(n_clips))
    trained = narrow_trainer(batch_size=batch_size)
    before = {name: value.clone() for name, value in trained.bare_model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"in a batch of one clip batch norm \S+ would see a single value"):
        fit(trained, train=train)
    assert len(seen) == 1  # it was looked at, no more
    assert all(torch.equal(value, before[name]) for name, value in trained.bare_model.state_dict().items())


def test_batches_of_one_clip_train_where_every_batch_norm_sees_more():
    train, seen = recorded(dataset(6))
    trained = fit(trainer(batch_size=1, epochs=1), train=train)
    assert sorted(seen[1:]) == [[index] for index in range(6)]
    assert math.isfinite(trained.history[0]["train_loss"])


def test_more_processes_than_gpus_are_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("avrecog.training.loop.pick_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match="at most 1 processes, one for each GPU of this machine, got 2; lower"):
        Trainer(AudioResNet(10, 2, width=8), TrainConfig(), Processes(rank=1, n=2, n_on_this_machine=2))
