"""Clips of one content: the same file or a copy of it, and passages that overlap."""

import math
from collections.abc import Mapping, Sequence

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.errors import MediaError
from avrecog.manifest import Clip
from avrecog.media.read_files import MediaFile


def first_copies(rows: Sequence[AnnotatedClip], read: Sequence[MediaFile | MediaError]) -> list[str]:
    """For each row the path of the first one with the same content: the same file, or a copy, byte for byte."""
    first: dict[str, str] = {}
    return [
        first.setdefault(found.digest, row.path) if isinstance(found, MediaFile) else row.path
        for row, found in zip(rows, read, strict=True)
    ]


def shared_passages(clips: Sequence[Clip], file_of: Mapping[str, str]) -> list[str]:
    """For each clip the passage of its file that it shares with the clips that overlap it: file and begin."""
    names: dict[str, str] = {}
    file, passage, stop_s = "", "", 0.0
    for clip in sorted(clips, key=lambda clip: (file_of[clip.clip_id], clip.start_s)):
        if file_of[clip.clip_id] != file or clip.start_s >= stop_s:
            file, stop_s = file_of[clip.clip_id], 0.0
            passage = f"{file} from {clip.start_s:g} s"
        stop_s = max(stop_s, end_s(clip))
        names[clip.clip_id] = passage
    return [names[clip.clip_id] for clip in clips]


def end_s(clip: Clip) -> float:
    """Where the clip ends in its file; infinity where nobody annotated an end."""
    return math.inf if clip.stop_s is None else clip.stop_s
