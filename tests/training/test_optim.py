import pytest
import torch

from avrecog.config import validate
from avrecog.errors import ConfigError
from avrecog.models.audio_resnet import AudioResNet
from avrecog.training.optim import WeightAverage, learning_rate, make_optimizer
from avrecog.training.settings import TrainConfig, resolve_train_config


def config(**changes):
    return validate(TrainConfig, {"epochs": 10, "warmup_epochs": 2, **changes}, "train")


def test_the_rate_is_scaled_linearly_with_the_batch():
    assert config(lr=0.1, base_batch_size=32, batch_size=128).scaled_lr == pytest.approx(0.4)


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    settings = config(lr=0.1)
    assert learning_rate(0, settings) == 0
    assert learning_rate(1, settings) == pytest.approx(0.05)
    assert learning_rate(2, settings) == pytest.approx(0.1)
    assert learning_rate(6, settings) == pytest.approx(0.05)
    assert learning_rate(10, settings) == pytest.approx(0)


def test_without_warm_up_training_begins_at_the_peak():
    assert learning_rate(0, config(warmup_epochs=0, lr=0.1)) == pytest.approx(0.1)


def test_a_rate_that_falls_by_epochs_stays_during_one():
    settings = config(lr=0.1, lr_updates="epoch", warmup_epochs=0)
    assert learning_rate(0.99, settings) == learning_rate(0, settings) == pytest.approx(0.1)
    assert learning_rate(5.5, settings) == learning_rate(5, settings) == pytest.approx(0.05)


def test_the_rate_rises_by_steps_even_where_it_falls_by_epochs():
    settings = config(lr=0.1, lr_updates="epoch", warmup_epochs=2.5)
    assert learning_rate(1.25, settings) == pytest.approx(0.05)
    assert learning_rate(2.6, settings) == pytest.approx(0.1)


def test_batch_norm_and_bias_do_not_decay_unless_asked():
    model = AudioResNet(10, 3, width=8)
    decayed, plain = make_optimizer(model, config(weight_decay=0.1)).param_groups
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0)
    (everything,) = make_optimizer(model, config(decay_norm_and_bias=True)).param_groups
    assert len(everything["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_is_the_one_named(name, kind):
    assert isinstance(make_optimizer(torch.nn.Linear(2, 2), config(optimizer=name)), kind)


def test_the_average_lags_behind_the_weights_and_reaches_them():
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average.update(model)
    assert 0 < float(average.weights["weight"]) < 1
    for _ in range(200):
        average.update(model)
    assert float(average.weights["weight"]) == pytest.approx(1, abs=1e-4)


def test_the_average_counts_batches_like_the_model():
    model = torch.nn.BatchNorm1d(2)
    average = WeightAverage(model, 0.5)
    model(torch.rand(4, 2))
    average.update(model)
    assert int(average.weights["num_batches_tracked"]) == 1


def test_an_override_reaches_into_nested_settings():
    in_force, said = resolve_train_config(config(), {"lr": 0.3, "augment": {"audio": {"gain_db": 2.0}}}, "audio")
    assert in_force.lr == 0.3
    assert in_force.augment.audio.gain_db == 2.0
    assert in_force.epochs == 10
    assert said == ["lr 0.3 (models.audio.train)", "augment.audio.gain_db 2.0 (models.audio.train)"]


def test_a_misspelt_override_is_refused_with_its_place():
    with pytest.raises(ConfigError, match=r"models\.audio\.train\.epoch: unknown key; did you mean `epochs`"):
        resolve_train_config(config(), {"epoch": 3}, "audio")


def test_a_warm_up_longer_than_the_training_is_refused():
    with pytest.raises(ConfigError, match="warmup_epochs: expected less than epochs"):
        config(warmup_epochs=10)
