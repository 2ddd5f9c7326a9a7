"""Which clips belong together where the annotation doesn't say so: those of one recording."""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Sequence

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.names import stem


def with_groups(rows: Sequence[AnnotatedClip], contents: Sequence[str]) -> list[AnnotatedClip]:
    """The rows, those without a group in one of their own recording's.

    That is the file, however its path is written, its copies, and what lies beside it with another ending: `0.wav` and
    `0.mp4` in one folder are sound and picture of one recording, or two encodings of it.

    Args:
        rows: N of them.
        contents: of each row what stands for its file and the file's copies.
    """
    stems = [os.path.join(os.path.dirname(row.path), stem(os.path.basename(row.path))) for row in rows]
    joined: dict[str, str] = {}  # a disjoint-set forest of contents and places
    for row, content, name in zip(rows, contents, stems, strict=True):
        if not row.group:
            place = _root(joined, f"{os.path.abspath(name)}\0")  # no path, and so no content
            joined[place] = _root(joined, content)
    members: dict[str, set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    for row, content, name in zip(rows, contents, stems, strict=True):
        if not row.group:
            members[_root(joined, content)].add(content)
            names.setdefault(_root(joined, content), name)
    groups = {root: names[root] if len(several) > 1 else next(iter(several)) for root, several in members.items()}
    return [
        row if row.group else dataclasses.replace(row, group=groups[_root(joined, content)])
        for row, content in zip(rows, contents, strict=True)
    ]


def _root(joined: dict[str, str], name: str) -> str:
    """What stands for all that `name` was joined with; paths to it are halved on the way."""
    while (parent := joined.setdefault(name, name)) != name:
        joined[name] = name = joined.setdefault(parent, parent)
    return name
