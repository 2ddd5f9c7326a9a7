import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch

from avrecog.commands.convert import convert_checkpoint
from avrecog.commands.predict import predict_files
from avrecog.errors import CheckpointError, ManifestError
from avrecog.features.settings import FRONT_ENDS
from avrecog.inference.trained_model import load_model
from avrecog.interop.checkpoints import load_mmaction2, read_external_checkpoint
from avrecog.models.audio_resnet import AudioResNet
from avrecog.models.checkpoint import load_checkpoint
from avrecog.models.resnet_audio import ResNetAudio
from checkpoint import small_checkpoint
from clips import make_tone


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A small audio ResNet under MMAction2's names, as this module writes it (the parity tests compare the names)."""
    folder = tmp_path_factory.mktemp("theirs")
    convert_checkpoint(small_checkpoint(folder, depth=18, width=4), folder / "theirs.pth")
    return folder / "theirs.pth"


def content_of(path):
    return torch.load(path, weights_only=True)


NETWORKS = {
    "ResNet18 (width 4)": {"depth": 18, "width": 4},
    "ResNet34 (width 4)": {"depth": 34, "width": 4},
    "ResNet50 (width 4)": {"depth": 50, "width": 4},
    "ResNet101 (width 2)": {"depth": 101, "width": 2},
    "ResNetAudio50 (width 4)": {"backbone": "resnetaudio", "depth": 50, "width": 4},
    "ResNetAudio101 (width 2)": {"backbone": "resnetaudio", "depth": 101, "width": 2},
    "ResNetAudio152 (width 2)": {"backbone": "resnetaudio", "depth": 152, "width": 2},
    "resnet18": {"architecture": "tsn", "backbone": "resnet18"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_recognised_from_its_tensors_whatever_the_number_of_classes(tmp_path, name):
    source = small_checkpoint(tmp_path, n_classes=5, **NETWORKS[name])
    convert_checkpoint(source, tmp_path / "theirs.pth")
    convert_checkpoint(tmp_path / "theirs.pth", tmp_path / "back.ckpt")
    before, after = load_checkpoint(source), load_checkpoint(tmp_path / "back.ckpt")
    model = load_model(tmp_path / "back.ckpt", "rgb" if name == "resnet18" else "audio")
    assert model.config.describe() == name
    assert (after["classes"], after["epoch"]) == (before["classes"], 7)
    assert before["weights"].keys() == after["weights"].keys()
    assert all(torch.equal(before["weights"][key], after["weights"][key]) for key in before["weights"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_theirs_of_another_precision_are_cast_and_a_line_says_so(theirs, tmp_path, caplog, dtype):
    caplog.set_level("INFO")
    content = content_of(theirs)
    content["state_dict"] = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in content["state_dict"].items()
    }
    torch.save(content, tmp_path / "other.pth")
    said = convert_checkpoint(tmp_path / "other.pth", tmp_path / "ours.ckpt")
    assert "other.pth: " in caplog.text
    assert f"of {str(dtype).removeprefix('torch.')} of its" in caplog.text
    assert "not used" not in said
    expected, found = load_mmaction2(theirs).state_dict(), load_model(tmp_path / "ours.ckpt").network.state_dict()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=0.01, atol=1e-3)
        assert found[key].dtype == expected[key].dtype


def test_the_names_are_mmaction2s(theirs):
    state = content_of(theirs)["state_dict"]
    assert list(state)[:3] == ["backbone.conv1.conv.weight", "backbone.conv1.bn.weight", "backbone.conv1.bn.bias"]
    assert {"backbone.layer2.0.downsample.conv.weight", "backbone.layer2.0.downsample.bn.running_var"} <= set(state)
    assert list(state)[-2:] == ["cls_head.fc_cls.weight", "cls_head.fc_cls.bias"]
    assert len(state) == 122


def test_a_network_is_loaded_in_evaluation_mode(theirs):
    model = load_mmaction2(str(theirs))
    assert isinstance(model, AudioResNet)
    assert not any(part.training for part in model.modules())
    assert model(torch.rand(2, 1, 64, 32)).shape == (2, 3)


def test_names_of_classes_come_from_the_labels_the_file_or_their_numbers(theirs, tmp_path):
    content = content_of(theirs)
    (tmp_path / "labels.txt").write_text("air drumming\nbowling\ncrying\n")

    def converted(meta, labels=None):
        torch.save({**content, "meta": meta}, tmp_path / "in.pth")
        said = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.ckpt", labels=labels)
        return load_checkpoint(tmp_path / "out.ckpt")["classes"], "--labels FILE" in said

    assert converted({}) == (["0", "1", "2"], True)
    assert converted({"CLASSES": ("a", "b", "c")}) == (["a", "b", "c"], False)
    assert converted({"dataset_meta": {"classes": ["a", "b", "c"]}}) == (["a", "b", "c"], False)
    assert converted({"CLASSES": ("a", "b")}) == (["0", "1", "2"], True)
    assert converted({"CLASSES": ("a", "b", "c")}, tmp_path / "labels.txt") == (
        ["air drumming", "bowling", "crying"],
        False,
    )
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    with pytest.raises(CheckpointError, match=r"labels\.txt: expected 3 class names, one a class, got 2"):
        converted({}, tmp_path / "labels.txt")
    with pytest.raises(ManifestError, match="can't be read"):
        converted({}, tmp_path / "none.txt")


def test_what_is_not_used_is_listed(theirs, tmp_path):
    content = content_of(theirs)
    content["optimizer"] = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    content["state_dict"]["data_preprocessor.mean"] = torch.zeros(1)
    torch.save(content, tmp_path / "in.pth")
    said = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.ckpt")
    assert "not used: optimizer, data_preprocessor.mean" in said
    assert "(mmaction2, ResNet18 (width 4), 3 classes)" in said


def test_a_file_of_torch_before_1_6_is_read(theirs, tmp_path):
    torch.save(content_of(theirs), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert (tmp_path / "old.pth").read_bytes()[:2] != b"PK"
    old, new = load_mmaction2(tmp_path / "old.pth").state_dict(), load_mmaction2(theirs).state_dict()
    assert all(torch.equal(old[key], new[key]) for key in new)


def test_the_histories_that_mmengine_keeps_in_a_checkpoint_are_passed_over(theirs, tmp_path, monkeypatch):
    """Class HistoryBuffer is pickled with NumPy's arrays and its methods, by getattr."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self):
            self.values, self.count = np.arange(3.0), np.arange(3)
            self.methods = {"mean": HistoryBuffer.mean}

        def mean(self):
            raise AssertionError

        def __setstate__(self, state):
            raise AssertionError("code of the file ran")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = module.__name__, "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    with monkeypatch.context() as patched:
        for name in ("mmengine", "mmengine.logging"):
            patched.setitem(sys.modules, name, types.ModuleType(name))
        patched.setitem(sys.modules, module.__name__, module)
        hub = {"log_scalars": OrderedDict(loss=HistoryBuffer()), "runtime_info": {"lr": np.float64(0.1)}}
        for zipped in (True, False):
            content = {**content_of(theirs), "message_hub": hub}
            torch.save(content, tmp_path / f"{zipped}.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.setitem(sys.modules, "mmengine", None)  # an import of it fails
    for zipped in (True, False):
        assert read_external_checkpoint(tmp_path / f"{zipped}.pth").unused == ["message_hub"]


class RunsCode:
    def __reduce__(self):
        return (print, ("code in a checkpoint ran",))


@pytest.mark.parametrize("zipped", [True, False])
def test_anything_else_in_a_file_is_refused_by_its_name(theirs, tmp_path, capsys, zipped):
    content = {**content_of(theirs), "evil": RunsCode()}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds more than tensors and plain values \(print\)"):
        load_mmaction2(tmp_path / "evil.pth")
    assert "ran" not in capsys.readouterr().out


def without(key):
    return lambda state: state.pop(key)


def replaced(key, value):
    return lambda state: state.update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("backbone.conv1.conv.weight"),
            "knows; expected one of backbone.conv1.conv.conv_1",
        ),
        (without("cls_head.fc_cls.weight"), "expected cls_head.fc_cls.weight, of 2 axes"),
        (
            without("backbone.layer3.1.conv2.bn.bias"),
            r"was taken for ResNet18 \(width 4\), and 1 of its .*e.g. backbone.layer3.1.conv2.bn.bias is missing",
        ),
        (replaced("backbone.odd", torch.zeros(2)), "1 of its tensors don't fit, e.g. backbone.odd is left over"),
        (
            replaced("backbone.layer1.0.conv1.conv.weight", torch.zeros(4, 4, 5, 5)),
            r"layer1.0.conv1.conv.weight has shape \(4, 4, 5, 5\), expected \(4, 4, 3, 3\)",
        ),
        (
            replaced("backbone.conv1.conv.weight", torch.zeros(4, 2, 7, 7)),
            "2 input channels, stages of 2, 2, 2, 2 basic blocks",
        ),
        (
            replaced("backbone.layer1.2.conv1.conv.weight", torch.zeros(4, 4, 3, 3)),
            "1 input channels, stages of 3, 2, 2, 2 basic blocks",
        ),
        (replaced("backbone.conv1.bn.weight", torch.zeros(4).int()), "holds torch.int32, expected torch.float32"),
        (replaced("backbone.odd", torch.zeros(1).expand(10**6, 10**6)), "its tensors are larger than the file"),
        (replaced("backbone.odd", 3), "expected a mapping of names to tensors"),
        (replaced("cls_head.fc_cls.bias", torch.ones(3).to_sparse()), "expected a mapping of names to tensors"),
        (replaced("cls_head.fc_cls.bias", torch.ones(3, device="meta")), "expected a mapping of names to tensors"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_names(theirs, tmp_path, change, message):
    content = content_of(theirs)
    change(content["state_dict"])
    torch.save(content, tmp_path / "in.pth")
    with pytest.raises(CheckpointError, match=f"in.pth: .*{message}"):
        convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.ckpt")
    assert not (tmp_path / "out.ckpt").exists()


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(CheckpointError, match=r"a\.pth: no such checkpoint"):
        load_mmaction2(path)
    for content in (b"", b"not a checkpoint", b"PK\x03\x04 cut off", bytes(200)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a\.pth: "):
            load_mmaction2(path)
    torch.save([torch.zeros(2)], path)
    with pytest.raises(CheckpointError, match="expected a mapping of tensors, got list"):
        load_mmaction2(path)


def test_a_resnet_under_torchvisions_names_is_taken(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet18(num_classes=4).eval()
    state = network.state_dict()
    torch.save(OrderedDict(state), tmp_path / "resnet18.pth")
    model = load_mmaction2(tmp_path / "resnet18.pth")
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x[:, None]), network(model.standardise(x)))
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "before_0_4_1.pth")
    said = convert_checkpoint(tmp_path / "before_0_4_1.pth", tmp_path / "out.ckpt")
    assert "(torchvision, resnet18, 4 classes)" in said
    assert load_model(tmp_path / "out.ckpt", "rgb").classes == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "config",
    [{"depth": 10, "width": 4}, {"backbone": "cnn10", "depth": None, "width": 4}, {"architecture": "tsn", "width": 8}],
)
def test_a_network_that_mmaction2_lacks_is_not_written(tmp_path, config):
    with pytest.raises(CheckpointError, match="MMAction2 has no network like"):
        convert_checkpoint(small_checkpoint(tmp_path, **config), tmp_path / "theirs.pth")
    assert not (tmp_path / "theirs.pth").exists()


def test_a_standardisation_of_our_own_is_told_on_the_way_back(tmp_path):
    weights = {"standardise.mean": torch.full((1, 1, 1), 0.25), "standardise.std": torch.full((1, 1, 1), 0.5)}
    said = convert_checkpoint(small_checkpoint(tmp_path, depth=18, width=4, weights=weights), tmp_path / "theirs.pth")
    assert "it must be given (x - 0.25) / 0.5 in place of features x" in said
    x = torch.rand(1, 1, 64, 32)
    with torch.no_grad():
        expected = load_model(tmp_path / "ours.ckpt").network(x)
        torch.testing.assert_close(load_mmaction2(tmp_path / "theirs.pth")((x - 0.25) / 0.5), expected)


def test_the_source_is_not_overwritten(theirs):
    with pytest.raises(CheckpointError, match="is the source"):
        convert_checkpoint(theirs, theirs)


def test_a_converted_checkpoint_predicts_a_file(theirs, tmp_path):
    make_tone(tmp_path / "a.wav")
    convert_checkpoint(theirs, tmp_path / "ours.ckpt", sampling="mmaction2-1.x")
    model = load_model(tmp_path / "ours.ckpt", "audio")
    assert model.config.sampling == "mmaction2-1.x"
    assert model.front_end.audio.logmel == FRONT_ENDS["mmaction2"]
    (text,) = predict_files([tmp_path / "a.wav"], [tmp_path / "ours.ckpt"], None, 3)
    assert "class 1" in text


def test_resnetaudio_keeps_its_plain_blocks_apart(tmp_path):
    convert_checkpoint(small_checkpoint(tmp_path, backbone="resnetaudio", depth=50, width=2), tmp_path / "theirs.pth")
    state = content_of(tmp_path / "theirs.pth")["state_dict"]
    assert "backbone.layer1.0.conv2.conv.conv_1.bn.weight" in state
    assert "backbone.layer3.0.conv2.conv.weight" in state
    assert not any(key.startswith("backbone.layer3.0.conv2.bn") for key in state)
    assert isinstance(load_mmaction2(tmp_path / "theirs.pth"), ResNetAudio)
