"""Where avrecog keeps what it needn't find out twice: no part of any result, and no output of DVC."""

import os
from pathlib import Path


def state_folder(kind: str) -> Path:
    """`.avrecog/KIND` below the project's root, or in the user's cache folder outside of a project; made by who writes.

    Git and DVC ignore it. What is in it may be removed at any time.
    """
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    if any((root / name).exists() for name in ("params.yaml", "dvc.yaml")):
        return root / ".avrecog" / kind
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avrecog" / kind
