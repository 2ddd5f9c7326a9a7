"""What the benchmarks share: timing in turns, a row for each comparison, and their table.

Each benchmark is a script that answers one question: `PYTHONPATH=src python benchmarks/<name>.py`. It runs what people
use now and ours in one process or one run and prints both; `make bench` runs all and writes BENCHMARKS.md.
"""

import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Times:
    """Seconds of several rounds of one thing."""

    rounds: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def said(self, unit: float = 1000, per: int = 1, word: str = "ms") -> str:
        """`5.3 ms (5.1 to 5.9)`: the median, and the fastest and the slowest round."""
        low, mid, high = (unit * seconds / per for seconds in (min(self.rounds), self.median, max(self.rounds)))
        return f"{mid:.3g} {word} ({low:.3g} to {high:.3g})"


def in_turns(functions: Mapping[str, Callable[[], Any]], rounds: int = 7, warmup: int = 1) -> dict[str, Times]:
    """Each function once a round, so that what else the machine does strikes all alike."""
    for _ in range(warmup):
        for function in functions.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return {name: Times(values) for name, values in seconds.items()}


@dataclass(frozen=True)
class Row:
    """A line of a table: what was measured, against what, and what was aimed for."""

    work: str
    peer: str
    ours: str
    ratio: float | None = None
    aim: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.3g}"
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        return f"| {self.work} | {self.peer} | {self.ours} | {ratio} | {self.aim} | {verdict} |"


def at_least(work: str, peer: str, ours: str, ratio: float, aim: float) -> Row:
    """A ratio that should be large."""
    return Row(work, peer, ours, ratio, f"at least {aim:g}", ratio >= aim)


def at_most(work: str, peer: str, ours: str, ratio: float, aim: float, unit: str = "") -> Row:
    """A ratio, or a figure, that should be small."""
    return Row(work, peer, ours, ratio, f"at most {aim:g}{unit}", ratio <= aim)


def show(question: str, rows: Sequence[Row], packages: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
    """Print a section of BENCHMARKS.md."""
    print(f"## {question}\n")
    print("| work | peer | ours | ratio | aim | |\n| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(row)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"\nThreads: {os.environ.get('OMP_NUM_THREADS', 'all')}{'; ' + versions if versions else ''}.")
    for note in notes:
        print(f"\n{note}")
    print(flush=True)


def shared(*parts: str) -> Path | None:
    """A folder of real clips below AVRECOG_SHARED, if it is set and holds them."""
    root = os.environ.get("AVRECOG_SHARED")
    path = Path(root, *parts) if root else None
    return path if path is not None and path.exists() else None
