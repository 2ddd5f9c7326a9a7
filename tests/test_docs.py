"""What the documents say exists: tests, commands and their options, files and the names in them, links, rooms."""

import argparse
import ast
import re
import subprocess
import tomllib

import pytest

import projects
from avrecog.cli import _parser

FRONT = ["README.md", "CONTRIBUTING.md"]  # `mkdocs build --strict` knows nothing of them
PAGES = [*FRONT, *sorted(str(path.relative_to(projects.ROOT)) for path in (projects.ROOT / "docs").rglob("*.md"))]
PACKAGE = projects.ROOT / "src/avrecog"


def read(page):
    return (projects.ROOT / page).read_text(encoding="utf-8")


def without_code(text):
    """The text without what stands in fences."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Of its headings, as Markdown's renderers make them."""
    headings = re.findall(r"^#+ (.+)$", without_code(read(page)), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def first_cells(text):
    """The code in the first cell of each row of the tables in a text."""
    return {name for cell in re.findall(r"^\| ([^|]+) \|", text, flags=re.MULTILINE) for name in code_in(cell)}


def code_in(text):
    return re.findall(r"`([^`]+)`", text)


def section(page, heading):
    """What stands below a heading, up to the next of its level."""
    return re.split(r"^## ", read(page).partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]


def test_every_test_that_a_page_names_exists():
    tests = {
        node.name
        for path in (projects.ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    for page in PAGES:
        named = set(re.findall(r"`(test_[a-z0-9_]+)`", read(page)))
        assert named <= tests, f"{page}: {sorted(named - tests)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one_of_ours_with_options_it_has(page):
    (commands,) = (action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, rest in re.findall(r"(?:^|`)avrecog ([a-z]+)([^`\n]*)", read(page), flags=re.MULTILINE):
        assert name in commands, f"{page}: avrecog {name}"
        known = {option for action in commands[name]._actions for option in action.option_strings}
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.split("#")[0]))
        assert used <= known, f"{page}: avrecog {name} {sorted(used - known)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_of_a_page_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", read(page), flags=re.MULTILINE))
    assert named <= targets, sorted(named - targets)


@pytest.mark.parametrize(
    "page", [*(page for page in PAGES if page != "docs/log.md"), "params.yaml"]
)  # a log is history
def test_every_source_file_of_a_page_exists_with_the_names_it_is_said_to_have(page):
    for path, name in re.findall(r"(?<![\w/])([a-z_]+/[a-z0-9_/]+\.py)(?::([A-Za-z_]+))?", read(page)):
        if path.startswith(("tools/", "configs/")):  # MMAction2's own
            continue
        found = [root / path for root in (projects.ROOT, PACKAGE) if (root / path).exists()]
        assert found, path
        assert not name or re.search(rf"\b{name}\b", found[0].read_text(encoding="utf-8")), f"{path}: {name}"


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_of_a_page_leads_to_a_file_and_a_heading_of_it(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(read(page))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (projects.ROOT / page).parent / path if path else projects.ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_a_link_to_a_heading_that_is_gone_would_be_found():
    assert "results-on-real-clips" in anchors("docs/results.md")
    assert "results-on-clips" not in anchors("docs/results.md")


def test_the_front_page_names_all_that_stands_at_the_top_level_and_nothing_else():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=projects.ROOT, capture_output=True, text=True, check=True)
    top = {path.split("/")[0] for path in tracked.stdout.split("\0") if path}
    assert {name.rstrip("/") for name in first_cells(section("README.md", "The top level"))} == top


def test_the_front_page_is_at_most_150_lines():
    assert len(read("README.md").splitlines()) <= 150


def test_the_architecture_page_names_every_room():
    rooms = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    named = first_cells(section("docs/architecture.md", "The rooms of src/avrecog"))
    assert {name.rstrip("/") for name in named} == rooms


def test_the_architecture_page_has_the_layers_that_import_linter_holds():
    contract = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    layers = "\n".join(contract["layers"]).replace("avrecog.", "")
    assert f"```\n{layers}\n```" in read("docs/architecture.md")
