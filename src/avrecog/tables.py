"""Writing rows as CSV, whole or not at all."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avrecog.atomic import atomic_path


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows, whose keys are those of the first one, as CSV; None becomes an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
