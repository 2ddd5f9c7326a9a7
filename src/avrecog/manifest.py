"""A clip, and the manifest that lists the clips: one row each, as CSV."""

import csv
import dataclasses
import hashlib
import math
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avrecog.errors import ManifestError
from avrecog.runtime.files import atomic_path


@dataclass(frozen=True)
class Clip:
    """An annotated stretch of a media file, with what probing the file told."""

    clip_id: str
    path: str  # as written in the manifest; `media_path` finds the file
    label: str
    group: str  # clips of one group (a source recording, a speaker) never stand on two sides of a split
    fold: int | None
    start_s: float
    stop_s: float | None  # half-open: [start_s, stop_s); None: to the end of the file, which nobody annotated
    duration_s: float  # from start_s to stop_s or the file's end
    n_frames: int  # video frames between start_s and stop_s, by the file's own frame rate; 0 without a picture
    fps: float  # 0 without a picture
    sample_rate: int  # Hz; 0 without sound
    has_audio: bool
    has_video: bool
    duration_estimated: bool = False  # duration_s is a guess: the file doesn't say where it ends
    digest: str = ""  # SHA-256 of the file's content, so that other media give another manifest


COLUMNS = [field.name for field in dataclasses.fields(Clip)]


def media_path(path: str) -> Path:
    """Where a manifest's path points: absolute, or counted from the working folder, or from the project (DVC_ROOT).

    An experiment in a temporary folder has its own `data/demo`, but git-ignored media lie in the project only.
    """
    here = Path(path)
    if here.is_absolute() or os.path.exists(here):  # unlike Path.exists it raises nothing
        return here
    return Path(os.environ.get("DVC_ROOT", ".")) / path


def clips_digest(clips: Sequence[Clip]) -> str:
    """Of all rows of a manifest: a store says with it what it was made from."""
    return hashlib.sha256(repr(list(clips)).encode()).hexdigest()


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write the clips as CSV, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        cells = operator.attrgetter(*COLUMNS)
        writer.writerows([_cell(value) for value in cells(clip)] for clip in clips)


def read_manifest(path: Path) -> list[Clip]:
    """The clips of a manifest, in file order.

    Raises:
        ManifestError: if the file is missing, a column is missing, a cell can't be read or a clip_id stands twice.
    """
    clips = [_clip(row, f"{path}, line {number}") for number, row in enumerate(_rows(path, COLUMNS), start=2)]
    _refuse_doubles(path, [clip.clip_id for clip in clips])
    return clips


def write_splits(path: Path, splits: dict[str, str]) -> None:
    """Write `clip_id,split` as CSV, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip_id", "split"])
        writer.writerows(splits.items())


def read_splits(path: Path) -> dict[str, str]:
    """`clip_id -> split` in file order.

    Raises:
        ManifestError: if the file is missing, a column is missing, a split is unknown or a clip_id stands twice.
    """
    rows = [(row["clip_id"], row["split"]) for row in _rows(path, ["clip_id", "split"])]
    for number, (_, split) in enumerate(rows, start=2):
        if split not in ("train", "val", "test"):
            raise ManifestError(f"{path}, line {number}: expected split train, val or test, got {split!r}")
    _refuse_doubles(path, [clip_id for clip_id, _ in rows])
    return dict(rows)


def read_labels(path: Path) -> list[str]:
    """The class names, one a line; the line number (from 0) is the class index.

    Raises:
        ManifestError: if the file is missing, empty, or names a class twice.
    """
    try:
        names = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise ManifestError(f"{path}: can't be read ({error.strerror}); run `dvc repro prepare`") from None
    if names == [""] or len(set(names)) != len(names):
        raise ManifestError(f"{path}: expected one class name a line, each once; run `dvc repro -f prepare`")
    return names


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise ManifestError(f"{path}: column {missing[0]} is missing; run `dvc repro -f prepare`")
            yield from reader  # the cells of a large manifest, as text, take more memory than its clips
    except OSError as error:
        raise ManifestError(f"{path}: can't be read ({error.strerror}); run `dvc repro prepare`") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _clip(row: dict[str, str], where: str) -> Clip:
    try:
        clip = Clip(
            clip_id=row["clip_id"],
            path=row["path"],
            label=row["label"],
            group=row["group"],
            fold=int(row["fold"]) if row["fold"] else None,
            start_s=float(row["start_s"]),
            stop_s=float(row["stop_s"]) if row["stop_s"] else None,
            duration_s=float(row["duration_s"]),
            n_frames=int(row["n_frames"]),
            fps=float(row["fps"]),
            sample_rate=int(row["sample_rate"]),
            has_audio=_truth(row["has_audio"]),
            has_video=_truth(row["has_video"]),
            duration_estimated=_truth(row["duration_estimated"]),
            digest=_digest(row["digest"]),
        )
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{where}: {error}; run `dvc repro -f prepare`") from None
    stop_s = math.inf if clip.stop_s is None else clip.stop_s
    if not 0 <= clip.start_s < stop_s or clip.stop_s == math.inf:
        raise ManifestError(f"{where}: expected 0 <= start_s < stop_s, got {clip.start_s} and {clip.stop_s}")
    if not 0 < clip.duration_s < math.inf:
        raise ManifestError(f"{where}: expected duration_s above 0, got {clip.duration_s}")
    return clip


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"expected true or false, got {text!r}")
    return text == "true"


def _digest(text: str | None) -> str:
    if text is None:  # the line ends before it
        raise ValueError("expected a digest, got no cell")
    return text


def _refuse_doubles(path: Path, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for clip_id in ids:
        if clip_id in seen:
            raise ManifestError(f"{path}: clip_id {clip_id!r} stands twice; ids must be unique")
        seen.add(clip_id)


@dataclass(frozen=True)
class LabelledClips:
    """The tables that stage prepare wrote."""

    clips: Sequence[Clip]
    splits: Mapping[str, str]
    classes: Sequence[str]

    @classmethod
    def read(cls, folder: Path) -> "LabelledClips":
        """The tables in `folder`.

        Raises:
            ManifestError: if one is missing or wrong, or they don't fit together.
        """
        clips = read_manifest(folder / "manifest.csv")
        splits, classes = read_splits(folder / "splits.csv"), read_labels(folder / "labels.txt")
        known = set(classes)
        for clip in clips:
            if clip.clip_id not in splits or clip.label not in known:
                raise ManifestError(
                    f"{folder}: clip {clip.clip_id} lacks a split or a class; run `dvc repro -f prepare`"
                )
        return cls(clips, splits, classes)
