"""Stage prepare: from an annotation to the manifest, the splits, the class names and a report."""

import dataclasses
import hashlib
import json
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict
from tqdm import tqdm

from avrecog.atomic import atomic_path
from avrecog.config import Fraction, Text, WholeNumber, section
from avrecog.errors import AvrecogError, ConfigError, ManifestError, MediaError
from avrecog.manifests.annotated import AnnotatedClip
from avrecog.manifests.clip import Clip, media_path, write_manifest, write_splits
from avrecog.manifests.csv_file import read_csv
from avrecog.manifests.demo import read_demo
from avrecog.manifests.folder import read_folder
from avrecog.manifests.kinetics import KineticsConfig, read_kinetics, read_label_map
from avrecog.manifests.splits import check_groups, counts, make_splits
from avrecog.media.container import Probe, probe
from avrecog.outcome import Outcome
from avrecog.workers import n_processors

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

    Every file is probed. One that can't be read is skipped, counted and listed in the report.

    Raises:
        ManifestError: if the annotation is wrong, two clips have one id, or too many files can't be read.
        LeakError: if clips of one group, or of one file and its copies, stand in two splits.
    """
    annotated = _read_annotation(data, out / "demo")
    files = [media_path(row.path) for row in annotated]
    probes = _probe_all(files)
    contents = _contents([row.path for row in annotated], files)
    rows = _with_groups(annotated, contents)
    clips, kept, skipped = [], [], []
    ids = _clip_ids(rows)
    for row, clip_id, found in zip(rows, ids, probes, strict=True):
        try:
            clips.append(_clip(row, clip_id, found))
            kept.append(row)
        except MediaError as error:
            skipped.append({"clip_id": clip_id, "where": row.where, "reason": str(error)})
    ends_cut = [
        clip.clip_id
        for row, clip in zip(kept, clips, strict=True)
        if (row.stop_s or 0) > (clip.stop_s or math.inf) + 0.1
    ]
    n_missing = sum(not file.exists() for file in files)
    report = {"n_clips": len(clips), "n_skipped": len(skipped), "n_missing": n_missing, "skipped": skipped}
    report["ends_cut"] = ends_cut  # annotated to end after their file does
    if len(skipped) > data.max_skipped * len(rows):
        shown = "\n  ".join(f"{item['where']}: {item['reason']}" for item in skipped[:20])
        raise ManifestError(
            f"{len(skipped)} of {len(rows)} clips can't be read, more than data.max_skipped ({data.max_skipped:g}) "
            f"allows:\n  {shown}"
        )
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
    metrics: dict[str, float | None] = {
        "n_clips": len(clips),
        "n_classes": len(labels),
        "n_skipped": len(skipped),
        "n_missing": n_missing,
        "n_ends_cut": len(ends_cut),
        "n_silent": n_silent,
        "n_pictureless": n_pictureless,
        **{f"n_{split}": count for split, count in sorted(sizes.items())},
    }
    return Outcome(summary, metrics, files=[out / "report.json", out / "labels.txt"], manifest=out / "manifest.csv")


def _read_annotation(data: DataConfig, demo_folder: Path) -> list[AnnotatedClip]:
    annotation = media_path(data.annotation)
    demo_folder.mkdir(parents=True, exist_ok=True)  # an output of the stage, empty where the clips come from elsewhere
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


def _with_groups(rows: Sequence[AnnotatedClip], contents: Sequence[str]) -> list[AnnotatedClip]:
    """The rows, those without a group in one of their own file's, however its path is written or it was copied."""
    return [
        row if row.group else dataclasses.replace(row, group=content)
        for row, content in zip(rows, contents, strict=True)
    ]


def _contents(paths: Sequence[str], files: Sequence[Path]) -> list[str]:
    """For each path the first one of the same file: under another name, or a copy, byte for byte."""
    real = {path: os.path.realpath(file) for path, file in dict(zip(paths, files, strict=True)).items()}
    groups = [list(dict.fromkeys(real.values()))]
    with ThreadPoolExecutor(n_processors()) as pool:
        for read in (_size, _digest_of_head, _digest):  # whole files are read only where the first bytes are equal
            finer: dict[tuple[int, str], list[str]] = defaultdict(list)
            for number, group in enumerate(groups):
                blocks = [group[begin : begin + 64] for begin in range(0, len(group), 64)]
                for block, values in zip(blocks, pool.map(partial(_keys_of, read), blocks), strict=True):
                    for name, value in zip(block, values, strict=True):
                        finer[number, value].append(name)
            groups = [group for group in finer.values() if len(group) > 1]
    original = {name: group[0] for group in groups for name in group}
    first: dict[str, str] = {}
    return [first.setdefault(original.get(real[path], real[path]), path) for path in paths]


