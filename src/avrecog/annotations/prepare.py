"""Stage prepare: from an annotation to the manifest, the splits, the class names and a report."""

import dataclasses
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.clip_ids import clip_ids
from avrecog.annotations.clips import (
    collect_remarks,
    keep_media,
    manifest_row,
    read_annotation,
    read_files,
    with_clean_names,
)
from avrecog.annotations.duplicates import end_s, first_copies, shared_passages
from avrecog.annotations.folder_source import DEEPER, PassedOver, passed_over
from avrecog.annotations.groups import with_groups
from avrecog.annotations.names import joined_spellings, look_alikes, shown
from avrecog.annotations.settings import DataConfig
from avrecog.annotations.sources import SOURCES
from avrecog.annotations.splits import check_groups, counts, make_splits
from avrecog.errors import ManifestError, MediaError
from avrecog.manifest import Clip, media_path, write_manifest, write_splits
from avrecog.media.read_files import MediaFile
from avrecog.runtime.files import atomic_path
from avrecog.tracking.outcome import Outcome, format_skipped, placed

log = logging.getLogger(__name__)


def prepare(data: DataConfig, out: Path) -> Outcome:
    """Write `manifest.csv`, `splits.csv`, `labels.txt`, `report.json` into `out`; for the demo its clips too.

    Every file is read: probed and digested, unless that is remembered. One that can't be read is skipped, counted and
    listed in the report; of a tree, what is no medium is passed over, counted and listed.

    Raises:
        ManifestError: if the annotation is wrong, two clips have one id, too many files can't be read, or none is a
            media file.
        LeakError: if clips of one group, or of one file and its copies, stand in two splits.
    """
    found = _find(data, out / "demo")
    clips, kept, skipped = _make_clips(found)
    if len(skipped) > data.max_skipped * len(found.rows):
        first = "\n  ".join(placed(item["where"], item["reason"]) for item in skipped[:20])
        raise ManifestError(f"{format_skipped(len(skipped), len(found.rows), data.max_skipped, 'read')}:\n  {first}")
    splits = make_splits([clip.clip_id for clip in clips], kept, data)
    check_groups(
        [clip.clip_id for clip in clips],
        shared_passages(clips, dict(zip(found.clip_ids, found.contents, strict=True))),
        [splits[clip.clip_id] for clip in clips],
        "the same clip, {group},",
    )
    labels = SOURCES[data.source].class_names(data, clips)
    _warn_of_look_alikes(labels)
    by_split = counts(splits, {clip.clip_id: clip.label for clip in clips})
    _check_labels(labels, by_split)
    report = _report(found, clips, kept) | {"skipped": skipped, "n_skipped": len(skipped), "splits": by_split}
    write_manifest(out / "manifest.csv", clips)
    write_splits(out / "splits.csv", splits)
    with atomic_path(out / "labels.txt") as temporary:
        temporary.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    with atomic_path(out / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    metrics: dict[str, float | None] = {
        "n_classes": len(labels),
        **{key: value for key, value in report.items() if key.startswith("n_")},
        **{f"n_{name}": len(report[name]) for name in ("ends_cut", "passed_over", "remarks")},
        **{f"n_{split}": count for split, count in sorted(Counter(splits.values()).items())},
    }
    return Outcome(
        _summary(metrics, report, out / "report.json"),
        metrics,
        files=[out / "report.json", out / "labels.txt"],
        manifest=out / "manifest.csv",
    )


@dataclass(frozen=True)
class _Found:
    """What the annotation says, and what its files hold."""

    rows: list[AnnotatedClip]  # with groups
    clip_ids: list[str]
    read: list[MediaFile | MediaError]
    contents: list[str]  # of each row, the first path with the same content
    others: list[PassedOver]  # files of a tree that are no media
    spellings: Mapping[str, Sequence[str]]  # label -> the names that were joined into it


def _find(data: DataConfig, demo_folder: Path) -> _Found:
    annotated = read_annotation(data, demo_folder)
    spellings = joined_spellings(row.label for row in annotated)
    annotated = [with_clean_names(row) for row in annotated]
    source = SOURCES[data.source]
    read = read_files(annotated, remember=not source.makes_clips)
    others: list[PassedOver] = []
    if source.is_a_tree:
        others = passed_over(media_path(data.annotation), Path(data.annotation), annotated)
        annotated, read = keep_media(data, annotated, read, others)
        deeper = [other.path for other in others if other.reason == DEEPER]
        if deeper:
            log.warning(
                "%d files lie below class folders, in folders of their own, and are no clips: %s",
                len(deeper),
                deeper[0],
            )
    contents = first_copies(annotated, read)
    rows = with_groups(annotated, contents)
    return _Found(rows, clip_ids(rows), read, contents, others, spellings)


def _make_clips(found: _Found) -> tuple[list[Clip], list[AnnotatedClip], list[dict[str, str]]]:
    """The clips and their rows; and where the others stand, and why they are skipped."""
    clips, kept, skipped = [], [], []
    for row, clip_id, read in zip(found.rows, found.clip_ids, found.read, strict=True):
        try:
            clips.append(manifest_row(row, clip_id, read))
            kept.append(row)
        except MediaError as error:
            skipped.append({"clip_id": shown(clip_id), "where": row.where, "reason": str(error)})
    return clips, kept, skipped


def _report(found: _Found, clips: Sequence[Clip], rows: Sequence[AnnotatedClip]) -> dict[str, Any]:
    """What is to be told of the clips and their files."""
    pairs = zip(rows, clips, strict=True)
    return {
        "n_clips": len(clips),
        "n_missing": sum(not os.path.exists(media_path(row.path)) for row in found.rows),
        "ends_cut": [clip.clip_id for row, clip in pairs if (row.stop_s or 0) > end_s(clip) + 0.1],
        "passed_over": [dataclasses.asdict(other) for other in found.others],
        "remarks": collect_remarks(found.rows, found.read),
        "spellings": {label: [ascii(name) for name in names] for label, names in found.spellings.items()},
        "n_silent": sum(not clip.has_audio for clip in clips),
        "n_pictureless": sum(not clip.has_video for clip in clips),
        "hours": round(sum(clip.duration_s for clip in clips) / 3600, 4),
    }


def _summary(metrics: Mapping[str, float | None], report: Mapping[str, Any], path: Path) -> str:
    summary = (
        f"{metrics['n_clips']:,} clips of {metrics['n_classes']} classes: {metrics['n_train']:,} train, "
        f"{metrics['n_val']:,} val, {metrics['n_test']:,} test; {metrics['n_skipped']} skipped, {metrics['n_silent']} "
        f"without sound, {metrics['n_pictureless']} without picture"
    )
    if report["ends_cut"]:
        summary += f"; {metrics['n_ends_cut']} end where their file does, before the annotated end, see {path}"
    if report["passed_over"]:
        summary += f"; {metrics['n_passed_over']} other files passed over, see {path}"
    if report["remarks"]:
        file, remarks = next(iter(report["remarks"].items()))
        summary += f"; {metrics['n_remarks']} files with remarks ({file}: {'; '.join(remarks)}), see {path}"
    if report["spellings"]:
        summary += f"; spellings joined: {_format_spellings(report['spellings'])}"
    return summary


def _format_spellings(spellings: Mapping[str, Sequence[str]]) -> str:
    """The first of them, escaped, so that what differs can be seen."""
    parts = [f"{' and '.join(names)} as {label}" for label, names in list(spellings.items())[:5]]
    return ", ".join(parts) + (f" and {len(spellings) - 5} more" if len(spellings) > 5 else "")


def _warn_of_look_alikes(labels: Sequence[str]) -> None:
    alike = look_alikes(labels)
    if alike:
        pairs = "; ".join(" and ".join(ascii(label) for label in group) for group in alike[:10])
        log.warning("classes look alike and are told apart nevertheless: %s", pairs)


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
