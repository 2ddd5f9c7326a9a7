"""Where avrecog keeps what it needn't find out twice: no part of any result, and no output of DVC."""

import os
from pathlib import Path


def state_folder(kind: str) -> Path:
    """`.avrecog/KIND` below the project's root, or `avrecog/KIND` in the user's cache folder outside of a project.

    The root is DVC_ROOT, which an experiment in a temporary folder shares with its project, or else the working folder,
    where it has a dvc.yaml. Who writes makes the folder. Git and DVC ignore it; what is in it may be removed any time.
    """
    root = Path(os.environ.get("DVC_ROOT") or ".").resolve()
    if os.environ.get("DVC_ROOT") or (root / "dvc.yaml").exists():
        return root / ".avrecog" / kind
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache)) / "avrecog" / kind
