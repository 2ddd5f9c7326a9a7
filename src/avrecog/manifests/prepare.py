"""Stage prepare: from an annotation to the manifest, the splits, the class names and a report."""

import dataclasses
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict

from avrecog.atomic import atomic_path
from avrecog.config import Fraction, Text, WholeNumber, section
from avrecog.errors import ConfigError, ManifestError, MediaError, NotMediaError
from avrecog.manifests.annotated import AnnotatedClip
from avrecog.manifests.clip import Clip, media_path, write_manifest, write_splits
from avrecog.manifests.clip_ids import clip_ids
from avrecog.manifests.csv_file import read_csv
from avrecog.manifests.demo import read_demo
from avrecog.manifests.folder import DEEPER, PassedOver, passed_over, read_folder
from avrecog.manifests.groups import with_groups
from avrecog.manifests.kinetics import KineticsConfig, read_kinetics, read_label_map
from avrecog.manifests.media_files import MediaFile, read_media
from avrecog.manifests.names import cleaned, joined_spellings, look_alikes, name_problem, shown
from avrecog.manifests.splits import check_groups, counts, make_splits
from avrecog.outcome import Outcome, placed, said_skipped

log = logging.getLogger(__name__)

SHORTEST_S = 0.01  # a span shorter than this holds nothing that a front end could frame

Part = Annotated[float, Strict(), Field(gt=0, lt=1)]


@section
class DataConfig:
    """Section `data` in params.yaml: where the clips are, and how they are split."""

    source: Literal["demo", "csv", "folder", "kinetics"]
    annotation: (
        Text  # demo: its YAML; csv: the file; folder: the root; kinetics: the lists' folder; counts from the project
    )
    max_skipped: Fraction = 0.01  # of the clips may be unreadable; above, the stage fails with the list
    test_fold: WholeNumber | None = None  # this fold of the annotation is the test
    val_fraction: Part = 0.2  # of train, where the annotation gives no val
    test_fraction: Part = 0.2  # of all, where the annotation gives no test
    seed: WholeNumber = 0  # of the cuts
    kinetics: KineticsConfig | None = None  # source kinetics: its lists, and where the media lie

    def __post_init__(self) -> None:
        if (self.kinetics is not None) != (self.source == "kinetics"):
            expected = "the lists and the roots of the media" if self.kinetics is None else "null"
            raise ConfigError(f"kinetics: expected {expected} with source {self.source}")
        if self.test_fold is not None and self.source != "csv":
            raise ConfigError(f"test_fold: only source csv has folds, got source {self.source}; set it to null")


