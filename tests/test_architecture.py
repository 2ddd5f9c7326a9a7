"""The house keeps its rules: rooms, one file for an architecture, registries that take what stands elsewhere."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import Tensor, nn

import projects
from avrecog import cli
from avrecog.annotations import sources
from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.base import Source
from avrecog.annotations.settings import DataConfig
from avrecog.config import section
from avrecog.errors import ConfigError
from avrecog.inputs import LogMelInput, ModelInput
from avrecog.models import registry
from avrecog.models.base import ModelConfig
from avrecog.models.input_norm import InputNorm
from clips import make_tone

PACKAGE = projects.ROOT / "src/avrecog"

NOT_NAMES = {"audio"}  # a modality too, and a section of params.yaml


def branches(code: str) -> list[int]:
    """Lines that branch on an architecture: by the class of a section, or by a name."""
    sections = {config.__name__ for config in registry.MODELS.values()}
    names = set(registry.MODELS) - NOT_NAMES
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            asked = {getattr(each, "id", getattr(each, "attr", "")) for each in ast.walk(node.args[1])}
            if asked & sections:
                found.append(node.lineno)
        elif isinstance(node, ast.MatchClass) and getattr(node.cls, "id", getattr(node.cls, "attr", "")) in sections:
            found.append(node.lineno)
        elif isinstance(node, ast.Compare | ast.MatchValue):
            texts = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
            attributes = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
            keys = {
                each.slice.value
                for each in ast.walk(node)
                if isinstance(each, ast.Subscript) and isinstance(each.slice, ast.Constant)
            }
            if texts & names or ("architecture" in attributes | keys and texts & set(registry.MODELS)):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "code",
    [
        "if isinstance(config, TsnConfig): pass",
        "if isinstance(config, SlowFastConfig | settings.AVSyncConfig): pass",
        "if config.architecture == 'audio': pass",
        "if section['architecture'] in ('audio', 'avslowfast'): pass",
        "if name == 'slowfast': pass",
        "match config:\n    case AudioModelConfig(): pass",
        "match name:\n    case 'avsync': pass",
    ],
)
def test_a_branch_on_an_architecture_is_seen(code):
    assert branches(code)


def test_only_models_branches_on_an_architecture():
    found = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] != "models"
        for line in branches(path.read_text(encoding="utf-8"))
    }
    # the front ends of MMAction2 and SlowFast have names of their own, as has the program a checkpoint comes from
    assert {name.split(":")[0] for name in found} <= {"interop/checkpoints.py", "interop/mmaction2_checkpoints.py"}


def test_the_rooms_import_downwards_only():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=projects.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


class ToyNetwork(nn.Module):
    """The mean of the crop over time, and a linear classifier."""

    def __init__(self, n_mels: int, n_classes: int) -> None:
        super().__init__()
        self.standardise = InputNorm([0.0], [1.0])
        self.norm = nn.BatchNorm1d(n_mels)
        self.fc = nn.Linear(n_mels, n_classes)

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.fc(self.norm(self.standardise(log_mel).mean(dim=(1, 2))))


@section
class ToyConfig(ModelConfig):
    """An architecture in one class."""

    architecture: Literal["toy"] = "toy"
    mel_frames: int = 48
    init_from: str | None = None
    train: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", self.train or {})

    def input(self) -> ModelInput:
        return LogMelInput(mel_frames=self.mel_frames)

    def build(self, n_classes: int, pretrained: bool = False, n_mels: int | None = None) -> nn.Module:
        assert n_mels is not None
        return ToyNetwork(n_mels, n_classes)

    def describe(self) -> str:
        return "Toy"


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
    return registry.register(ToyConfig)


def test_a_new_architecture_goes_through_every_stage_without_another_change(toy, project, capsys, monkeypatch):
    change = {"models": {"toy": {"architecture": "toy"}}, "pipeline": {"models": ["toy", "rgb"]}}
    projects.write_params(project, projects.SMALL, change)
    for stage in ("train", "test", "benchmark"):
        projects.run(project, stage, "toy")
    projects.run(project, "fuse")
    projects.run(project, "report")
    assert re.search(r"\| toy \| \d+ \| 0 \| Toy \| none \|", (project / "results/ZOO.md").read_text())
    assert json.loads((project / "results/metrics/fuse.json").read_text())["n_clips"] == 12
    clip = next((project / "clips/high").iterdir())
    with projects.inside(project):
        for engine in ("torch", "onnxruntime"):
            arguments = ["--engine", engine, "--checkpoint", "models/toy/best.ckpt"]
            monkeypatch.setattr(sys, "argv", ["avrecog", "predict", str(clip), *arguments])
            cli.main()
        said = capsys.readouterr().out
        assert said.count(f"{clip} (toy)") == 2
        monkeypatch.setattr(sys, "argv", ["avrecog", "export", "models/toy/best.ckpt", "toy.onnx"])
        cli.main()
        assert "waveform (clips, samples)" in capsys.readouterr().out


def test_a_name_is_registered_once(toy):
    class Another(ToyConfig):
        pass

    assert registry.register(toy) is toy
    with pytest.raises(ConfigError, match="architecture toy: there is one of this name"):
        registry.register(Another)


class ToySource(Source):
    """Tones that a file lists: `name class`."""

    def read(self, data: DataConfig, out: Path) -> list[AnnotatedClip]:
        lines = Path(data.annotation).read_text().splitlines()
        return [
            AnnotatedClip(path=line.split()[0], label=line.split()[1], where=f"{data.annotation}, line {number}")
            for number, line in enumerate(lines, start=1)
        ]


def test_a_new_source_is_prepared_without_another_change(tmp_path, tracking_template, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "toy", ToySource())
    shutil.copytree(tracking_template, tmp_path / "mlruns")
    names = []
    for number in range(12):
        path = tmp_path / f"{number}.wav"
        make_tone(path, 300.0 + 50 * number)
        names.append(f"{path} {'low' if number < 6 else 'high'}")
    (tmp_path / "tones.txt").write_text("\n".join(names))
    projects.write_params(
        tmp_path, projects.SMALL, {"data": {"source": "toy", "annotation": "tones.txt"}, "video": None}
    )
    projects.run(tmp_path, "prepare")
    report = json.loads((tmp_path / "data/report.json").read_text())
    assert report["n_clips"] == 12
    assert (tmp_path / "data/labels.txt").read_text().split() == ["high", "low"]


def test_a_section_of_an_unknown_architecture_names_those_there_are(project):
    projects.write_params(project, projects.SMALL, {"models": {"audio": {"architecture": "nobody"}}})
    with projects.inside(project), pytest.raises(SystemExit):
        projects.run(project, "train", "audio")


def test_no_function_is_long_and_none_takes_many_arguments_by_position():
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
                n = len([each for each in arguments if each not in ("self", "cls")])
                lines = node.end_lineno - node.lineno + 1
                if n > 5 or lines > 60:
                    found.append(f"{path.relative_to(PACKAGE)}: {node.name}: {lines} lines, {n} arguments by position")
    assert not found


def test_no_file_is_long_but_one_that_is_a_network():
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 400
    }
    assert found <= {"models/avslowfast.py"}


def test_no_module_stands_at_the_root_that_has_a_room():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {
        *("__init__", "cli", "config", "errors", "inputs", "manifest", "metrics", "pipeline", "plots")
    }
