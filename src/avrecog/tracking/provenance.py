"""Where and from what a run was made: code, experiment, machine and process, as words for its tags."""

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path

PROCESS_TAG = "process"  # machine, start of the machine, process id, start of the process


def origin_tags() -> dict[str, str]:
    """Where and from what a run was made, as tags."""
    tags = {
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME"),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "dvc.stage": os.environ.get("DVC_STAGE"),
        "git.commit": _git("rev-parse", "HEAD"),
        "git.dirty": {"": "false", None: None}.get(_changes(), "true"),
        PROCESS_TAG: this_process(),
    }
    return {key: value for key, value in tags.items() if value}


def _changes() -> str | None:
    """What no commit has, but for params.yaml, which each run logs, and dvc.lock, which dvc writes."""
    status = ("status", "--porcelain", "--untracked-files=no", "--", ".")
    return _git(*status, ":(exclude)params.yaml", ":(exclude)dvc.lock")


def file_digest(path: Path) -> str:
    """The digest that dvc.lock has for a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def changed_files(before: str, after: str) -> str | None:
    """What git says of the code between two commits; None where this repository doesn't have both."""
    commits = (before, after)
    if not all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits):  # a tag is anyone's text
        return None
    if any(_git("cat-file", "-e", f"{commit}^{{commit}}") is None for commit in commits):
        return None
    return _git("diff", "--stat", before, after, "--", "src", "stages")


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here, or not a repository: the tag is left out
    return result.stdout.strip() if result.returncode == 0 else None


def this_process() -> str:
    """Machine, its start, process id and its start: enough to tell later whether it is still there."""
    return f"{_machine()} {_boot()} {os.getpid()} {_started(os.getpid())}"


def _machine() -> str:
    try:
        return f"{platform.node()}/{os.stat('/proc/self/ns/pid').st_ino}"  # containers may share a name
    except OSError:  # not Linux
        return platform.node()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:  # not Linux
        return "-"


def _started(pid: int) -> str | None:
    """When a process started, in a unit that setting the clock doesn't change; None if it is gone."""
    import psutil

    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists():  # not Linux
            return f"{psutil.Process(pid).create_time():.0f}"
        return stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (psutil.NoSuchProcess, OSError):
        return None


def is_gone(process: str) -> bool:
    """Whether a process of this machine has ended; False for another machine's, of which nothing is known."""
    match process.split(" "):
        case [machine, boot, pid, started] if machine == _machine() and pid.isdigit():
            return boot != _boot() or _started(int(pid)) != started
    return False
