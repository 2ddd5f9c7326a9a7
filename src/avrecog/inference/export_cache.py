"""Networks as ONNX models that were made before: kept in `.avrecog/exports/`, since making one takes seconds.

A file there begins with the SHA-256 of all that follows: a line of JSON that says what model it is, and the ONNX model.
Its name is a digest of all that it hangs on: the checkpoint, the versions of the libraries and our own code. PyTorch is
not needed to read one.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import avrecog
from avrecog.errors import ConfigError
from avrecog.features.front_end import FrontEnd
from avrecog.inputs import ModelInput, read_input
from avrecog.runtime.files import PARTIAL, atomic_path
from avrecog.runtime.state_folder import state_folder

log = logging.getLogger(__name__)

MAX_FILES = 64  # models; the one that was not used for longest makes room
LIBRARIES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime")
SOURCE = Path(avrecog.__file__).parent


@dataclass(frozen=True)
class Kept:
    """An ONNX model that was made before."""

    name: str
    input: ModelInput
    front_end: FrontEnd
    classes: list[str]
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
    kept = _parsed(content)
    if kept is None:
        log.warning("%s: is damaged, and is made anew", path)
        return None
    _touch(path)
    return kept


def _parsed(content: bytes) -> Kept | None:
    """What a file holds; None if something was changed, is missing or makes no sense."""
    said, _, rest = content.partition(b"\n")
    if said != hashlib.sha256(rest).hexdigest().encode():
        return None
    head, _, onnx = rest.partition(b"\n")
    try:
        return _as_described(json.loads(head), onnx)
    except (ValueError, LookupError, TypeError):  # a ConfigError is a ValueError
        return None


def _as_described(description: Mapping[str, Any], onnx: bytes) -> Kept:
    """The model, all that is said of it checked.

    Raises:
        ConfigError: if something that is said makes no sense.
        KeyError: if something is not said.
    """
    name, classes = description["model"], description["classes"]
    if not isinstance(name, str) or not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise ConfigError("expected a name, and the names of the classes")
    return Kept(name, read_input(description["input"]), FrontEnd.of(description["front_end"]), classes, onnx)


def keep_export(onnx: bytes, description: Mapping[str, Any], *of: Any) -> None:
    """Keep an ONNX model, whole or not at all; where nothing can be written a line says so.

    Args:
        onnx: the model.
        description: what its checkpoint says of it: TrainedModel.description.
        of: what it hangs on.
    """
    rest = json.dumps(description).encode() + b"\n" + onnx
    _write(_path(of, "onnx"), hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


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
    text = json.dumps([list(of), versions, _code(SOURCE)], sort_keys=True)
    return state_folder("exports") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.{kind}"


@functools.cache
def _code(folder: Path) -> str:
    """A digest of the package, since making an export reaches most of it."""
    code = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        code.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return code.hexdigest()


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"  # onnxruntime-gpu goes by another name


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        _make_room(path.parent)
    except OSError as error:
        log.warning("%s: can't be kept (%s), so it is made anew each time", path, error.strerror)


def _make_room(folder: Path) -> None:
    """Remove the models that were not used for longest; another process may do so at the same time."""
    used = {}
    for file in folder.glob("*.onnx"):
        with contextlib.suppress(FileNotFoundError):
            if not file.name.startswith(PARTIAL):
                used[file] = file.stat().st_mtime
    for file in sorted(used, key=lambda file: used[file], reverse=True)[MAX_FILES:]:
        file.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        return  # it is only to say that it was used
