"""Source `folder`: a tree in which each class is a folder of media files."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.base import Source
from avrecog.annotations.names import cleaned, name_problem, shown
from avrecog.annotations.settings import DataConfig
from avrecog.errors import ManifestError
from avrecog.manifest import media_path

SPLITS = ("train", "val", "test")
DEEPER = "lies in a folder below its class folder, where no clips are looked for"
LITTER = frozenset(["desktop.ini", "ehthumbs.db", "thumbs.db"])  # of file managers, in lower case
LITTER_FOLDERS = frozenset(["$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"])


@dataclass(frozen=True)
class PassedOver:
    """A file in the tree that gives no clip."""

    path: str  # below the root, as any terminal can show it
    reason: str


class FolderSource(Source):
    """`data.annotation` is the root of a tree of classes."""

    is_a_tree = True

    def read(self, data: DataConfig, out: Path) -> list[AnnotatedClip]:
        """Its files, each of the class of its folder."""
        return read_folder(media_path(data.annotation), Path(data.annotation))


def read_folder(root: Path, folder: Path) -> list[AnnotatedClip]:
    """Every file `root/<class>/*`, or `root/<train|val|test>/<class>/*` where the first level is splits.

    No ending is asked for: the decoders tell which files are media. Hidden files and the litter of file managers are
    left out (`passed_over` lists them). Paths in the result begin with `folder`.

    Raises:
        ManifestError: if there is no folder, or it or one of its folders can't be listed.
    """
    if not os.path.isdir(root):
        raise ManifestError(f"{root}: expected a folder with one folder a class; see data.annotation in params.yaml")
    names = _folders(root)
    if _are_splits(names):
        return [clip for name in names for clip in _classes(root / name, folder / name, cleaned(name))]
    return _classes(root, folder, None)


def passed_over(root: Path, folder: Path, clips: Iterable[AnnotatedClip]) -> list[PassedOver]:
    """Every file below `root` that isn't among the clips of `read_folder(root, folder)`, with the reason."""
    taken = {clip.path for clip in clips}
    taken |= {os.path.dirname(path) for path in taken}  # a class may be a link to a folder
    depth = 3 if _are_splits(_folders(root)) else 2  # of a clip: (split,) class, file
    return [
        PassedOver(shown(str(path)), _reason(path, depth))
        for path in sorted(_all_files(root))
        if str(folder / path) not in taken
    ]


def why_unwatchable(root: Path, annotation: str) -> str | None:
    """Why DVC can't hash a folder, and what to do: it holds names that are no UTF-8; None where it can."""
    names = sorted(
        shown(str(Path(folder, name).relative_to(root)))
        for folder, folders, files in os.walk(root)
        for name in (*folders, *files)
        if name_problem(name) == "is no UTF-8"
    )
    if not names:
        return None
    return (
        f"{len(names)} names in {annotation} are no UTF-8, and DVC can't hash the folder then "
        f"({', '.join(names[:5])}); rename them, as with `convmv -f latin1 -t utf8 -r --notest FOLDER`"
    )


def _classes(root: Path, folder: Path, split: str | None) -> list[AnnotatedClip]:
    return [
        AnnotatedClip(path=str(folder / name / file), label=name, where=shown(str(root / name / file)), split=split)
        for name in _folders(root)
        for file in _files(root / name)
    ]


def _folders(root: Path) -> list[str]:
    """The folders in a folder that are no one's litter, sorted."""
    return sorted(name for name, is_folder in _entries(root) if is_folder and name not in LITTER_FOLDERS)


def _files(root: Path) -> list[str]:
    return sorted(name for name, is_folder in _entries(root) if not is_folder and name.lower() not in LITTER)


def _entries(root: Path) -> list[tuple[str, bool]]:
    """What a folder holds that isn't hidden: `name, whether it is a folder`.

    Raises:
        ManifestError: if it can't be listed.
    """
    try:
        with os.scandir(root) as entries:
            return [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ManifestError(
            f"{shown(str(root))}: can't be listed ({error.strerror}); make it readable, or move it out of the tree"
        ) from None


def _all_files(root: Path) -> Iterator[Path]:
    """The files below a folder, and the links to folders, which are not followed: as paths below it."""
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        yield from (here / name for name in files)
        yield from (here / name for name in folders if os.path.islink(os.path.join(folder, name)))


def _are_splits(names: Sequence[str]) -> bool:
    return bool(names) and {cleaned(name) for name in names} <= set(SPLITS)


def _reason(path: Path, depth: int) -> str:
    if any(part.startswith(".") for part in path.parts):
        return "hidden"
    if path.name.lower() in LITTER or any(part in LITTER_FOLDERS for part in path.parts):
        return "left there by a file manager or an operating system"
    return DEEPER if len(path.parts) > depth else "doesn't lie in a class folder"
