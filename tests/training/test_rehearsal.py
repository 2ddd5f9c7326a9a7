"""What can't be trained is refused before it is, and the rehearsal leaves no trace in what is trained."""

import re
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import projects
from avrecog.config import validate
from avrecog.errors import ConfigError, OutOfMemoryError
from avrecog.features.front_end import FrontEnd
from avrecog.models.onnx_export import to_onnx
from avrecog.models.registry import model_section
from avrecog.training import rehearsal, train
from avrecog.training.rehearsal import rehearse, say_missing_engines
from avrecog.training.settings import TrainConfig

CPU = torch.device("cpu")


class Broken(nn.Module):
    """Fails where it is told to."""

    def __init__(self, where="", error=None):
        super().__init__()
        self.where, self.error = where, error or RuntimeError("sizes don't match")
        self.bn, self.fc = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        if self.where == ("forward" if self.training else "test"):
            raise self.error
        x = self.fc(nn.functional.dropout(self.bn(x)))
        return x.detach() if self.where == "backward" else x[:, :2] if self.where == "classes" else x


INPUTS = [torch.linspace(0, 1, 8).reshape(2, 4)]


def rehearsed(model):
    rehearse(model, INPUTS, INPUTS, n_classes=3, device=CPU, precision="32-true", what="models.rgb: backbone odd")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("forward", "forward: sizes don't match"),
        ("backward", "backward: element 0 of tensors does not require grad"),
        ("test", "fold: sizes don't match"),
        ("classes", r"fold: expected logits \(2, 3\), got \(2, 2\)"),
    ],
)
def test_what_fails_is_refused_with_its_backbone_step_and_reason(where, said):
    with pytest.raises(ConfigError, match=rf"models.rgb: backbone odd can't be trained on inputs of 4: {said}"):
        rehearsed(Broken(where))


def test_lacking_memory_is_no_fault_of_the_backbone():
    with pytest.raises(OutOfMemoryError, match="choose a smaller model"):
        rehearsed(Broken("forward", MemoryError("no memory")))


def test_a_rehearsal_changes_neither_the_model_nor_the_random_numbers():
    model = Broken()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(3)
    rehearsed(model)
    after = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """How often an export was tried, in a project of its own; set `problem` to have it fail."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    class Tried:
        n, problem, error = 0, "", None

    def to_onnx(*_):
        Tried.n += 1
        torch.rand(1)
        if Tried.error:
            raise Tried.error
        if Tried.problem:
            raise ConfigError(Tried.problem)
        return small_onnx()

    monkeypatch.setattr(rehearsal, "to_onnx", to_onnx)
    return Tried


def small_onnx(operator="Identity", domain=""):
    """A network of one operator; of an odd one, ONNX Runtime can't load it."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("input_0", "logits")]
    node = helper.make_node(operator, ["input_0"], ["logits"], domain=domain)
    graph = helper.make_graph([node], "small", values[:1], values[1:])
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("odd", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=10)


def test_an_export_is_tried_once_for_each_section_and_a_line_names_what_will_be_missing(tried, caplog):
    tried.problem = "Odd can't be exported to ONNX: no such operator"
    for _ in range(2):
        say_missing_engines("rgb", Broken().eval(), INPUTS, {"backbone": "odd"})
    assert tried.n == 1
    line = (
        "train rgb: engines onnxruntime and onnxruntime-int8, and `avrecog export`, will be missing: Odd can't be "
        "exported to ONNX: no such operator"
    )
    assert [record.getMessage() for record in caplog.records] == [line, line]
    caplog.clear()
    tried.problem = ""
    say_missing_engines("rgb", Broken().eval(), INPUTS, {"backbone": "another"})
    say_missing_engines("rgb", Broken().eval(), INPUTS, {"backbone": "another"})
    assert tried.n == 2
    assert not caplog.records


def test_trying_an_export_draws_no_random_number(tried):
    model = Broken().eval()
    torch.manual_seed(3)
    say_missing_engines("rgb", model, INPUTS, {})
    after = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(4))


@pytest.mark.parametrize(
    "error", [MemoryError("no memory"), OutOfMemoryError("out of memory"), RuntimeError("can't allocate memory")]
)
def test_an_export_that_memory_was_lacking_for_is_tried_again(tried, caplog, error):
    tried.error = error
    say_missing_engines("rgb", Broken().eval(), INPUTS, {})
    assert "train rgb: whether ONNX Runtime can run it was not found out: out of memory" in caplog.text
    tried.error = None
    caplog.clear()
    say_missing_engines("rgb", Broken().eval(), INPUTS, {})
    assert tried.n == 2
    assert not caplog.records


def test_the_exporter_tells_a_lack_of_memory_from_a_network_that_it_cannot_follow(monkeypatch):
    def export(*_, **__):
        try:
            raise MemoryError("no memory")
        except MemoryError as error:
            raise torch.onnx.errors.OnnxExporterError("Failed to export the model") from error

    monkeypatch.setattr("torch.onnx.export", export)
    with pytest.raises(
        OutOfMemoryError, match=r"out of memory while exporting Broken to ONNX \(no memory\); free some"
    ):
        to_onnx(Broken(), INPUTS)


