"""The command `avrecog data`: own clips into params.yaml, after a look at them."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.clips import manifest_row, with_clean_names
from avrecog.annotations.folder_source import DEEPER, passed_over
from avrecog.annotations.groups import with_groups
from avrecog.annotations.settings import DataConfig
from avrecog.annotations.source_kind import EXPECTED, DataSource, recognise
from avrecog.annotations.sources import SOURCES, DataSection
from avrecog.annotations.splits import make_splits
from avrecog.config import PARAMS, plain, read_yaml, validate
from avrecog.errors import ConfigError, ManifestError, MediaError, NotMediaError
from avrecog.experiments.params_file import DEFAULT, FOLDER, merge_yaml_text, replace_params
from avrecog.manifest import media_path
from avrecog.media.container import Probe
from avrecog.media.read_files import MediaFile, read_media
from avrecog.models.base import ModelConfig
from avrecog.models.registry import model_section
from avrecog.pipeline import PipelineConfig
from avrecog.tracking.outcome import enough_skipped, placed

MAX_PROBED = 500  # files; of more a sample is looked at
FEW = 100  # clips a class: below, the luck of one test split outweighs most of what one tries
UNEVEN = 10  # times as many clips in the largest class as in the smallest
SHOWN = 5
SOUND, PICTURE = "audio", "video"  # sections of params.yaml
WORDS = {SOUND: "sound", PICTURE: "a picture"}


@dataclass(frozen=True)
class Looked:
    """What the files hold, all of them or a sample."""

    source: DataSource
    rows: Sequence[AnnotatedClip]  # without those that are known to be unreadable, or no media
    seen: Sequence[tuple[AnnotatedClip, Probe]]  # the rows whose files were probed
    unreadable: Sequence[tuple[AnnotatedClip, str]]  # and the reason
    n_others: int  # rows of a tree that are no media
    deeper: Sequence[str]  # files of a tree below its class folders
    n_files: int
    n_probed: int

    @property
    def modalities(self) -> set[str]:
        """Sections of params.yaml for what some clip has."""
        return {name for name in WORDS if self.n_with(name)}

    @property
    def is_sample(self) -> bool:
        """Whether there are files that nobody looked at."""
        return self.n_probed < self.n_files

    def n_with(self, modality: str) -> int:
        """How many of the clips looked at have sound (`audio`) or a picture (`video`)."""
        return sum(_has(found, modality) for _, found in self.seen)


def _has(found: Probe, modality: str) -> bool:
    return found.has_audio if modality == SOUND else found.has_video


def use_data(path: Path, media: Sequence[Path]) -> str:
    """Write the source of the clips into params.yaml, and without which the pipeline can't run; what there is to say.

    Args:
        path: a CSV, a tree of classes, or a folder of Kinetics' lists.
        media: the folders of the media, where it is Kinetics' lists.

    Raises:
        ConfigError: if the path is none of these, or params.yaml isn't there or has a problem.
        ManifestError: if the annotation is wrong, can't be split, or no clip can be read.
    """
    params = read_yaml(PARAMS)
    source = recognise(path, media)
    looked = _look(dataclasses.replace(source, rows=[with_clean_names(row) for row in source.rows]))
    changes, reasons = _changes(params, looked)
    text = merge_yaml_text(PARAMS.read_text(encoding="utf-8"), changes, "avrecog data")
    after = YAML(typ="safe", pure=True).load(text)
    data = validate(DataSection, after["data"], "data")
    lines = [*_description(looked, _split(data, looked)), *(f"set {reason}" for reason in reasons)]
    lines += [f"advice: {line}" for line in _advice(after, data, looked)]
    lines += [replace_params(text) or f"{PARAMS} says so already", _next(data, looked)]
    return "\n".join(lines)


def _next(data: DataConfig, looked: Looked) -> str:
    """What to type now."""
    n_read = len(looked.seen) + len(looked.unreadable)
    if len(looked.unreadable) > data.max_skipped * n_read:
        enough = enough_skipped(len(looked.unreadable), n_read)
        return f"next: repair or drop what can't be read, or set data.max_skipped: {enough:g}; then dvc repro"
    return "next: dvc repro"


def _look(source: DataSource) -> Looked:
    """Probe the files, or some of them.

    Raises:
        ManifestError: if none of them can be read.
    """
    files = list(dict.fromkeys(row.path for row in source.rows))
    probed = files
    if len(files) > MAX_PROBED:
        probed = [files[index] for index in np.random.default_rng(0).permutation(len(files))[:MAX_PROBED]]
    found = dict(zip(probed, read_media([media_path(path) for path in probed]), strict=True))
    seen: list[tuple[AnnotatedClip, Probe]] = []
    unreadable, others = [], []
    for row in source.rows:
        result = found.get(row.path)
        if isinstance(result, NotMediaError) and SOURCES[source.source].is_a_tree:
            others.append(row)
        elif result is not None:
            try:
                manifest_row(row, "", result)
            except MediaError as error:
                unreadable.append((row, str(error)))
            else:
                assert isinstance(result, MediaFile)
                seen.append((row, result.probe))
    if not seen:
        first = "".join(f"\n  {placed(row.where, reason)}" for row, reason in unreadable[:SHOWN])
        raise ManifestError(f"{source.annotation}: none of {len(probed):,} files is readable media; {EXPECTED}{first}")
    out = {id(row) for row in [*others, *(row for row, _ in unreadable)]}
    rows = [row for row in source.rows if id(row) not in out]
    return Looked(source, rows, seen, unreadable, len(others), _deeper(source), len(files), len(probed))


def _deeper(source: DataSource) -> list[str]:
    if not SOURCES[source.source].is_a_tree:
        return []
    rest = passed_over(media_path(source.annotation), Path(source.annotation), source.rows)
    return [other.path for other in rest if other.reason == DEEPER]


def _changes(params: Mapping[str, Any], looked: Looked) -> tuple[dict[str, Any], list[str]]:
    """What params.yaml must say, as a recipe has it, and why, beyond where the clips are.

    Raises:
        ConfigError: if the models of params.yaml have a problem, or none suits the clips.
    """
    source = looked.source
    data = {"source": source.source, "annotation": source.annotation, "kinetics": plain(source.kinetics)}
    changes: dict[str, Any] = {"data": data}
    reasons = []
    test_fold = _mapping(params, "data").get("test_fold")
    if test_fold is not None and test_fold not in {row.fold for row in source.rows}:
        data["test_fold"] = None
        reasons.append(f"data.test_fold: null, since no clip has fold {test_fold}")
    default = read_yaml(FOLDER / f"{DEFAULT}.yaml")
    models = {**default["models"], **_mapping(params, "models")}
    in_use = validate(PipelineConfig, params.get("pipeline"), "pipeline").models
    suitable = [name for name in in_use if _needs(models, name) <= looked.modalities]
    if not suitable:
        suitable = [name for name in default["pipeline"]["models"] if _needs(models, name) <= looked.modalities]
    wanted = {section for name in suitable for section in _needs(models, name)}
    lacking = [WORDS[name] for name in WORDS if name not in looked.modalities]
    reason = f"since no clip {'looked at ' if looked.is_sample else ''}has {' or '.join(lacking)}"
    if suitable != in_use:
        changes["pipeline"] = {"models": suitable}
        reasons.append(f"pipeline.models: [{', '.join(suitable)}], {reason}")
    changes["models"] = {name: models[name] for name in suitable if name not in params["models"]}
    for section in WORDS:
        if section not in looked.modalities and params.get(section) is not None:
            changes[section] = None
            reasons.append(f"{section}: null, {reason}")
        elif section in wanted and params.get(section) is None:
            changes[section] = default[section]
            reasons.append(f"{section} as in {FOLDER}/{DEFAULT}.yaml, since {' and '.join(suitable)} needs it")
    return changes, reasons


def _mapping(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of params.yaml.

    Raises:
        ConfigError: if it is missing, or none.
    """
    section = params.get(name)
    if not isinstance(section, Mapping):
        raise ConfigError(f"{PARAMS}: {name}: expected a mapping, got {'nothing' if section is None else section!r}")
    return section


