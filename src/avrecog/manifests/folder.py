"""Source `folder`: a tree in which each class is a folder of media files."""

import logging
from pathlib import Path

from avrecog.errors import ManifestError
from avrecog.manifests.annotated import AnnotatedClip

log = logging.getLogger(__name__)

ENDINGS = frozenset(
    [
        ".3gp",
        ".aac",
        ".aif",
        ".aiff",
        ".avi",
        ".flac",
        ".flv",
        ".m4a",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp3",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".oga",
        ".ogg",
        ".ogv",
        ".opus",
        ".ts",
        ".wav",
        ".webm",
        ".wma",
        ".wmv",
    ]
)
SPLITS = ("train", "val", "test")


def read_folder(root: Path, folder: Path) -> list[AnnotatedClip]:
    """Every media file `root/<class>/*`, or `root/<train|val|test>/<class>/*` where the first level is splits.

    Files are told by their ending; hidden files are passed over. Paths in the result begin with `folder`.

    Raises:
        ManifestError: if there is no folder, or no media file in it.
    """
    if not root.is_dir():
        raise ManifestError(f"{root}: expected a folder with one folder a class; see data.annotation in params.yaml")
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if names and set(names) <= set(SPLITS):
        clips = [clip for name in names for clip in _classes(root / name, folder / name, name)]
    else:
        clips = _classes(root, folder, None)
    taken = {clip.where for clip in clips}
    passed_over = [path for path in sorted(root.rglob("*")) if _is_media(path) and str(path) not in taken]
    if passed_over:
        log.warning(
            "%s: %d media files are passed over, since they don't lie in a class folder of the first level, e.g. %s",
            root,
            len(passed_over),
            passed_over[0],
        )
    if not clips:
        raise ManifestError(
            f"{root}: no media files in it; expected {root}/<class>/<file>{{{', '.join(sorted(ENDINGS))}}}"
        )
    return clips


def _classes(root: Path, folder: Path, split: str | None) -> list[AnnotatedClip]:
    return [
        AnnotatedClip(path=str(folder / path.relative_to(root)), label=path.parent.name, where=str(path), split=split)
        for path in sorted(root.glob("*/*"))
        if _is_media(path) and not path.parent.name.startswith(".")
    ]


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")
