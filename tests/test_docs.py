"""What the documents say exists: tests, commands and their options."""

import argparse
import ast
import re

import pytest

import projects
from avrecog.cli import _parser

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (projects.ROOT / "docs").glob("*.md"))]


def test_every_test_that_a_page_names_exists():
    tests = {
        node.name
        for path in (projects.ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    for page in PAGES:
        named = set(re.findall(r"`(test_[a-z0-9_]+)`", (projects.ROOT / page).read_text(encoding="utf-8")))
        assert named <= tests, f"{page}: {sorted(named - tests)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one_of_ours_with_options_it_has(page):
    (commands,) = (action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    text = (projects.ROOT / page).read_text(encoding="utf-8")
    for name, rest in re.findall(r"(?:^|`)avrecog ([a-z]+)([^`\n]*)", text, flags=re.MULTILINE):
        assert name in commands, f"{page}: avrecog {name}"
        known = {option for action in commands[name]._actions for option in action.option_strings}
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.split("#")[0]))
        assert used <= known, f"{page}: avrecog {name} {sorted(used - known)}"