def prepare(data: DataConfig, out: Path) -> Outcome:
    """Write `manifest.csv`, `splits.csv`, `labels.txt`, `report.json` into `out`; for the demo its clips too.

    Every file is read: probed and digested, unless that is remembered. One that can't be read is skipped, counted and
    listed in the report; of a tree, what is no medium is passed over, counted and listed.

    Raises:
        ManifestError: if the annotation is wrong, two clips have one id, too many files can't be read, or none is a
            media file.
        LeakError: if clips of one group, or of one file and its copies, stand in two splits.
    """
    annotated = _read_annotation(data, out / "demo")
    spellings = joined_spellings(row.label for row in annotated)
    annotated = [with_clean_names(row) for row in annotated]
    read = _read_files(annotated, remember=data.source != "demo")
    others: list[PassedOver] = []
    if data.source == "folder":
        others = passed_over(media_path(data.annotation), Path(data.annotation), annotated)
        annotated, read = _without_others(data, annotated, read, others)
    contents = _contents(annotated, read)
    rows = with_groups(annotated, contents)
    clips, kept, skipped = [], [], []
    ids = clip_ids(rows)
    for row, clip_id, found in zip(rows, ids, read, strict=True):
        try:
            clips.append(manifest_row(row, clip_id, found))
            kept.append(row)
        except MediaError as error:
            skipped.append({"clip_id": shown(clip_id), "where": row.where, "reason": str(error)})
    ends_cut = [clip.clip_id for row, clip in zip(kept, clips, strict=True) if (row.stop_s or 0) > _stop_s(clip) + 0.1]
    n_missing = sum(not os.path.exists(media_path(row.path)) for row in annotated)
    report = {"n_clips": len(clips), "n_skipped": len(skipped), "n_missing": n_missing, "skipped": skipped}
    report["ends_cut"] = ends_cut  # annotated to end after their file does
    report["passed_over"] = [dataclasses.asdict(other) for other in others]
    deeper = [other.path for other in others if other.reason == DEEPER]
    if deeper:
        log.warning(
            "%d files lie below class folders, in folders of their own, and are no clips: %s", len(deeper), deeper[0]
        )
    report["remarks"] = remarks = _remarks(annotated, read)
    report["spellings"] = {label: [ascii(name) for name in names] for label, names in spellings.items()}
    if len(skipped) > data.max_skipped * len(rows):
        first = "\n  ".join(placed(item["where"], item["reason"]) for item in skipped[:20])
        raise ManifestError(f"{said_skipped(len(skipped), len(rows), data.max_skipped, 'read')}:\n  {first}")
    splits = make_splits(
        [clip.clip_id for clip in clips],
        [clip.label for clip in clips],
        [clip.group for clip in clips],
        [row.split for row in kept],
        [row.fold for row in kept],
        data.test_fold,
        data.val_fraction,
        data.test_fraction,
        data.seed,
    )
    file_of = dict(zip(ids, contents, strict=True))
    check_groups(
        [clip.clip_id for clip in clips],
        _passages(clips, file_of),
        [splits[clip.clip_id] for clip in clips],
        "the same clip, {group},",
    )
    labels = _class_names(data, clips)
    alike = look_alikes(labels)
    if alike:
        pairs = "; ".join(" and ".join(ascii(label) for label in group) for group in alike[:10])
        log.warning("classes look alike and are told apart nevertheless: %s", pairs)
    by_split = counts(splits, {clip.clip_id: clip.label for clip in clips})
    _check_labels(labels, by_split)
    n_silent = sum(not clip.has_audio for clip in clips)
    n_pictureless = sum(not clip.has_video for clip in clips)
    report |= {"n_silent": n_silent, "n_pictureless": n_pictureless, "splits": by_split}
    report["hours"] = round(sum(clip.duration_s for clip in clips) / 3600, 4)
    write_manifest(out / "manifest.csv", clips)
    write_splits(out / "splits.csv", splits)
    with atomic_path(out / "labels.txt") as temporary:
        temporary.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    with atomic_path(out / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sizes = Counter(splits.values())
    summary = (
        f"{len(clips):,} clips of {len(labels)} classes: {sizes['train']:,} train, {sizes['val']:,} val, "
        f"{sizes['test']:,} test; {len(skipped)} skipped, {n_silent} without sound, {n_pictureless} without picture"
    )
    if ends_cut:
        summary += f"; {len(ends_cut)} end where their file does, before the annotated end, see {out}/report.json"
    if others:
        summary += f"; {len(others)} other files passed over, see {out}/report.json"
    if remarks:
        path, said = next(iter(remarks.items()))
        summary += f"; {len(remarks)} files with remarks ({path}: {'; '.join(said)}), see {out}/report.json"
    if spellings:
        summary += f"; spellings joined: {_said_spellings(spellings)}"
    metrics: dict[str, float | None] = {
        "n_clips": len(clips),
        "n_classes": len(labels),
        "n_skipped": len(skipped),
        "n_missing": n_missing,
        "n_ends_cut": len(ends_cut),
        "n_passed_over": len(others),
        "n_remarks": len(remarks),
        "n_silent": n_silent,
        "n_pictureless": n_pictureless,
        **{f"n_{split}": count for split, count in sorted(sizes.items())},
    }
    return Outcome(summary, metrics, files=[out / "report.json", out / "labels.txt"], manifest=out / "manifest.csv")


def _read_annotation(data: DataConfig, demo_folder: Path) -> list[AnnotatedClip]:
    annotation = media_path(data.annotation)
    demo_folder.mkdir(parents=True, exist_ok=True)  # an output of the stage
    if data.source != "demo":  # dvc warns of an empty output, each time
        (demo_folder / "none.txt").write_text(
            f"No clips of the demo: data.source is {data.source}.\n", encoding="utf-8"
        )
    readers: dict[str, Callable[[], list[AnnotatedClip]]] = {
        "demo": lambda: read_demo(annotation, demo_folder),
        "csv": lambda: read_csv(annotation, Path(data.annotation).parent),
        "folder": lambda: read_folder(annotation, Path(data.annotation)),
        "kinetics": lambda: read_kinetics(annotation, _kinetics(data)),
    }
    return readers[data.source]()


def _class_names(data: DataConfig, clips: Sequence[Clip]) -> list[str]:
    """In the order of their indices: the label map's, so that weights and scores of others fit; else sorted."""
    if data.source == "kinetics":
        return read_label_map(media_path(data.annotation), _kinetics(data))
    return sorted({clip.label for clip in clips})


def _kinetics(data: DataConfig) -> KineticsConfig:
    assert data.kinetics is not None, "the validator sees to it"
    return data.kinetics


def _contents(rows: Sequence[AnnotatedClip], read: Sequence[MediaFile | MediaError]) -> list[str]:
    """For each row the path of the first one with the same content: the same file, or a copy, byte for byte."""
    first: dict[str, str] = {}
    return [
        first.setdefault(found.digest, row.path) if isinstance(found, MediaFile) else row.path
        for row, found in zip(rows, read, strict=True)
    ]


def _passages(clips: Sequence[Clip], file_of: Mapping[str, str]) -> list[str]:
    """For each clip the passage of its file that it shares with the clips that overlap it: file and begin."""
    names: dict[str, str] = {}
    file, passage, stop_s = "", "", 0.0
    for clip in sorted(clips, key=lambda clip: (file_of[clip.clip_id], clip.start_s)):
        if file_of[clip.clip_id] != file or clip.start_s >= stop_s:
            file, stop_s = file_of[clip.clip_id], 0.0
            passage = f"{file} from {clip.start_s:g} s"
        stop_s = max(stop_s, _stop_s(clip))
        names[clip.clip_id] = passage
    return [names[clip.clip_id] for clip in clips]


def _stop_s(clip: Clip) -> float:
    return math.inf if clip.stop_s is None else clip.stop_s


def with_clean_names(row: AnnotatedClip) -> AnnotatedClip:
    """The row, its label and its group as the tables have them.

    Raises:
        ManifestError: if nothing is left of the label.
    """
    label = cleaned(row.label)
    if not label:
        raise ManifestError(f"{row.where}: expected a label that can be seen, got {ascii(row.label)}")
    return dataclasses.replace(row, label=label, group=cleaned(row.group) or None if row.group else None)


def _said_spellings(spellings: Mapping[str, Sequence[str]]) -> str:
    """The first of them, escaped, so that what differs can be seen."""
    said = [f"{' and '.join(map(ascii, names))} as {label}" for label, names in list(spellings.items())[:5]]
    return ", ".join(said) + (f" and {len(spellings) - 5} more" if len(spellings) > 5 else "")


def _read_files(rows: Sequence[AnnotatedClip], remember: bool) -> list[MediaFile | MediaError]:
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


def _remarks(rows: Sequence[AnnotatedClip], read: Sequence[MediaFile | MediaError]) -> dict[str, list[str]]:
    """`path -> what was found odd in the file`, such as a track that can't be decoded, and is no reason to skip it."""
    pairs = zip(rows, read, strict=True)
    return {row.path: list(each.probe.notes) for row, each in pairs if isinstance(each, MediaFile) and each.probe.notes}


def _without_others(
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
    if duration_s < SHORTEST_S:
        if stop_s is not None or not found.duration_estimated:
            end_s = start_s + duration_s
            raise MediaError(f"{row.path}: expected {SHORTEST_S:g} s at least, got {start_s:g} to {end_s:g} s")
        duration_s = SHORTEST_S
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


def _check_labels(labels: Sequence[str], by_split: dict[str, dict[str, int]]) -> None:
    if len(labels) < 2:
        raise ManifestError(
            f"expected two classes at least, got {len(labels)} ({', '.join(labels)}); add clips of another class"
        )
    unknown = {label for split in ("val", "test") for label in by_split[split]} - set(by_split["train"])
    if unknown:
        first = sorted(unknown)[0]
        raise ManifestError(
            f"class {first!r} stands in val or test and never in train; correct the label or add training clips"
        )
    for split in ("train", "val", "test"):
        absent = sorted(set(labels) - set(by_split[split]))
        if absent:
            log.warning("split %s has no clip of %d classes: %s", split, len(absent), ", ".join(absent[:10]))