def test_what_can_be_exported_but_not_loaded_is_told_too(tried, monkeypatch, caplog):
    monkeypatch.setattr(rehearsal, "to_onnx", lambda *_: small_onnx("Odd", "odd"))
    say_missing_engines("rgb", Broken().eval(), INPUTS, {})
    assert re.search(r"train rgb: engines .* will be missing: ONNX Runtime can't load this network: .*Odd", caplog.text)


def trained_with(project, name, **section):
    projects.write_params(project, projects.SMALL, {"models": {name: section}})
    projects.run(project, "train", name)


def test_stage_train_refuses_a_backbone_that_cannot_take_its_inputs_and_keeps_what_was_there(project, capsys):
    before = (project / "models/rgb/best.ckpt").read_bytes()
    with pytest.raises(SystemExit):
        trained_with(project, "rgb", backbone="test_maxvit", width=None, crop_width=24)
    assert re.search(
        r"backbone test_maxvit: is made for inputs of 160 x 160, and can't take 32 x 24 \(.*\); give it that size",
        capsys.readouterr().err,
    )
    assert (project / "models/rgb/best.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("rgb", {"backbone": "test_vit3", "width": None}),
        ("audio", {"backbone": "test_vit_relpos", "depth": None, "width": None}),
    ],
)
def test_backbones_made_for_one_size_are_asked_for_ours_and_pass_through_the_stages(project, name, section):
    trained_with(project, name, **section)
    projects.run(project, "test", name)
    projects.run(project, "benchmark", name)


def test_a_network_that_cannot_be_exported_is_trained_and_timed_without_it(project, monkeypatch, caplog):
    def to_onnx(*_):
        raise ConfigError("Tsn can't be exported to ONNX: no such operator")

    monkeypatch.setattr(rehearsal, "to_onnx", to_onnx)
    monkeypatch.setattr("avrecog.inference.engines.to_onnx", to_onnx)
    timed = {"variants": ["eager", "onnxruntime"], "report": "eager"}
    projects.write_params(project, projects.SMALL, {"benchmark": timed, "models": {"rgb": {"dropout": 0.1}}})
    projects.run(project, "train", "rgb")
    projects.run(project, "benchmark", "rgb")
    assert "train rgb: engines onnxruntime and onnxruntime-int8, and `avrecog export`, will be missing" in caplog.text
    assert "benchmark rgb onnxruntime: is left out: Tsn can't be exported to ONNX" in caplog.text


def test_a_network_that_onnx_runtime_cannot_load_is_left_out_of_the_benchmark(project, monkeypatch, caplog):
    monkeypatch.setattr("avrecog.inference.engines.to_onnx", lambda *_: small_onnx("Odd", "odd"))
    timed = {"variants": ["eager", "onnxruntime", "int8"], "report": "eager"}
    projects.write_params(project, projects.SMALL, {"benchmark": timed})
    projects.run(project, "benchmark", "rgb")
    assert "benchmark rgb onnxruntime: is left out: ONNX Runtime can't load this network" in caplog.text
    assert "benchmark rgb int8: is left out: ONNX Runtime can't quantise this network" in caplog.text


def test_the_first_batch_needs_memory_as_the_others_do():
    class Clips:
        def __len__(self):
            return 5

        def draw(self, *_):
            return None

        def training_batch(self, *_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has")

    config = validate(model_section(), {"architecture": "audio", "depth": 10, "width": 8}, "m")
    task = train.TrainingTask("audio", config, TrainConfig(), FrontEnd(None, None), Path(), Path())
    with pytest.raises(OutOfMemoryError, match=r"out of GPU memory .*; choose a smaller model or smaller inputs"):
        train._rehearse(task, Broken(), Clips(), INPUTS, 3)


def test_one_clip_to_train_on_is_told_from_a_backbone_that_does_not_suit(project, capsys):
    splits = project / "data/splits.csv"
    first, *lines = splits.read_text().splitlines()
    kept = next(line for line in lines if line.endswith("train"))
    lines = [line if line == kept else line.removesuffix("train") + "val" * line.endswith("train") for line in lines]
    splits.write_text("\n".join([first, *lines, ""]))
    with pytest.raises(SystemExit):
        trained_with(project, "rgb", backbone="skresnet18", width=None, n_segments=1)
    assert "there is one clip to train on: add some" in capsys.readouterr().err


def test_the_networks_of_our_own_need_no_trial_of_their_export():
    own = {"architecture": "audio", "depth": 10, "width": 8}
    assert validate(model_section(), own, "m").exports
    timms = {**own, "backbone": "resnet10t", "depth": None, "width": None}
    assert not validate(model_section(), timms, "m").exports