def _size(path: str) -> str:
    return str(os.stat(path).st_size)


def _digest_of_head(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(2**16)).hexdigest()


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keys_of(read: Callable[[str], str], paths: Sequence[str]) -> list[str]:
    return [_key_of(read, path) for path in paths]


def _key_of(read: Callable[[str], str], path: str) -> str:
    try:
        return read(path)
    except OSError:  # the probe says so; it is like no other file
        return path


def _passages(clips: Sequence[Clip], file_of: Mapping[str, str]) -> list[str]:
    """For each clip the passage of its file that it shares with the clips that overlap it: file and begin."""
    names: dict[str, str] = {}
    file, passage, stop_s = "", "", 0.0
    for clip in sorted(clips, key=lambda clip: (file_of[clip.clip_id], clip.start_s)):
        if file_of[clip.clip_id] != file or clip.start_s >= stop_s:
            file, stop_s = file_of[clip.clip_id], 0.0
            passage = f"{file} from {clip.start_s:g} s"
        stop_s = max(stop_s, math.inf if clip.stop_s is None else clip.stop_s)
        names[clip.clip_id] = passage
    return [names[clip.clip_id] for clip in clips]


def _probe_all(paths: Sequence[Path]) -> list[Probe | MediaError]:
    """What each file holds, or why it can't be read; each file is opened once however many clips it has."""
    distinct = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(n_processors()) as pool:  # FFmpeg works without Python's lock
        found = list(tqdm(pool.map(_probe, distinct), total=len(distinct), unit="file", desc="probe", mininterval=1))
    by_path = dict(zip(distinct, found, strict=True))
    return [by_path[path] for path in paths]


def _probe(path: Path) -> Probe | MediaError:
    try:
        return probe(path)
    except MediaError as error:
        return error


def _clip(row: AnnotatedClip, clip_id: str, found: Probe | MediaError) -> Clip:
    if isinstance(found, AvrecogError):
        raise found
    start_s = row.start_s or 0.0
    stop_s = found.duration_s if row.stop_s is None else min(row.stop_s, found.duration_s)
    if start_s >= found.duration_s:
        raise MediaError(f"{row.path}: starts at {start_s:g} s, but the file lasts {found.duration_s:g} s")
    if stop_s - start_s < SHORTEST_S:
        raise MediaError(f"{row.path}: expected {SHORTEST_S:g} s at least, got {start_s:g} to {stop_s:g} s")
    return Clip(
        clip_id=clip_id,
        path=row.path,
        label=row.label,
        group=str(row.group),
        fold=row.fold,
        start_s=round(start_s, 6),
        stop_s=round(stop_s, 6),
        duration_s=round(stop_s - start_s, 6),
        n_frames=round((stop_s - start_s) * found.fps) if found.has_video else row.n_frames or 0,
        fps=found.fps,
        sample_rate=found.sample_rate,
        has_audio=found.has_audio,
        has_video=found.has_video,
    )


def _clip_ids(rows: Sequence[AnnotatedClip]) -> list[str]:
    """The annotation's ids, or the path below the folder that all share, with the times where a file has many clips.

    Raises:
        ManifestError: if an id stands twice.
    """
    paths = [os.path.abspath(row.path) for row in rows]  # an annotation may hold relative and absolute ones
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    ids = []
    for row, path in zip(rows, paths, strict=True):
        name = row.clip_id or os.path.splitext(path[len(shared) :].lstrip(os.sep))[0]
        if row.clip_id is None and (row.start_s is not None or row.stop_s is not None):
            name += f"@{row.start_s or 0:g}-{'' if row.stop_s is None else f'{row.stop_s:g}'}"
        ids.append(name)
    doubled = [clip_id for clip_id, count in Counter(ids).items() if count > 1]
    if doubled:
        first = [row.where for row, clip_id in zip(rows, ids, strict=True) if clip_id == doubled[0]]
        raise ManifestError(
            f"{len(doubled)} clip ids stand more than once, the first is {doubled[0]!r} ({' and '.join(first[:3])}); "
            f"drop a row, or give the rows a clip_id each"
        )
    return ids


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
