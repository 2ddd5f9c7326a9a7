"""dvc.yaml says what the code does: a forgotten dependency is a stale result that nobody sees."""

import ast
import re
import shlex
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

import projects
from avrecog.commands.recipe import apply_recipe
from avrecog.inference import export_cache

NAME = r"\${DVC_STAGE#*@}"  # a model's, in a command

SRC = projects.ROOT / "src"
STAGES = YAML(typ="safe").load((projects.ROOT / "dvc.yaml").read_text())["stages"]

WITHOUT_LABELS = YAML(typ="safe").load((projects.ROOT / "selfsupervised/dvc.yaml").read_text())["stages"]

ASKED_FOR = ["pretrain@sync", "probe@sync", "test@sync"]


def has_code(path: Path) -> bool:
    """Whether a file holds more than a docstring."""
    return len(ast.parse(path.read_text()).body) > 1


def imported_modules(path: Path) -> set[Path]:
    """The files of avrecog that a file imports anywhere in it, with the packages above them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] != "avrecog":
                continue
            file = SRC / Path(*name.split("."))
            for candidate in (file.with_suffix(".py"), file / "__init__.py"):
                if candidate.exists() and has_code(candidate):
                    found.add(candidate)
    return found


def reached(path: Path) -> set[Path]:
    """All files of avrecog that running a script may load."""
    seen, waiting = set(), {path}
    while waiting:
        file = waiting.pop()
        for module in imported_modules(file) - seen:
            seen.add(module)
            waiting.add(module)
        for package in file.parents:
            init = package / "__init__.py"
            if SRC in package.parents and init.exists() and has_code(init) and init not in seen:
                seen.add(init)
                waiting.add(init)
    return seen


def loaded_sections(path: Path) -> set[str]:
    """The parts of params.yaml that a stage's load_params names, with f-strings as dvc.yaml writes them."""
    sections = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "load_params"):
            continue
        for keyword in node.keywords:
            value = keyword.value
            if isinstance(value, ast.Call) and value.func.id == "At":
                sections.add(ast.unparse(value.args[0]).strip("f'\"").replace("{args.model}", "${item.model}"))
            else:
                sections.add(keyword.arg)
    return sections