def _needs(models: Mapping[str, Any], name: str) -> set[str]:
    """The sections that a model sees and hears by.

    Raises:
        ConfigError: if there is no such model, or its section has a problem.
    """
    if name not in models:
        raise ConfigError(f"pipeline.models: {name} is no section below models ({', '.join(models)})")
    config: ModelConfig = validate(model_section(), models[name], f"models.{name}")
    return set(config.input().modalities)


def _split(data: DataConfig, looked: Looked) -> Counter[str]:
    """How many clips stage prepare will put into each split, if what nobody looked at can be read.

    Raises:
        ManifestError: if they can't be split, or are of one class.
        LeakError: if clips that belong together are annotated to be in two.
    """
    rows = with_groups(looked.rows, [row.path for row in looked.rows])
    labels = {row.label for row in rows}
    if len(labels) < 2:
        raise ManifestError(
            f"{data.annotation}: expected two classes at least, got {len(labels)} ({', '.join(labels)})"
        )
    return Counter(make_splits([row.where for row in rows], rows, data).values())


def _description(looked: Looked, splits: Mapping[str, int]) -> Iterator[str]:
    """What there is: for people."""
    source, n_seen = looked.source, len(looked.seen)
    kinds = {"csv": "a CSV", "folder": "a tree of class folders", "kinetics": "Kinetics' lists"}
    sizes = Counter(row.label for row in looked.rows)
    least, most = min(sizes, key=lambda label: sizes[label]), max(sizes, key=lambda label: sizes[label])
    range_ = (
        f"{sizes[least]:,}"
        if sizes[least] == sizes[most]
        else f"{sizes[least]:,} ({least}) to {sizes[most]:,} ({most})"
    )
    yield (
        f"{source.annotation}: {kinds[source.source]}; {len(looked.rows):,} clips of {len(sizes):,} classes, {range_} "
        f"a class, in {looked.n_files:,} files"
    )
    if looked.is_sample:
        yield f"of the files {looked.n_probed:,} were looked at, drawn by chance:"
    mean_s = statistics.fmean(_duration_s(row, found) for row, found in looked.seen)
    hours = mean_s * len(looked.rows) / 3600
    about = "about " if looked.is_sample else ""
    yield (
        f"{looked.n_with(SOUND):,} of {n_seen:,} clips have sound, {looked.n_with(PICTURE):,} have a picture; "
        f"{about}{hours:.2g} hours, {mean_s:.2g} s a clip"
    )
    if looked.n_others:
        yield f"{looked.n_others:,} files are no media and will be passed over"
    if looked.deeper:
        yield (
            f"{len(looked.deeper):,} files lie below class folders, in folders of their own, and will be no clips: "
            f"move them up into the class folder ({', '.join(looked.deeper[:SHOWN])})"
        )
    if looked.unreadable:
        yield f"{len(looked.unreadable):,} clips can't be read:"
        yield from (f"  {placed(row.where, reason)}" for row, reason in looked.unreadable[:SHOWN])
    yield f"splits: {splits['train']:,} train, {splits['val']:,} val, {splits['test']:,} test"


