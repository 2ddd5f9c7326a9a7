"""Stage prepare: from an annotation to the manifest, the splits, the class names and a report."""

import dataclasses
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from avrecog.annotations.clip_ids import clip_ids
from avrecog.annotations.clips import (
    class_names,
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
from avrecog.annotations.splits import check_groups, counts, make_splits
from avrecog.errors import ManifestError, MediaError
from avrecog.manifest import media_path, write_manifest, write_splits
from avrecog.runtime.files import atomic_path
from avrecog.tracking.outcome import Outcome, placed, said_skipped

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
    annotated = read_annotation(data, out / "demo")
    spellings = joined_spellings(row.label for row in annotated)
    annotated = [with_clean_names(row) for row in annotated]
    read = read_files(annotated, remember=data.source != "demo")
    others: list[PassedOver] = []
    if data.source == "folder":
        others = passed_over(media_path(data.annotation), Path(data.annotation), annotated)
        annotated, read = keep_media(data, annotated, read, others)
    contents = first_copies(annotated, read)
    rows = with_groups(annotated, contents)
    clips, kept, skipped = [], [], []
    ids = clip_ids(rows)
    for row, clip_id, found in zip(rows, ids, read, strict=True):
        try:
            clips.append(manifest_row(row, clip_id, found))
            kept.append(row)
        except MediaError as error:
            skipped.append({"clip_id": shown(clip_id), "where": row.where, "reason": str(error)})
    ends_cut = [clip.clip_id for row, clip in zip(kept, clips, strict=True) if (row.stop_s or 0) > end_s(clip) + 0.1]
    n_missing = sum(not os.path.exists(media_path(row.path)) for row in annotated)
    report = {"n_clips": len(clips), "n_skipped": len(skipped), "n_missing": n_missing, "skipped": skipped}
    report["ends_cut"] = ends_cut  # annotated to end after their file does
    report["passed_over"] = [dataclasses.asdict(other) for other in others]
    deeper = [other.path for other in others if other.reason == DEEPER]
    if deeper:
        log.warning(
            "%d files lie below class folders, in folders of their own, and are no clips: %s", len(deeper), deeper[0]
        )
    report["remarks"] = remarks = collect_remarks(annotated, read)
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
        shared_passages(clips, file_of),
        [splits[clip.clip_id] for clip in clips],
        "the same clip, {group},",
    )
    labels = class_names(data, clips)
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


def _said_spellings(spellings: Mapping[str, Sequence[str]]) -> str:
    """The first of them, escaped, so that what differs can be seen."""
    said = [f"{' and '.join(map(ascii, names))} as {label}" for label, names in list(spellings.items())[:5]]
    return ", ".join(said) + (f" and {len(spellings) - 5} more" if len(spellings) > 5 else "")


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
