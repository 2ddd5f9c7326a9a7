import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from avrecog.errors import CheckpointError
from avrecog.models.audio_resnet import AudioResNet
from avrecog.models.checkpoint import load_checkpoint, load_weights, save_checkpoint, single_precision, transfer_weights


def content(**changes):
    return {
        "model": "audio",
        "config": {},
        "classes": ["a", "b"],
        "front_end": {},
        "typical_rows": 10,
        "weights": {"w": torch.arange(4.0)},
        "epoch": 1,
        "metrics": {"val_top1": 0.5},
        **changes,
    }


def test_a_checkpoint_survives_saving_and_loading(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", content())
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert loaded["classes"] == ["a", "b"]
    torch.testing.assert_close(loaded["weights"]["w"], torch.arange(4.0))


def test_equal_contents_give_equal_bytes_whatever_the_name(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", content())
    save_checkpoint(tmp_path / "another name.ckpt", content())
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "another name.ckpt").read_bytes()


def test_weights_that_repeat_one_number_to_seem_large_are_refused(tmp_path):
    weights = {"fc.weight": torch.zeros(1).expand(10**6, 10**6)}
    with (tmp_path / "a.ckpt").open("wb") as file:
        torch.save({"format": "avrecog checkpoint 1", **content(weights=weights)}, file)
    with pytest.raises(CheckpointError, match="its weights are larger than the file"):
        load_checkpoint(tmp_path / "a.ckpt")


class RunsCode:
    def __reduce__(self):
        return (print, ("code in a checkpoint ran",))


def test_a_checkpoint_with_code_is_refused_and_the_code_not_run(tmp_path, capsys):
    torch.save(content(evil=RunsCode()), tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"evil\.ckpt: holds more than tensors and plain values"):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert "ran" not in capsys.readouterr().out


def test_a_bare_pickle_is_refused_and_its_code_not_run(tmp_path, capsys):
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(CheckpointError, match="not a zip file"):
        load_checkpoint(tmp_path / "bare.ckpt")
    assert "ran" not in capsys.readouterr().out


def test_a_truncated_checkpoint_is_damaged(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", content())
    whole = (tmp_path / "a.ckpt").read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 5):
        (tmp_path / "a.ckpt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is damaged or no checkpoint"):
            load_checkpoint(tmp_path / "a.ckpt")


def test_a_missing_checkpoint_says_what_to_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such checkpoint; run `dvc repro train`"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_zip_of_something_else_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.ckpt", "w") as file:
        file.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match="is damaged or no checkpoint"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_checkpoint_of_another_program_is_not_ours(tmp_path):
    torch.save({"state_dict": OrderedDict()}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint of avrecog's"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_weights_of_another_model_are_refused_with_examples():
    weights = AudioResNet(18, 3, width=8).state_dict()
    with pytest.raises(CheckpointError, match="is of another model: .* differences, e.g. "):
        load_weights(AudioResNet(10, 3, width=8), weights, "a.ckpt")


def test_fine_tuning_takes_all_but_the_classifier_of_other_classes():
    old, new = AudioResNet(10, 3, width=8), AudioResNet(10, 7, width=8)
    classifier = new.fc.weight.clone()
    assert transfer_weights(new, old.state_dict(), "a.ckpt") == ["fc.weight", "fc.bias"]
    torch.testing.assert_close(new.conv1.weight, old.conv1.weight)
    torch.testing.assert_close(new.fc.weight, classifier)


def test_fine_tuning_from_a_stranger_is_refused():
    with pytest.raises(CheckpointError, match=r"only \d+ of the model's \d+ tensors are in it"):
        transfer_weights(AudioResNet(10, 3, width=8), AudioResNet(10, 3, width=16).state_dict(), "a.ckpt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_precision_are_cast_and_a_line_says_so(tmp_path, caplog, dtype):
    caplog.set_level("INFO")
    weights = AudioResNet(10, n_classes=2, width=8).state_dict()
    other = {key: value.to(dtype) for key, value in weights.items()}  # the counters of batch norms too
    save_checkpoint(tmp_path / "a.ckpt", content(weights=other))
    loaded = load_checkpoint(tmp_path / "a.ckpt")["weights"]
    load_weights(AudioResNet(10, n_classes=2, width=8), loaded, "a.ckpt")
    assert all(torch.equal(loaded[key], other[key].to(weights[key].dtype)) for key in weights)
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"a.ckpt: {len(weights)} of {str(dtype).removeprefix('torch.')} of its {len(weights)} tensors" in said


def test_weights_of_float32_are_not_touched_and_whole_numbers_stay(tmp_path, caplog):
    caplog.set_level("INFO")
    weights = {
        "w": torch.arange(4.0),
        "bn.num_batches_tracked": torch.tensor(3),
        "bytes": torch.ones(2, dtype=torch.int8),
    }
    found = single_precision(weights, tmp_path)
    assert all(found[key] is weights[key] for key in weights)
    assert not caplog.records


def test_weights_of_whole_numbers_are_not_taken_for_fractions():
    model = AudioResNet(10, n_classes=2, width=8)
    weights = {**model.state_dict(), "fc.weight": torch.ones(model.fc.weight.shape, dtype=torch.int8)}
    assert transfer_weights(model, weights, "a.ckpt") == ["fc.weight"]
