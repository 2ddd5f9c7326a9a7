"""A row of an annotation: what a person said of a clip, before its file is probed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AnnotatedClip:
    """One labelled stretch of a media file; None where the annotation is silent."""

    path: str  # as it will stand in the manifest
    label: str
    where: str  # "clips.csv, line 7": for messages
    split: str | None = None
    fold: int | None = None
    group: str | None = None
    start_s: float | None = None  # None: the file's beginning
    stop_s: float | None = None  # None: the file's end
    clip_id: str | None = None  # None: made from the path
    n_frames: int | None = None  # of the video that a file without a picture was made from
