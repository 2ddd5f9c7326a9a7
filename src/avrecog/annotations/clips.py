"""From annotated rows and what their files hold to the clips of the manifest."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.folder_source import PassedOver
from avrecog.annotations.names import cleaned, name_problem, shown
from avrecog.annotations.settings import DataConfig
from avrecog.annotations.sources import find_source
from avrecog.errors import ManifestError, MediaError, NotMediaError
from avrecog.manifest import Clip, media_path
from avrecog.media.read_files import MediaFile, read_media

log = logging.getLogger(__name__)
MIN_CLIP_S = 0.01  # a span shorter than this holds nothing that a front end could frame


def read_annotation(data: DataConfig, out: Path) -> list[AnnotatedClip]:
    """What is annotated, by the source that `data.source` names; one that makes its clips does so in `out`."""
    source = find_source(data)
    out.mkdir(parents=True, exist_ok=True)  # an output of the stage
    if not source.makes_clips:  # dvc warns of an empty output, each time
        (out / "none.txt").write_text(f"No clips of the demo: data.source is {data.source}.\n", encoding="utf-8")
    return source.read(data, out)


def with_clean_names(row: AnnotatedClip) -> AnnotatedClip:
    """The row, its label and its group as the tables have them.

    Raises:
        ManifestError: if nothing is left of the label.
    """
    label = cleaned(row.label)
    if not label:
        raise ManifestError(f"{row.where}: expected a label that can be seen, got {ascii(row.label)}")
    return dataclasses.replace(row, label=label, group=cleaned(row.group) or None if row.group else None)


def read_files(rows: Sequence[AnnotatedClip], remember: bool) -> list[MediaFile | MediaError]:
    """What each row's file holds, or why it can't be read, or can't be named in the tables."""
    problems = [_name_problem(row) for row in rows]
    files = [media_path(row.path) for row, problem in zip(rows, problems, strict=True) if problem is None]
    read = iter(read_media(files, remember))
    return [next(read) if problem is None else problem for problem in problems]


def _name_problem(row: AnnotatedClip) -> MediaError | None:
    for what, name in (("path", row.path), ("clip_id", row.clip_id or "")):
        problem = name_problem(name)
        if problem is not None:
            return MediaError(f"{shown(name)}: this {what} {problem}, which no table can hold; rename it")
    return None


def collect_remarks(rows: Sequence[AnnotatedClip], read: Sequence[MediaFile | MediaError]) -> dict[str, list[str]]:
    """`path -> what was found odd in the file`, such as a track that can't be decoded, and is no reason to skip it."""
    pairs = zip(rows, read, strict=True)
    return {row.path: list(each.probe.notes) for row, each in pairs if isinstance(each, MediaFile) and each.probe.notes}


def keep_media(
    data: DataConfig,
    rows: Sequence[AnnotatedClip],
    read: Sequence[MediaFile | MediaError],
    others: list[PassedOver],
) -> tuple[list[AnnotatedClip], list[MediaFile | MediaError]]:
    """The files of a tree that are media, or claim to be; what isn't is added to `others`.

    Raises:
        ManifestError: if none is left.
    """
    pairs = list(zip(rows, read, strict=True))
    others += [
        PassedOver(
            shown(os.path.relpath(row.path, data.annotation)), str(found).removeprefix(f"{media_path(row.path)}: ")
        )
        for row, found in pairs
        if isinstance(found, NotMediaError)
    ]
    kept = [(row, found) for row, found in pairs if not isinstance(found, NotMediaError)]
    if not kept:
        first = f"; {others[0].path}: {others[0].reason}" if others else ""
        raise ManifestError(
            f"{data.annotation}: no media files in it; expected {data.annotation}/<class>/<file>, got {len(others)} "
            f"other files{first}"
        )
    lost = sorted({row.label for row in rows} - {row.label for row, _ in kept})
    if lost:
        log.warning(
            "%s: no media files in the folders of %d classes: %s", data.annotation, len(lost), ", ".join(lost[:10])
        )
    return [row for row, _ in kept], [found for _, found in kept]


def manifest_row(row: AnnotatedClip, clip_id: str, read: MediaFile | MediaError) -> Clip:
    """The row of the manifest.

    An end that nobody annotated stays open. What is annotated is held against the file's length where that is known;
    where it is a guess, decoding tells.

    Raises:
        MediaError: if the file can't be read, or the clip doesn't lie in it.
    """
    if isinstance(read, MediaError):
        raise read
    found, start_s, stop_s = read.probe, row.start_s or 0.0, row.stop_s
    if not found.duration_estimated:
        if start_s >= found.duration_s:
            raise MediaError(f"{row.path}: starts at {start_s:g} s, but the file lasts {found.duration_s:g} s")
        stop_s = None if stop_s is None else min(stop_s, found.duration_s)
    duration_s = (found.duration_s if stop_s is None else stop_s) - start_s
    if duration_s < MIN_CLIP_S:
        if stop_s is not None or not found.duration_estimated:
            end_s = start_s + duration_s
            raise MediaError(f"{row.path}: expected {MIN_CLIP_S:g} s at least, got {start_s:g} to {end_s:g} s")
        duration_s = MIN_CLIP_S
    return Clip(
        clip_id=clip_id,
        path=row.path,
        label=row.label,
        group=str(row.group),
        fold=row.fold,
        start_s=round(start_s, 6),
        stop_s=None if stop_s is None else round(stop_s, 6),
        duration_s=round(duration_s, 6),
        n_frames=max(1, round(duration_s * found.fps)) if found.has_video else row.n_frames or 0,
        fps=found.fps,
        sample_rate=found.sample_rate,
        has_audio=found.has_audio,
        has_video=found.has_video,
        duration_estimated=found.duration_estimated and stop_s is None,
        digest=read.digest,
    )
