"""The ids of clips: those of the annotation, or made from the paths."""

import os
from collections import Counter
from collections.abc import Sequence

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.errors import ManifestError


def clip_ids(rows: Sequence[AnnotatedClip]) -> list[str]:
    """The annotation's ids, or the path below the folder that all share, with the times where a file has many clips.

    The path is without its ending, except where another clip would have the same id (`0.wav` beside `0.mp4`).

    Raises:
        ManifestError: if an id stands twice.
    """
    paths = [os.path.abspath(row.path) for row in rows]  # an annotation may hold relative and absolute ones
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [path[len(shared) :].lstrip(os.sep) for path in paths]
    short = [_clip_id(row, os.path.splitext(name)[0]) for row, name in zip(rows, names, strict=True)]
    ids = short
    while doubled := {clip_id for clip_id, count in Counter(ids).items() if count > 1}:
        fuller = [
            _clip_id(row, name) if clip_id in doubled else clip_id
            for row, name, clip_id in zip(rows, names, ids, strict=True)
        ]
        if fuller == ids:
            _refuse(rows, [clip_id if full in doubled else "" for clip_id, full in zip(short, ids, strict=True)])
        ids = fuller
    return ids


def _clip_id(row: AnnotatedClip, name: str) -> str:
    if row.clip_id is not None:
        return row.clip_id
    if row.start_s is None and row.stop_s is None:
        return name
    return f"{name}@{row.start_s or 0:g}-{'' if row.stop_s is None else f'{row.stop_s:g}'}"


def _refuse(rows: Sequence[AnnotatedClip], doubled: Sequence[str]) -> None:
    """Say which ids stand twice, and where; the others are empty in `doubled`.

    Raises:
        ManifestError: always.
    """
    first_id = next(filter(None, doubled))
    first = [row.where for row, clip_id in zip(rows, doubled, strict=True) if clip_id == first_id]
    raise ManifestError(
        f"{len(set(filter(None, doubled)))} clip ids stand more than once, the first is {first_id!r} "
        f"({' and '.join(first[:3])}); drop a row, or give the rows a clip_id each"
    )
