"""Where the project keeps what it may make anew at any time: no part of any result, ignored by git and DVC."""

import os
from pathlib import Path


def remembered(name: str) -> Path:
    """The folder `.avrecog/<name>` below the project's root; outside of a project `avrecog/<name>` in the user's cache.

    The root is DVC_ROOT, which an experiment in a temporary folder shares with its project, or else the working folder,
    where it has a dvc.yaml.
    """
    root = Path(os.environ.get("DVC_ROOT") or ".").resolve()
    if os.environ.get("DVC_ROOT") or (root / "dvc.yaml").exists():
        return root / ".avrecog" / name
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache)) / "avrecog" / name
