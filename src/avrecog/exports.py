"""Networks as ONNX models that were made before: kept in `.avrecog/exports/`, since making one takes seconds.

A file there begins with a line of JSON that says what it holds; the ONNX model follows. Its name is a digest of all
that it hangs on: the checkpoint, the versions of the libraries and our own code that makes it. PyTorch is not needed to
read one.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from avrecog.atomic import atomic_path
from avrecog.state_folder import state_folder

log = logging.getLogger(__name__)

MOST_FILES = 64  # the one that was not used for longest makes room
LIBRARIES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime")
SOURCE = Path(__file__).parent
CODE = ("models/*.py", "exports.py", "folding.py", "inference.py", "onnx_export.py")  # what makes them what they are


@dataclass(frozen=True)
class Kept:
    """An ONNX model that was made before."""

    description: Mapping[str, Any]  # what its checkpoint says of the model: TrainedModel.description
    onnx: bytes


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_export(*of: Any) -> Kept | None:
    """What was kept of it; None where nothing was, or where the file is damaged, of which a line tells."""
    path = _path(of, "onnx")
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, _, onnx = content.partition(b"\n")
    try:
        said = json.loads(head)
        whole = said["sha256"] == hashlib.sha256(onnx).hexdigest()
        description = dict(said["description"])
    except (ValueError, LookupError, TypeError):
        whole = False
    if not whole:
        log.warning("%s: is damaged, and is made anew", path)
        return None
    _touch(path)
    return Kept(description, onnx)


def keep_export(onnx: bytes, description: Mapping[str, Any], *of: Any) -> None:
    """Keep an ONNX model, whole or not at all; where nothing can be written a line says so."""
    head = json.dumps({"sha256": hashlib.sha256(onnx).hexdigest(), "description": description})
    _write(_path(of, "onnx"), head.encode() + b"\n" + onnx)


def tried_before(*of: Any) -> str | None:
    """What came of trying to export it: a reason why that fails, or `` if it doesn't; None if nobody tried."""
    try:
        return str(json.loads(_path(of, "json").read_bytes())["problem"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def keep_trial(problem: str, *of: Any) -> None:
    """Remember what came of trying to export it."""
    _write(_path(of, "json"), json.dumps({"problem": problem}).encode())


def _path(of: Sequence[Any], kind: str) -> Path:
    versions = {name: _version(name) for name in LIBRARIES}
    code = hashlib.sha256()
    for pattern in CODE:
        for file in sorted(SOURCE.glob(pattern)):
            code.update(file.read_bytes())
    text = json.dumps([list(of), versions, code.hexdigest()], sort_keys=True)
    return state_folder("exports") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.{kind}"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"  # onnxruntime-gpu goes by another name


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        files = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[MOST_FILES:]:
            file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: can't be kept (%s), so it is made anew each time", path, error.strerror)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        return  # it is only to say that it was used
