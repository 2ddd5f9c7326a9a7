"""Does the demo's result lie where the README says, and is a second `dvc repro` idle?"""

import json
import pathlib
import subprocess
import sys
import time

fusion = json.loads(pathlib.Path("results/metrics/fuse.json").read_text())
low, high = fusion["gain"]["top1_ci95"]
print(f"demo: fused top-1 {fusion['test']['top1']:.3f}, gain {fusion['gain']['top1']:.3f} ({low:.3f} to {high:.3f})")
problems = []
if not 0.80 <= fusion["test"]["top1"] <= 1.0:
    problems.append(f"fused top-1 is {fusion['test']['top1']:.3f}, expected 0.80 at least")
if low <= 0:
    problems.append("the interval of the fusion's gain holds 0")
began = time.perf_counter()
second = subprocess.run([".venv/bin/dvc", "repro"], capture_output=True, text=True, check=True)
print(f"second dvc repro: {time.perf_counter() - began:.1f} s")
if "Running stage" in second.stdout:
    problems.append("a second `dvc repro` ran a stage")
changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
if changed.strip() not in ("", "M dvc.lock"):
    problems.append(f"`git status` shows more than dvc.lock: {changed}")
if pathlib.Path("params.yaml").read_bytes() != pathlib.Path("recipes/default.yaml").read_bytes():
    problems.append("recipes/default.yaml is not params.yaml")
sys.exit("\n".join(problems) or None)