def outputs(entry: dict) -> list[str]:
    """The paths that a stage of a dvc.yaml says it writes."""
    outs = [out for kind in ("outs", "metrics", "plots") for out in entry.get(kind, [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in outs]


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_name_every_source_file_it_reaches(stage):
    script = projects.ROOT / "stages" / f"{stage}.py"
    deps = [projects.ROOT / dep for dep in STAGES[stage]["deps"] if dep.startswith(("src", "stages"))]
    needed = {script, *reached(script)}
    missing = [file for file in needed if not any(file == dep or dep in file.parents for dep in deps)]
    assert not missing, sorted(str(file.relative_to(projects.ROOT)) for file in missing)
    unneeded = [dep for dep in deps if not any(file == dep or dep in file.parents for file in needed)]
    assert not unneeded


def test_only_fuse_and_report_depend_on_how_models_are_fused_and_neither_on_a_network():
    def depends(stage: str, *rooms: str) -> bool:
        return any(dep.startswith(tuple(f"src/avrecog/{room}" for room in rooms)) for dep in STAGES[stage]["deps"])

    assert {stage for stage in STAGES if depends(stage, "fusion")} == {"fuse", "report"}
    assert not any(depends(stage, "models", "datasets", "training") for stage in ("fuse", "report"))


def test_a_kept_export_hangs_on_every_source_file_that_makes_it(tmp_path, monkeypatch):
    package = SRC / "avrecog"
    engines = package / "inference/engines.py"
    files = sorted({engines, package / "commands/predict.py", *reached(engines)})
    paths = {export_cache._path(("onnx",), "onnx")}
    for number, file in enumerate(files):
        changed = Path(shutil.copytree(package, tmp_path / str(number), ignore=shutil.ignore_patterns("__pycache__")))
        with (changed / file.relative_to(package)).open("a") as text:
            text.write("# changed\n")
        monkeypatch.setattr(export_cache, "SOURCE", changed)
        paths.add(export_cache._path(("onnx",), "onnx"))
        shutil.rmtree(changed)
    assert len(paths) == 1 + len(files)


@pytest.mark.parametrize("stage", STAGES)
def test_the_params_of_a_stage_are_the_sections_it_loads(stage):
    assert set(STAGES[stage]["params"]) == loaded_sections(projects.ROOT / "stages" / f"{stage}.py")


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_of_a_stage_is_what_the_tests_run(stage):
    command = shlex.split(STAGES[stage]["cmd"].replace(NAME, "{model}"))
    assert command == ["PYTHONPATH=src", "python", f"stages/{stage}.py", *projects.ARGUMENTS[stage]]


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_of_a_command_is_a_dep_or_an_output(stage):
    entry = STAGES[stage]
    listed = [*entry["deps"], *outputs(entry)]
    arguments = shlex.split(entry["cmd"].replace(NAME, "${item.model}"))
    for path in [argument for argument in arguments if argument.startswith(("data", "models", "results"))]:
        assert any(item.startswith(path) or path.startswith(item) for item in listed), path


@pytest.mark.parametrize("entry", [*STAGES.values(), *WITHOUT_LABELS.values()])
def test_nothing_of_params_yaml_stands_in_a_command(entry):
    """dvc would put it there unquoted: a name like `audio; rm -rf .` would run."""
    command = entry["cmd"]
    assert not re.search(r"(?<!\\)\$\{", command)
    for found in re.finditer(re.escape(NAME), command):
        assert command[: found.start()].count('"') % 2, "not within quotes"


@pytest.mark.parametrize("script", sorted((projects.ROOT / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_a_stage_script_has_no_arithmetic_loop_or_branch(script):
    tree = ast.parse(script.read_text())
    guard = tree.body[-1]
    assert ast.unparse(guard.test) == "__name__ == '__main__'"
    tree.body.pop()
    forbidden = (
        *(ast.For, ast.While, ast.If, ast.IfExp, ast.Match, ast.Try, ast.Compare, ast.BoolOp, ast.AugAssign),
        *(ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.Lambda, ast.UnaryOp),
    )
    for node in ast.walk(tree):
        assert not isinstance(node, forbidden), f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.BinOp):  # `AudioConfig | None` is a type
            assert isinstance(node.op, ast.BitOr), f"line {node.lineno}: {ast.unparse(node)}"
            assert ast.unparse(node.right) == "None", f"line {node.lineno}: {ast.unparse(node)}"


def test_there_is_one_script_for_each_stage():
    assert {path.stem for path in (projects.ROOT / "stages").glob("*.py")} == {*STAGES, "probe"}


@pytest.mark.parametrize("stage", WITHOUT_LABELS)
def test_the_stages_without_labels_name_what_they_read_and_write(stage):
    entry = WITHOUT_LABELS[stage]
    words = shlex.split(entry["cmd"].replace(NAME, "${item.model}"))
    assert words[:2] == ["PYTHONPATH=src", "python"]
    listed = [*entry["deps"], *outputs(entry)]
    for path in [word for word in words[2:] if word.startswith(("data", "stages", "selfsupervised"))]:
        assert any(item.startswith(path) or path.startswith(item) for item in listed), path
    (params,) = entry["params"]
    assert set(params["params.yaml"]) == loaded_sections(projects.ROOT / words[2])
    assert {"stages", "src/avrecog"} <= set(entry["deps"])


@pytest.fixture
def index_of(tmp_path):
    """What dvc finds in a project after `avrecog recipe NAME`: a function of the name."""

    def index(recipe):
        for name in ("recipes", "selfsupervised"):
            shutil.copytree(projects.ROOT / name, tmp_path / name)
        shutil.copy(projects.ROOT / "dvc.yaml", tmp_path)
        (tmp_path / "clips.csv").touch()
        with projects.inside(tmp_path):
            apply_recipe(recipe, Path("clips.csv"))
            return Repo.init(tmp_path, no_scm=True).index

    return index


@pytest.mark.parametrize(("recipe", "stages"), [("default", []), ("demo_sync", ASKED_FOR), ("esc10", [])])
def test_dvc_knows_of_learning_without_labels_only_where_it_is_asked_for(index_of, recipe, stages):
    """It looks after the outputs of every dvc.yaml of the project, and misses those of stages that nobody ran."""
    found = index_of(recipe).stages
    assert sorted(stage.name for stage in found if "selfsupervised" in stage.path_in_repo) == stages


@pytest.mark.parametrize("recipe", ["default", "esc10", "demo_sync"])
def test_what_dvc_draws_is_an_output_whatever_the_models_are_called(tmp_path, index_of, recipe):
    index = index_of(recipe)
    outs = {str(out) for out in index.outs}
    plots = [plot for plots in index._plots.values() for plot in plots]
    drawn = [plot if isinstance(plot, str) else next(iter(plot)) for plot in plots]
    assert drawn
    assert {*drawn} <= outs
    assert {"results/curves", "results/plots/fuse"} <= {*drawn}