def _duration_s(row: AnnotatedClip, found: Probe) -> float:
    stop_s = found.duration_s if row.stop_s is None else min(row.stop_s, found.duration_s)
    return max(0.0, stop_s - (row.start_s or 0.0))


def _advice(params: Mapping[str, Any], data: DataConfig, looked: Looked) -> Iterator[str]:
    """What isn't needed for a first run, and what one would do."""
    models = params["pipeline"]["models"]
    used = {section for name in models for section in _needs(params["models"], name)}
    for section in sorted(looked.modalities - used):
        yield (
            f"no model of pipeline.models uses {WORDS[section]}, which {looked.n_with(section):,} clips have; `avrecog "
            f"recipe {DEFAULT}` and this command again give sound and picture a model each"
        )
    sizes = Counter(row.label for row in looked.rows)
    for section in sorted(looked.modalities & used):
        having = {row.label for row, found in looked.seen if _has(found, section)}
        without = sorted({row.label for row, _ in looked.seen} - having)
        if without:
            seen, named = "seen " if looked.is_sample else "", ", ".join(without[:SHOWN])
            yield f"no clip {seen}of {named} has {WORDS[section]}; a model of it alone can't tell them"
    has_folds, has_splits = any(row.fold is not None for row in looked.rows), any(row.split for row in looked.rows)
    if has_folds and data.test_fold is None:
        folds = sorted({row.fold for row in looked.rows if row.fold is not None})
        yield (
            f"there is a column fold: `dvc exp run --queue -S data.test_fold={','.join(map(str, folds))}`, `dvc queue "
            f"start` and `avrecog gather` test on each of them"
        )
    elif min(sizes.values()) < FEW and not has_folds and not has_splits:
        yield (
            f"below {FEW} clips a class one test split is much luck: with a column fold (1 to 5) in a CSV each clip is "
            f"tested once, see docs/experiments.md"
        )
    if max(sizes.values()) > UNEVEN * min(sizes.values()):
        yield "the classes are uneven: look at mean_class_accuracy beside top1 (fuse.objective may be that)"
    if not has_splits and not has_folds and not any(row.group for row in looked.rows):
        yield (
            "clips of one recording or speaker must not stand in train and in test: where there are such, name them in "
            "a column group of a CSV"
        )
