"""Run every benchmark and write BENCHMARKS.md: PYTHONPATH=src python benchmarks/run_all.py [NAME ...]

With names, only those sections are made anew; the others stay as they are, each under its own date and machine. So does
the section of the GPU on a machine that has none.
"""

import datetime
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

BENCHMARKS = ("extraction", "loading", "inference", "fusion", "startup", "scale", "gpu")
HERE = Path(__file__).parent
PAGE = HERE.parent / "BENCHMARKS.md"
HEAD = """# Benchmarks

`make bench` runs the scripts of benchmarks/ one after another and writes this page. Each compares what people use now with ours in
one process or one run; a ratio counts, not a time. In brackets: the fastest and the slowest round. A miss stands as a miss,
with its reason below the last table.
"""


def machine() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = re.findall(r"model name\s*: (.*)", file.read())
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.processor()}, no GPU"


def sections(page: str) -> dict[str, str]:
    """Name -> section of a page that was written before; `reasons` is what stands below them."""
    parts = re.split(r"(?m)^<!-- (\w+) -->\n", page)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def measured(name: str) -> str:
    began = time.perf_counter()
    print(f"{name} ...", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, HERE / f"{name}.py"], stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    if done.returncode:
        raise SystemExit(f"benchmarks/{name}.py failed")
    section = done.stdout[done.stdout.index("## ") :].strip()
    today = datetime.datetime.now(datetime.UTC).date()
    facts = f"{today}, {machine()}, Python {platform.python_version()}, {time.perf_counter() - began:.0f} s"
    print(section, file=sys.stderr, flush=True)
    return f"{section}\n\n`PYTHONPATH=src python benchmarks/{name}.py`, {facts}.\n\n"


def main() -> None:
    known = sections(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    for name in sys.argv[1:] or BENCHMARKS:
        if name == "gpu" and not torch.cuda.is_available():
            print("gpu: left as it was, there is no GPU here", file=sys.stderr)
            continue
        known[name] = measured(name)
        order = [each for each in (*BENCHMARKS, "reasons") if each in known]
        PAGE.write_text(HEAD + "\n" + "".join(f"<!-- {each} -->\n{known[each]}" for each in order), encoding="utf-8")


if __name__ == "__main__":
    main()
