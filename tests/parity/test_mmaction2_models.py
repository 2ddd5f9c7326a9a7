"""Networks, training steps and learning rates against MMAction2's (see shared/parity/mmaction2/README.md)."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from avrecog.commands.convert import convert_checkpoint
from avrecog.config import validate
from avrecog.interop.checkpoints import load_mmaction2
from avrecog.models.checkpoint import load_checkpoint
from avrecog.training.optim import learning_rate, make_optimizer
from avrecog.training.settings import TrainConfig

EXACT, SINGLE = 1e-9, 1e-5  # float64: the order of sums; float32
MODELS = {"r18_audio": "ResNet18", "resnetaudio50": "ResNetAudio50", "tsn_r50_rgb": "resnet50"}


def recipe_weights(entries):
    """The weights that README.md gives by their position in the list of keys."""
    weights = {}
    for k, (key, shape, dtype) in enumerate(entries):
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.zeros((), dtype=torch.int64)
            continue
        assert dtype == "float32"
        i = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        h = (i * np.uint64(2654435761) + np.uint64((k + 1) * 2246822519 % 2**32)) % np.uint64(2**32)
        h ^= h >> np.uint64(15)
        h = (h * np.uint64(2246822519)) % np.uint64(2**32)
        h ^= h >> np.uint64(13)
        u = h.astype(np.float64) / 2**32 - 0.5
        if len(shape) == 4:
            u = u * np.sqrt(6 / (u.size / shape[0]))
        elif len(shape) == 2:
            u = u * np.sqrt(12 / (u.size / shape[0]))
        elif key.endswith("running_var"):
            u = 1 + u
        elif key.endswith("weight"):
            u = 1 + 0.5 * u
        else:
            u = 0.2 * u
        weights[key] = torch.from_numpy(u.astype(np.float32).reshape(shape))
    return weights


def recipe_input(n, channels, height, width):
    n, c, t, f = np.ogrid[:n, :channels, :height, :width]
    x = 0.5 + 0.5 * np.sin(0.05 * t * (1 + n) + 0.3 * c) * np.cos(0.1 * f + 0.7 * n)
    return torch.from_numpy(x.astype(np.float32))


@pytest.fixture(scope="module")
def keys(shared):
    return json.loads((shared / "parity/mmaction2/state_dict_keys.json").read_text())


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "parity/mmaction2/models.npz")


@pytest.fixture(scope="module")
def files(keys, tmp_path_factory):
    """For each model, a checkpoint as MMAction2 writes it."""
    folder = tmp_path_factory.mktemp("mmaction2")
    for name in MODELS:
        torch.save({"meta": {"epoch": 100}, "state_dict": recipe_weights(keys[name])}, folder / f"{name}.pth")
    return folder


def test_the_weights_are_the_references(keys, golden):
    assert set(keys) == set(MODELS) == {name.split("/")[0] for name in golden.files}
    for name, entries in keys.items():
        first = recipe_weights(entries[:1])[entries[0][0]].flatten()[:8].double()
        np.testing.assert_array_equal(first, golden[f"{name}/first_param_first8"])


@pytest.mark.parametrize("name", MODELS)
def test_a_network_gives_the_references_numbers(files, golden, name):
    model = load_mmaction2(files / f"{name}.pth")
    x = recipe_input(2, 1, 128, 80)
    if name == "tsn_r50_rgb":
        x = (4 * recipe_input(3, 3, 64, 64) - 2)[None]
        model.standardise.mean.zero_()  # the reference's numbers are of inputs that are standardised
        model.standardise.std.fill_(1)
    with torch.no_grad():
        single = model(x).numpy()
    np.testing.assert_allclose(single, golden[f"{name}/logits_f32"], rtol=0, atol=SINGLE)

    seen, model, x = {}, model.double(), x.double()
    stages = ["layer1", "layer2", "layer3", "layer4", "fc"]
    stages += ["stem"] if name == "resnetaudio50" else ["maxpool"] if name == "r18_audio" else ["backbone"]
    for stage in stages:
        if stage in dict(model.named_children()):
            model.get_submodule(stage).register_forward_hook(
                lambda _, inputs, out, stage=stage: seen.update({stage: out, f"into {stage}": inputs[0]})
            )
    with torch.no_grad():
        logits = model(x)
    np.testing.assert_allclose(logits, golden[f"{name}/logits"], rtol=0, atol=EXACT)
    np.testing.assert_allclose(seen["into fc"], golden[f"{name}/pooled"], rtol=0, atol=EXACT)
    if name == "tsn_r50_rgb":
        np.testing.assert_allclose(logits, golden[f"{name}/forward_test"], rtol=0, atol=SINGLE)
        return
    scores = logits.softmax(dim=1).mean(dim=0, keepdim=True)  # the two rows are two clips of one sample
    np.testing.assert_allclose(scores, golden[f"{name}/forward_test"], rtol=0, atol=1e-7)
    assert list(seen["layer4"].shape) == golden[f"{name}/feat_shape"].tolist()
    seen["stem"] = seen.get("stem", seen.get("into maxpool"))
    for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
        found = [float(seen[stage].mean()), float(seen[stage].std())]
        np.testing.assert_allclose(found, golden[f"{name}/{stage}_mean_std"], rtol=1e-9, err_msg=stage)


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_comes_back_as_it_went(files, keys, tmp_path, name):
    said = convert_checkpoint(files / f"{name}.pth", tmp_path / "ours.ckpt")
    assert f"(mmaction2, {MODELS[name]}, 400 classes)" in said
    assert load_checkpoint(tmp_path / "ours.ckpt")["epoch"] == 100
    convert_checkpoint(tmp_path / "ours.ckpt", tmp_path / "theirs.pth")
    before = torch.load(files / f"{name}.pth", weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "theirs.pth", weights_only=True)["state_dict"]
    listed = [[key, list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in after.items()]
    assert listed == keys[name]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_four_training_steps_give_the_references_numbers(files, shared):
    golden = json.loads((shared / "parity/mmaction2/train_steps_r18.json").read_text())
    settings = {"lr": 0.1, "base_batch_size": 4, "batch_size": 4, "weight_decay": 1e-4, "decay_norm_and_bias": True}
    config = validate(TrainConfig, settings, "train")
    model = load_mmaction2(files / "r18_audio.pth").double().train()
    model.dropout.p = 0.0
    optimizer = make_optimizer(model, config)
    x, labels = recipe_input(4, 1, 128, 80).double(), torch.tensor([1, 5, 5, 399])
    for step in golden["steps"]:
        logits = model(x)
        loss = functional.cross_entropy(logits, labels)
        best = logits.detach().argsort(dim=1, descending=True)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad_norm)
        optimizer.step()
        assert float(loss) == pytest.approx(step["loss"], abs=1e-6)
        assert float(norm) == pytest.approx(step["grad_norm"], rel=1e-6)
        for k in (1, 5):
            right = (best[:, :k] == labels[:, None]).any(dim=1).double().mean()
            assert float(right) == step[f"top{k}"]
    np.testing.assert_allclose(model.bn1.running_mean[:4], golden["bn1_running_mean_first4"], rtol=0, atol=1e-6)
    with torch.no_grad():
        probabilities = model.eval()(x).softmax(dim=1)[:, :5]
    np.testing.assert_allclose(probabilities, golden["final_probs_first5"], rtol=0, atol=1e-6)


def test_the_learning_rate_falls_by_epochs_as_the_references(shared):
    golden = json.loads((shared / "parity/mmaction2/train_steps_r18.json").read_text())["cosine_lr_0.1_100ep"]
    settings = {"lr": 0.1, "epochs": 100, "warmup_epochs": 0, "lr_updates": "epoch"}
    config = validate(TrainConfig, settings, "train")
    assert len(golden) == 100
    for moment in (0.0, 0.5, 0.999):
        found = [learning_rate(epoch + moment, config) for epoch in range(100)]
        np.testing.assert_allclose(found, golden, rtol=0, atol=1e-12)
