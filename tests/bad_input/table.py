"""Writes docs/errors.md from the cases that the tests run; `make errors` calls it."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from bad_input.cases import GROUPS, Case  # noqa: E402

HEAD = """# What avrecog says when something is wrong

Made by `make errors` from the cases that `tests/bad_input` runs: each is given to the stage, which must say this, exit
with code 1 (2 where it says so) and show no traceback, or take it as told. A clip that can't be read is skipped,
counted and listed until there are more than `data.max_skipped`; the tests allow none, so that each is told.
"""


def table() -> str:
    parts = [HEAD]
    for title, cases in GROUPS.items():
        parts.append(f"\n## {title}\n\n| what | stage | what happens |\n| --- | --- | --- |\n")
        parts += [_line(case) for case in cases]
    return "".join(parts)


def _line(case: Case) -> str:
    happens = f"`{case.message}`" if case.message else case.then
    if case.message and "`" in case.message:
        happens = f"`` {case.message} ``"
    if case.exit_code != 1:
        happens += f", exit code {case.exit_code}"
    return f"| {case.what} | {case.stage} | {happens} |\n"


if __name__ == "__main__":
    (ROOT / "docs/errors.md").write_text(table(), encoding="utf-8")
