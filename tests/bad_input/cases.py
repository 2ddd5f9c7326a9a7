"""What goes wrong in media files, tables, params.yaml and artefacts, and what avrecog does about it.

docs/errors.md is this list as a table (`make errors` writes it), test_bad_input.py runs every line of it.
"""

import csv
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import projects
from avrecog.features.store import Store
from avrecog.manifest import read_manifest
from avrecog.models.checkpoint import load_checkpoint, save_checkpoint
from bad_input import media
from clips import make_tone, make_video

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A thing that may be wrong."""

    what: str
    stage: str  # that meets it
    message: str | None  # a part of what it says, with the exit code; None: it is taken
    then: str = ""  # what avrecog does, where it takes it
    exit_code: int = 1


@dataclass(frozen=True)
class MediaCase(Case):
    """A media file; it stands as the last row of an annotation, label `odd`."""

    make: Callable[[Path], Path] = lambda folder: folder  # writes the file into a folder
    check: Callable[[Path], None] = lambda out: None  # looks at data/, where it is taken


@dataclass(frozen=True)
class TableCase(Case):
    """An annotation: made of good rows, or written as text."""

    rows: Callable[[Rows], Rows] | None = None
    text: Callable[[Rows], bytes] | None = None
    data: Mapping[str, Any] | None = None  # section `data`
    check: Callable[[Path], None] = lambda out: None


@dataclass(frozen=True)
class PathCase(Case):
    """What `avrecog data` is given, in a project of its own."""

    make: Callable[[Path, Rows], Sequence[str | Path]] = lambda folder, rows: []  # the arguments, beside good rows


@dataclass(frozen=True)
class ParamsCase(Case):
    """A params.yaml: changes of the shipped one, or text in place of a line."""

    change: Mapping[str, Any] | None = None
    text: tuple[str, str] | None = None  # a piece of the shipped file, and what stands there instead


@dataclass(frozen=True)
class ArtefactCase(Case):
    """A file that an earlier stage wrote."""

    damage: Callable[[Path], None] = lambda project: None  # changes a finished project
    model: str = ""


@dataclass(frozen=True)
class ForeignCase(Case):
    """A result file of MMAction2, with the list of its clips; avrecog fuse or convert reads it."""

    content: bytes | str = b""
    name: str = "theirs.pkl"
    datalist: str | None = "a 10 0\nb 10 1\n"
    options: Sequence[str] = ("--coefficients", "1")


def row(out: Path) -> Any:
    """The odd file's row of the manifest."""
    (clip,) = [clip for clip in read_manifest(out / "manifest.csv") if clip.label == "odd"]
    return clip


def stored(out: Path, modality: str) -> np.ndarray:
    return Store(out / "features" / modality)[row(out).clip_id]


def has_sound(seconds: float) -> Callable[[Path], None]:
    """Its log-mel is finite and lasts so long."""

    def check(out: Path) -> None:
        log_mel = stored(out, "audio")
        assert np.isfinite(log_mel).all()
        assert abs(len(log_mel) * 256 / 16_000 - seconds) < 0.07, len(log_mel)

    return check


def has_frames(n_frames: int) -> Callable[[Path], None]:
    """So many frames are stored."""

    def check(out: Path) -> None:
        assert len(stored(out, "video")) == n_frames

    return check


def is_listed_as_shorter(out: Path) -> None:
    with (out / "features/shorter.csv").open() as file:
        assert [line["clip_id"] for line in csv.DictReader(file)] == [row(out).clip_id]


def is_listed(table: str) -> Callable[[Path], None]:
    """A table of extract's has one row, of this file."""

    def check(out: Path) -> None:
        with (out / "features" / table).open() as file:
            assert [line["clip_id"] for line in csv.DictReader(file)] == [row(out).clip_id]

    return check


def is_upright(out: Path) -> None:
    assert stored(out, "video").shape[1:] == (36, 36, 3)
    top, bottom = stored(out, "video")[-1][:12].mean(), stored(out, "video")[-1][-12:].mean()
    assert top > bottom + 50  # frame 11: a bright upper half


def sound_of(samples: Callable[[], np.ndarray], sample_rate: int = 16_000) -> Callable[[Path], Path]:
    return lambda folder: media.write_wav(folder / "a.wav", samples(), sample_rate)


MEDIA: Sequence[MediaCase] = [
    MediaCase(
        "a file that is not there",
        "prepare",
        "no such file; correct the path, or drop the row of the annotation",
        make=lambda folder: folder / "gone.mp4",
    ),
    MediaCase(
        "an empty file", "prepare", "a.mp4: can't be decoded", make=lambda folder: media.written(folder / "a.mp4", b"")
    ),
    MediaCase(
        "text with the ending .mp4",
        "prepare",
        "a.mp4: can't be decoded",
        make=lambda folder: media.written(folder / "a.mp4", b"this is no film\n" * 99),
    ),
    MediaCase(
        "subtitles with the ending .mp4",
        "prepare",
        "a.mp4: subtitles, no sound and no moving picture",
        make=lambda folder: media.written(folder / "a.mp4", b"1\n00:00:00,000 --> 00:00:01,000\nHi\n"),
    ),
    MediaCase(
        "sound packets that were lost",
        "extract",
        None,
        "silence stands in their place, listed in data/features/gaps.csv and counted",
        make=lambda folder: media.without_packets(make_tone(folder / "a.m4a", duration_s=3.0).path, 1.0, 2.0),
        check=is_listed("gaps.csv"),
    ),
    MediaCase(
        "stereo in opposite phase, which cancels when mixed",
        "extract",
        None,
        "listed in data/features/cancelled.csv and counted",
        make=sound_of(lambda: np.stack([media.tone(), -media.tone()], axis=1)),
        check=is_listed("cancelled.csv"),
    ),
    MediaCase(
        "a cut-off MP4 whose index is at its end",
        "prepare",
        "a.mp4: can't be decoded",
        make=lambda folder: media.cut(make_video(folder / "a.mp4", 50).path, 0.5),
    ),
    MediaCase(
        "a cut-off MP4 whose index is at its beginning",
        "extract",
        "a.mp4: can't be decoded",
        make=lambda folder: media.cut(media.moov_first(make_video(folder / "a.mp4", 50).path), 0.6),
    ),
    MediaCase(
        "a cut-off OGG",
        "extract",
        None,
        "takes what is left: the file itself says that it lasts so long",
        make=lambda folder: media.cut(make_tone(folder / "a.ogg", duration_s=4).path, 0.5),
        check=has_sound(2.0),
    ),
    MediaCase(
        "corrupt packets in the middle, sound and picture",
        "extract",
        "a.mp4: can't be decoded",
        make=lambda folder: media.corrupted(make_video(folder / "a.mp4", 50).path, 0.4, 0.6),
    ),
    MediaCase(
        "corrupt packets in the middle, sound only",
        "extract",
        "a.m4a: can't be decoded",
        make=lambda folder: media.corrupted(make_tone(folder / "a.m4a", duration_s=4).path, 0.4, 0.6),
    ),
    MediaCase(
        "video without sound",
        "extract",
        None,
        "has_audio false in the manifest; counted; models of sound leave it out, and so does the fusion",
        make=lambda folder: make_video(folder / "a.mp4", with_audio=False).path,
        check=lambda out: check_silent(out),
    ),
    MediaCase(
        "sound without a picture",
        "extract",
        None,
        "has_video false in the manifest; counted; models of frames leave it out, and so does the fusion",
        make=lambda folder: make_tone(folder / "a.ogg").path,
        check=has_sound(1.0),
    ),
    MediaCase(
        "a file with no sample in it",
        "prepare",
        "audio stream has nothing in it",
        make=sound_of(lambda: np.zeros(0)),
    ),
    MediaCase(
        "a clip of half a second",
        "extract",
        None,
        "centred in the front end's value for silence; train says how many are shorter than the window",
        make=sound_of(lambda: media.tone(0.5)),
        check=has_sound(0.5),
    ),
    MediaCase("silence", "extract", None, "taken", make=sound_of(lambda: np.zeros(16_000)), check=has_sound(1.0)),
    MediaCase(
        "clipped sound",
        "extract",
        None,
        "taken",
        make=sound_of(lambda: np.clip(9 * media.tone(), -1, 1)),
        check=has_sound(1.0),
    ),
    MediaCase(
        "sound with a constant offset",
        "extract",
        None,
        "taken",
        make=sound_of(lambda: media.tone() + 0.5),
        check=has_sound(1.0),
    ),
    MediaCase(
        "NaN in a float WAV",
        "extract",
        "a.wav: the sound holds values that are not finite (NaN or infinity)",
        make=sound_of(lambda: np.append(media.tone(), np.nan)),
    ),
    MediaCase(
        "eight channels",
        "extract",
        None,
        "their mean",
        make=sound_of(lambda: np.stack([media.tone()] * 8, axis=1)),
        check=has_sound(1.0),
    ),
    MediaCase(
        "sound at 8 kHz",
        "extract",
        None,
        "resampled",
        make=sound_of(lambda: media.tone(1.0, 8_000), 8_000),
        check=has_sound(1.0),
    ),
    MediaCase(
        "sound at 192 kHz",
        "extract",
        None,
        "resampled",
        make=sound_of(lambda: media.tone(1.0, 192_000), 192_000),
        check=has_sound(1.0),
    ),
    MediaCase(
        "frames of 63 x 47",
        "extract",
        None,
        "scaled and cut as any",
        make=lambda folder: media.odd_sizes(folder / "a.mov", 63, 47),
        check=has_frames(5),
    ),
    MediaCase(
        "frames of 4096 x 2304",
        "extract",
        None,
        "scaled and cut as any",
        make=lambda folder: media.odd_sizes(folder / "a.mov", 4096, 2304, 6),
        check=has_frames(2),
    ),
    MediaCase(
        "frames of 9000 x 8000",
        "prepare",
        "frames of 9000 x 8000, expected at most 67,108,864 pixels",
        make=lambda folder: media.larger_in_the_header(media.odd_sizes(folder / "a.mov", 900, 800), 10),
    ),
    MediaCase(
        "an archive named as a film",
        "prepare",
        "a.mp4: an archive (ZIP), no sound and no moving picture",
        make=lambda folder: media.zipped(folder / "a.mp4", b"film"),
    ),
    MediaCase(
        "a playlist that names a file elsewhere",
        "prepare",
        "a.m3u8: a playlist, no sound and no moving picture",
        make=lambda folder: media.written(folder / "a.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"),
    ),
    MediaCase(
        "a picture that a player turns by 90 degrees",
        "extract",
        None,
        "stored upright",
        make=lambda folder: make_video(folder / "a.mp4", 12, 12.5, 64, 64, rotation=90).path,
        check=is_upright,
    ),
    MediaCase(
        "a variable frame rate",
        "extract",
        None,
        "at each tick the picture on screen then",
        make=lambda folder: media.rate_changes(folder / "a.mp4"),
        check=has_frames(5),
    ),
    MediaCase(
        "a video of one frame",
        "extract",
        None,
        "one frame is stored, and repeated where a model wants more",
        make=lambda folder: make_video(folder / "a.mp4", 1).path,
        check=has_frames(1),
    ),
    MediaCase(
        "an album's cover as a video stream",
        "extract",
        None,
        "no moving picture: has_video false",
        make=lambda folder: media.with_cover(folder / "a.mp3"),
        check=lambda out: check_pictureless(out),
    ),
    MediaCase(
        "an MP4 whose header says ten times its duration",
        "extract",
        None,
        "as long as it is",
        make=lambda folder: media.longer_in_the_header(make_video(folder / "a.mp4", 25).path),
        check=has_sound(1.0),
    ),
    MediaCase(
        "a WAV whose header says ten times its duration",
        "extract",
        None,
        "as long as it is",
        make=lambda folder: media.longer_wav(folder / "a.wav"),
        check=has_sound(1.0),
    ),
    MediaCase(
        "a sound track much shorter than the picture",
        "extract",
        None,
        "listed in data/features/shorter.csv and counted",
        make=lambda folder: make_video(folder / "a.mp4", 50, sound_begins_s=0.0, sound_s=0.5).path,
        check=is_listed_as_shorter,
    ),
    MediaCase(
        "a path with spaces, quotes and non-ASCII characters",
        "extract",
        None,
        "taken",
        make=lambda folder: make_tone(folder / 'it\'s "a" sound ü 音.wav').path,
        check=has_sound(1.0),
    ),
    MediaCase(
        "a path with a newline, or another control character",
        "prepare",
        "a\\nsound.wav: this path holds a control character, which no table can hold; rename it",
        make=lambda folder: make_tone(folder / "a\nsound.wav").path,
    ),
    MediaCase(
        "a path that is too long for any file",
        "prepare",
        ".wav: can't be read (File name too long)",
        make=lambda folder: folder / f"{'a' * 300}.wav",
    ),
    MediaCase(
        "a pipe in place of a file",
        "prepare",
        "a.mp4: is no ordinary file; drop the row, or put the media file there",
        make=lambda folder: media.pipe(folder / "a.mp4"),
    ),
    MediaCase(
        "a folder in place of a file",
        "prepare",
        "a.mp4: is a folder, expected a media file",
        make=lambda folder: media.folder(folder / "a.mp4"),
    ),
    MediaCase(
        "a link to itself",
        "prepare",
        "a.mp4: can't be decoded (Too many levels of symbolic links)",
        make=lambda folder: media.link_loop(folder / "a.mp4"),
    ),
]


def check_silent(out: Path) -> None:
    assert not row(out).has_audio
    assert row(out).clip_id not in Store(out / "features/audio")
    assert json.loads((out / "report.json").read_text())["n_silent"] == 1


def check_pictureless(out: Path) -> None:
    assert not row(out).has_video
    assert row(out).clip_id not in Store(out / "features/video")


def changed(**cells: Any) -> Callable[[Rows], Rows]:
    """The last row with other cells."""
    return lambda rows: [*rows[:-1], {**rows[-1], **cells}]


def as_text(rows: Rows, newline: str = "\n") -> str:
    lines = [",".join(rows[0]), *(",".join(map(str, each.values())) for each in rows)]
    return newline.join(lines) + newline


def with_splits(rows: Rows) -> Rows:
    return [{**each, "split": ("train", "train", "val", "test")[index // 2 % 4]} for index, each in enumerate(rows)]


def copied(path: str) -> str:
    """The path of a copy beside it."""
    return str(shutil.copy(path, Path(path).with_name("a copy.wav")))


def has_all_rows(out: Path) -> None:
    assert len(read_manifest(out / "manifest.csv")) == 16


def has_one_class_for_high(out: Path) -> None:
    assert {clip.label for clip in read_manifest(out / "manifest.csv")} == {"h\xefgh", "low"}


def high_as(*spellings: str) -> Callable[[Rows], Rows]:
    """The class `high` written in several ways, one after the other."""
    return lambda rows: [
        {**each, "label": spellings[index // 2 % len(spellings)] if each["label"] == "high" else each["label"]}
        for index, each in enumerate(with_splits(rows))
    ]


TABLES: Sequence[TableCase] = [
    TableCase(
        "two rows of one clip id",
        "prepare",
        "clip ids stand more than once, the first is 'tone 00'",
        rows=lambda rows: [*rows, rows[0]],
    ),
    TableCase(
        "one class only",
        "prepare",
        "expected two classes at least, got 1 (high)",
        rows=lambda rows: [{**each, "label": "high"} for each in rows],
    ),
    TableCase(
        "a class that val lacks",
        "prepare",
        None,
        "says so: split val has no clip of 1 classes",
        rows=lambda rows: [
            {**each, "split": "train" if each["label"] == "low" and each["split"] == "val" else each["split"]}
            for each in with_splits(rows)
        ],
    ),
    TableCase(
        "a label with a typing error in val",
        "prepare",
        "class 'hihg' stands in val or test and never in train; correct the label or add training clips",
        rows=lambda rows: [
            {**each, "label": "hihg" if index == 4 else each["label"]} for index, each in enumerate(with_splits(rows))
        ],
    ),
    TableCase(
        "one class in two Unicode forms, or with a space that can't be seen",
        "prepare",
        None,
        "taken as one class; the stage's last line says so",
        rows=high_as("h\xefgh", "hi\u0308gh", "h\xefgh\u200b", "\ufeffh\xefgh"),
        check=has_one_class_for_high,
    ),
    TableCase(
        "classes that differ in upper and lower case only",
        "prepare",
        None,
        "says so: classes look alike and are told apart nevertheless: 'HIGH' and 'high'",
        rows=lambda rows: [
            {**each, "label": "HIGH" if index in (0, 4, 6) else each["label"]}
            for index, each in enumerate(with_splits(rows))
        ],
    ),
    TableCase(
        "a label of which nothing can be seen",
        "prepare",
        "expected a label that can be seen, got '\\u200b'",
        rows=changed(label="\u200b"),
    ),
    TableCase(
        "a clip id with a control character",
        "prepare",
        "this clip_id holds a control character, which no table can hold; rename it",
        rows=changed(clip_id="a\x1bb"),
    ),
    TableCase(
        "a tree without media",
        "prepare",
        "data: no media files in it; expected data/<class>/<file>, got 1 other files",
        rows=lambda rows: rows,
        data={"source": "folder", "annotation": "data"},
    ),
    TableCase("a start beyond the end", "prepare", "expected start before end", rows=changed(start=0.8, end=0.2)),
    TableCase("a negative time", "prepare", "expected `start` in seconds, 0 or more, got '-1'", rows=changed(start=-1)),
    TableCase("NaN as a time", "prepare", "expected `end` in seconds, 0 or more, got 'nan'", rows=changed(end="nan")),
    TableCase("a time that is a word", "prepare", "expected `end` in seconds, got 'late'", rows=changed(end="late")),
    TableCase(
        "a start beyond the end of the file",
        "prepare",
        "starts at 7 s, but the file lasts 1 s",
        rows=changed(start=7),
    ),
    TableCase(
        "an end beyond the end of the file",
        "prepare",
        None,
        "cut at the file's end; listed in data/report.json and counted",
        rows=changed(start=0.1, end=9),
        check=lambda out: check_ends_cut(out),
    ),
    TableCase(
        "pieces of one file in train and in test",
        "prepare",
        "stands in train and in test (train: tone 14@0-0.6; test: other)",
        rows=lambda rows: [
            *with_splits(rows)[:-2],
            {**with_splits(rows)[-2], "start": 0, "end": 0.6, "split": "train"},
            {**with_splits(rows)[-2], "start": 0.4, "end": 1, "split": "test", "clip_id": "other"},
        ],
        exit_code=2,
    ),
    TableCase(
        "clips of one group in val and in test",
        "prepare",
        "group 'speaker 1' stands in val and in test (val: tone 04; test: tone 06)",
        rows=lambda rows: [
            {**row, "group": "speaker 1" if index in (4, 6) else f"speaker {index}x"}
            for index, row in enumerate(with_splits(rows))
        ],
        exit_code=2,
    ),
    TableCase(
        "the same clip in val and in test, in a copy of its file and with another group",
        "prepare",
        "stands in val and in test (val: tone 04; test: copy)",
        rows=lambda rows: [
            *({**row, "group": f"g{index}"} for index, row in enumerate(with_splits(rows))),
            {"path": copied(rows[4]["path"]), "label": "high", "split": "test", "group": "g", "clip_id": "copy"},
        ],
        exit_code=2,
    ),
    TableCase(
        "splits on some rows only",
        "prepare",
        None,
        "says so: 4 of 16 clips have no split in the annotation: 2 train, 2 val",
        rows=lambda rows: [
            {**row, "split": "" if row["split"] == "val" else row["split"]} for row in with_splits(rows)
        ],
    ),
    TableCase(
        "five speakers, who can't be cut into fifths of each class",
        "prepare",
        None,
        "says so: can't be had with whole groups and a clip of each class; the nearest: test 0.25 (4 of 16 clips,",
        rows=lambda rows: [{**row, "group": f"speaker {index % 5}"} for index, row in enumerate(rows)],
    ),
    TableCase(
        "clips of one speaker alone",
        "prepare",
        "16 clips in 1 groups are too few to cut it off, since no group is torn",
        rows=lambda rows: [{**row, "group": "the speaker"} for row in rows],
    ),
    TableCase("an unknown split", "prepare", "expected split train, val or test, got 'dev'", rows=changed(split="dev")),
    TableCase(
        "a byte order mark",
        "prepare",
        None,
        "taken",
        text=lambda rows: b"\xef\xbb\xbf" + as_text(rows).encode(),
        check=has_all_rows,
    ),
    TableCase(
        "lines that end in CR LF",
        "prepare",
        None,
        "taken",
        text=lambda rows: as_text(rows, "\r\n").encode(),
        check=has_all_rows,
    ),
    TableCase(
        "quoted cells",
        "prepare",
        None,
        "taken",
        text=lambda rows: as_text([{key: f'"{value}"' for key, value in each.items()} for each in rows]).encode(),
        check=has_all_rows,
    ),
    TableCase(
        "a quote that isn't closed",
        "prepare",
        "look for a quote that isn't closed",
        text=lambda rows: as_text(changed(label='"high')(rows)).encode(),
    ),
    TableCase(
        "a table in Latin-1",
        "prepare",
        "expected a CSV in UTF-8",
        text=lambda rows: as_text(changed(label="hügh")(rows)).encode("latin-1"),
    ),
    TableCase(
        "a missing column",
        "prepare",
        "column `label` is missing; expected path, label",
        rows=lambda rows: [{"path": each["path"], "lable": each["label"]} for each in rows],
    ),
    TableCase("a header and no rows", "prepare", "has a header and no rows", text=lambda rows: b"path,label\n"),
    TableCase("an empty file", "prepare", "column `path` is missing", text=lambda rows: b""),
    TableCase(
        "one row",
        "prepare",
        "are too few to cut it off, since no group is torn; add clips",
        rows=lambda rows: rows[:1],
    ),
    TableCase(
        "an annotation that is not there",
        "prepare",
        "gone.csv: can't be read (No such file or directory); see data.annotation",
        data={"annotation": "gone.csv"},
        rows=lambda rows: rows,
    ),
    TableCase(
        "a fold that no row has",
        "prepare",
        "data.test_fold: no clip has fold 7",
        rows=changed(fold=1),
        data={"test_fold": 7},
    ),
]


def check_ends_cut(out: Path) -> None:
    assert len(json.loads((out / "report.json").read_text())["ends_cut"]) == 1


def changes(**sections: Any) -> Mapping[str, Any]:
    return sections


PARAMS: Sequence[ParamsCase] = [
    ParamsCase(
        "an unknown key",
        "train",
        "train.label_smoothin: unknown key; did you mean `label_smoothing`?",
        change=changes(train={"label_smoothin": 0.1}),
    ),
    ParamsCase("a key of another section", "train", "train.n_clips: unknown key", change=changes(train={"n_clips": 3})),
    ParamsCase(
        "several problems",
        "train",
        "params.yaml: 3 problems",
        change=changes(train={"lr": -1, "epoch": 3, "seed": "x"}),
    ),
    ParamsCase(
        "a word for a number", "train", "train.lr: expected a number, got 'fast'", change=changes(train={"lr": "fast"})
    ),
    ParamsCase(
        "a boolean for a number",
        "train",
        "train.epochs: expected a whole number, got true",
        change=changes(train={"epochs": True}),
    ),
    ParamsCase(
        "a number for a boolean",
        "train",
        "train.deterministic: expected true or false, got 1",
        change=changes(train={"deterministic": 1}),
    ),
    ParamsCase(
        "a fraction for a whole number",
        "train",
        "train.epochs: expected a whole number, got 1.5",
        change=changes(train={"epochs": 1.5}),
    ),
    ParamsCase(
        "a value out of range",
        "train",
        "train.momentum: expected a number at most 1, got 9",
        change=changes(train={"momentum": 9}),
    ),
    ParamsCase(
        "infinity", "train", "train.lr: expected a finite number, got inf", change=changes(train={"lr": float("inf")})
    ),
    ParamsCase(
        "two values that don't fit",
        "train",
        "train.warmup_epochs: expected less than epochs (2), got 5",
        change=changes(train={"epochs": 2, "warmup_epochs": 5}),
    ),
    ParamsCase(
        "null for a number",
        "train",
        "train.lr: expected a number, got null (nothing stands there)",
        change=changes(train={"lr": None}),
    ),
    ParamsCase(
        "an empty section",
        "train",
        "train: expected a mapping, got null (nothing stands there)",
        change=changes(train=None),
    ),
    ParamsCase("a section that is missing", "train", "train: is missing", text=("train:  ", "trian:  ")),
    ParamsCase(
        "a model's name that no folder should have",
        "fuse",
        "pipeline.models: expected names of letters, digits, - and _, got '../src'",
        change=changes(pipeline={"models": ["../src"]}),
    ),
    ParamsCase(
        "an unknown architecture",
        "train",
        "models.audio: expected architecture to be one of 'audio', 'tsn', 'slowfast', 'avslowfast', 'avsync', got "
        "'transformer'",
        change=changes(models={"audio": {"architecture": "transformer"}}),
    ),
    ParamsCase(
        "an unknown network of timm",
        "train",
        "timm.list_models() gives the names",
        change=changes(models={"audio": {"backbone": "resnet19", "depth": None, "width": None}}),
    ),
    ParamsCase(
        "a wrong override of a model",
        "train",
        "models.audio.train.lr: expected a number above 0, got 0",
        change=changes(models={"audio": {"train": {"lr": 0}}}),
    ),
    ParamsCase("broken YAML", "train", "params.yaml: not valid YAML", text=("train:  ", "train: [  ")),
    ParamsCase("one key twice", "train", "found duplicate key", text=("  momentum: 0.9", "  momentum: 0.9\n  lr: 1")),
    ParamsCase(
        "aliases that unfold to more than can be read",
        "train",
        "unfolds to more than 100,000 values",
        text=(
            "train:  ",
            "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}' if n else '1'] * 9)}]\n" for n in range(9)) + "train:  ",
        ),
    ),
    ParamsCase(
        "an object of Python's",
        "train",
        "params.yaml: not valid YAML",
        text=("  momentum: 0.9", "  momentum: !!python/object/apply:os.system ['touch run']"),
    ),
    ParamsCase(
        "a number as 1e-3",
        "train",
        None,
        "a number, as DVC reads it",
        text=("  weight_decay: 5.0e-4", "  weight_decay: 1e-3"),
    ),
    ParamsCase(
        "batches of one clip, which leave a batch norm one value of a channel",
        "train",
        "would see a single value of each channel (its input is 1 x 64 x 1 x 1), which has no variance; raise train.",
        change=changes(train={"batch_size": 1}, models={"audio": {"mel_frames": 16}}),
    ),
    ParamsCase(
        "a model that uses sound, and no section `audio`",
        "train",
        "this model needs section `audio`, which is null",
        change=changes(audio=None),
    ),
    ParamsCase(
        "frames smaller than the model sees",
        "train",
        "the model sees 64 x 64, but frames of 36 x 36 are stored; raise video.height and video.width",
        change=changes(models={"rgb": {"crop_height": 64, "crop_width": 64}}),
    ),
]


class Evil:
    """What a pickle may run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("open('run', 'w').close()",)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewrite_scores(project: Path, **changes: Any) -> None:
    path = project / "results/scores/rgb/test.npz"
    with np.load(path) as entries:
        np.savez(path, **{**entries, **changes})


def save_evil(project: Path) -> None:
    torch.save({"format": "avrecog checkpoint 1", "weights": Evil()}, project / "models/audio/best.ckpt")


def rename_model(project: Path) -> None:
    (project / "models/rgb/best.ckpt").replace(project / "models/audio/best.ckpt")


def other_classes(project: Path) -> None:
    checkpoint = load_checkpoint(project / "models/audio/best.ckpt")
    save_checkpoint(project / "models/audio/best.ckpt", {**checkpoint, "classes": ["a", "b", "c"]})


def init_from_rgb(project: Path) -> None:
    projects.write_params(project, projects.SMALL, {"models": {"audio": {"init_from": "models/rgb/best.ckpt"}}})


def other_settings(project: Path) -> None:
    projects.write_params(project, projects.SMALL, {"audio": {"logmel": {"n_mels": 40}}})


def record_anew(project: Path) -> None:
    with (project / "clips/high/clip_00.mp4").open("ab") as file:
        file.write(b"\0")


ARTEFACTS: Sequence[ArtefactCase] = [
    ArtefactCase(
        "a media file that has changed since stage prepare read it",
        "extract",
        "1 media files have changed since stage prepare read them: clips/high/clip_00.mp4; run",
        damage=record_anew,
    ),
    ArtefactCase(
        "another model's checkpoint",
        "test",
        "best.ckpt: is of model rgb, not of audio",
        damage=rename_model,
        model="audio",
    ),
    ArtefactCase(
        "a checkpoint of other classes",
        "test",
        "was trained on other classes than data/labels.txt has",
        damage=other_classes,
        model="audio",
    ),
    ArtefactCase(
        "a checkpoint of another architecture to begin from",
        "train",
        "models/rgb/best.ckpt: is of architecture tsn, expected audio",
        damage=init_from_rgb,
        model="audio",
    ),
    ArtefactCase(
        "a cut-off checkpoint",
        "test",
        "best.ckpt: is damaged or no checkpoint",
        damage=lambda project: cut_in_half(project / "models/audio/best.ckpt"),
        model="audio",
    ),
    ArtefactCase(
        "a checkpoint with code in it",
        "test",
        "best.ckpt: holds more than tensors and plain values (exec), so it is not loaded",
        damage=save_evil,
        model="audio",
    ),
    ArtefactCase(
        "a pickle as a checkpoint",
        "test",
        "best.ckpt: is damaged or no checkpoint (not a zip file)",
        damage=lambda project: (project / "models/audio/best.ckpt").write_bytes(pickle.dumps(Evil())) and None,
        model="audio",
    ),
    ArtefactCase(
        "no checkpoint",
        "test",
        "best.ckpt: no such checkpoint; run `dvc repro train`",
        damage=lambda project: (project / "models/audio/best.ckpt").unlink(),
        model="audio",
    ),
    ArtefactCase(
        "a store made with other settings",
        "train",
        "was made with other settings than params.yaml has (n_mels: 32 there, 40 here)",
        damage=other_settings,
        model="audio",
    ),
    ArtefactCase(
        "a store with one bit flipped",
        "train",
        "differ from what was written; the store is damaged",
        damage=lambda project: flip_a_byte(project / "data/features/audio/values.bin"),
        model="audio",
    ),
    ArtefactCase(
        "a store whose rows are cut off",
        "test",
        "values.bin: expected",
        damage=lambda project: cut_in_half(project / "data/features/audio/values.bin"),
        model="audio",
    ),
    ArtefactCase(
        "a store whose index is cut off",
        "train",
        "the store is damaged: remove the folder and run `dvc repro extract`",
        damage=lambda project: cut_in_half(project / "data/features/audio/index.csv"),
        model="audio",
    ),
    ArtefactCase(
        "a store that was not finished",
        "train",
        "no finished store here; run `dvc repro extract`",
        damage=lambda project: (project / "data/features/audio/store.json").unlink(),
        model="audio",
    ),
    ArtefactCase(
        "NaN in a score file",
        "fuse",
        "expected finite numbers, NaN or infinity for clip",
        damage=lambda project: rewrite_scores(project, scores=np.full((12, 3), np.nan, np.float32)),
    ),
    ArtefactCase(
        "scores of other clips",
        "fuse",
        "run stage test for both on the same clips",
        damage=lambda project: rewrite_scores(project, clip_id=np.array([f"other {n}" for n in range(12)])),
    ),
    ArtefactCase(
        "scores of another split",
        "fuse",
        "expected scores of split test, got val",
        damage=lambda project: rewrite_scores(project, split=np.array("val")),
    ),
    ArtefactCase(
        "a cut-off score file",
        "fuse",
        "test.npz: expected a score file",
        damage=lambda project: cut_in_half(project / "results/scores/rgb/test.npz"),
    ),
    ArtefactCase(
        "a score file with pickled objects",
        "fuse",
        "without pickled objects",
        damage=lambda project: rewrite_scores(project, classes=np.array([Evil()], dtype=object)),
    ),
    ArtefactCase(
        "a table of fusion methods that is none",
        "report",
        "methods.csv: not a table of fusion methods",
        damage=lambda project: (project / "results/plots/fuse/methods.csv").write_text("method\nequal\n") and None,
    ),
    ArtefactCase(
        "a metric file that is no JSON",
        "report",
        "fuse.json: can't be read",
        damage=lambda project: (project / "results/metrics/fuse.json").write_text("{") and None,
    ),
    ArtefactCase(
        "a manifest with a wrong cell",
        "train",
        "manifest.csv, line 2:",
        damage=lambda project: (
            (project / "data/manifest.csv").write_text(
                (project / "data/manifest.csv").read_text().replace(",true,", ",maybe,")
            )
            and None
        ),
        model="audio",
    ),
    ArtefactCase(
        "another process that writes the same folder",
        "train",
        "is writing it; wait for it to end",
        damage=lambda project: None,
        model="audio",
    ),
]


GOOD = pickle.dumps([np.zeros(2, np.float32)] * 2, 2)

FOREIGN = [
    ForeignCase(
        "a pickle with code in it",
        "avrecog fuse",
        "theirs.pkl: asks for 'posix.system', which could run code; refused",
        content=pickle.dumps([os.system]),
    ),
    ForeignCase(
        "a pickle that calls a registered extension",
        "avrecog fuse",
        "theirs.pkl: asks for EXT1 240, which no file of numbers needs; refused",
        content=b"\x80\x02\x82\xf0.",
    ),
    ForeignCase(
        "a tensor whose storage names a function",
        "avrecog fuse",
        "theirs.pkl: asks for 'os.system', which could run code; refused",
        content=b"ctorch.storage\n_load_from_bytes\n(C\x10cos\nsystem\n)R...tR.",
    ),
    ForeignCase(
        "a cut-off pickle", "avrecog fuse", "theirs.pkl: is damaged or no pickle", content=GOOD[: len(GOOD) // 2]
    ),
    ForeignCase(
        "a pickle whose references unfold to gigabytes",
        "avrecog fuse",
        "theirs.pkl: holds references that unfold to 1,000 x 10,000 numbers; not read",
        content=pickle.dumps([np.zeros(10_000, np.float32)] * 1000),
    ),
    ForeignCase(
        "rows of unequal length",
        "avrecog fuse",
        "theirs.json: expected 2 scores, as in row 0, got 1 in row 1",
        content="[[1, 2], [3]]",
        name="theirs.json",
    ),
    ForeignCase(
        "NaN among the scores",
        "avrecog fuse",
        "theirs.json: expected finite numbers, got NaN or infinity in row 1",
        content="[[1, 2], [3, NaN]]",
        name="theirs.json",
    ),
    ForeignCase(
        "YAML with an object of Python's",
        "avrecog fuse",
        "theirs.yaml: not valid YAML",
        content="- !!python/object/apply:os.system [true]\n",
        name="theirs.yaml",
    ),
    ForeignCase(
        "no list of clips",
        "avrecog fuse",
        "theirs.pkl: holds scores without labels; give the list of its clips with --datalist",
        content=GOOD,
        datalist=None,
    ),
    ForeignCase("the list of other clips", "avrecog fuse", "; give the list it is of", content=GOOD, datalist="a 0\n"),
    ForeignCase(
        "a list with several labels a clip",
        "avrecog fuse",
        "a path with spaces or several labels can't be told apart",
        content=GOOD,
        datalist="a 10 0 1\nb 10 1\n",
    ),
    ForeignCase(
        "a label that the scores have no class for",
        "avrecog fuse",
        "list.txt: expected labels from 0 to 1",
        content=GOOD,
        datalist="a 10 0\nb 10 2\n",
    ),
    ForeignCase(
        "scores said to be probabilities that aren't",
        "avrecog fuse",
        "expected probabilities (0 or more, sum 1)",
        content=GOOD,
        options=("--coefficients", "1", "--kind", "probabilities"),
    ),
    ForeignCase(
        "coefficients to be found on files of no stated split",
        "avrecog fuse",
        "MMAction2's files of val need --split val",
        content=GOOD,
        options=(),
        exit_code=2,
    ),
    ForeignCase(
        "a file of another program",
        "avrecog convert",
        "theirs.txt: expected .npz, .pkl",
        content=b"",
        name="theirs.txt",
        options=(),
    ),
]


def filled(path: Path, text: str | bytes = "") -> Path:
    """A file at a path, the folders above it made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def tree(folder: Path, rows: Rows) -> Path:
    """The rows' files as a tree of classes."""
    for row in rows:
        (folder / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(row["path"], folder / row["label"])
    return folder


def kinetics(folder: Path, rows: Rows) -> Path:
    """A folder with Kinetics' lists of the rows."""
    labels = sorted({row["label"] for row in rows})
    filled(folder / "label_map.txt", "".join(f"{label}\n" for label in labels))
    filled(folder / "train_list.txt", "".join(f"{row['path']} {labels.index(row['label'])}\n" for row in rows))
    return folder


PATHS: Sequence[PathCase] = [
    PathCase(
        "a path where nothing is",
        "avrecog data",
        "gone: no such file or folder, or none that may be read; expected",
        make=lambda *_: ["gone"],
    ),
    PathCase(
        "a name that isn't UTF-8",
        "avrecog data",
        "h\\udcfcgh.csv': holds bytes that aren't UTF-8, which no table can; rename the file or the folder",
        make=lambda folder, rows: [filled(folder / os.fsdecode(b"h\xfcgh.csv"), as_text(rows))],
    ),
    PathCase(
        "a name with a line break in it",
        "avrecog data",
        "a\\nb.csv': holds a control character, which no table can; rename the file or the folder",
        make=lambda folder, rows: [filled(folder / "a\nb.csv", as_text(rows))],
    ),
    PathCase(
        "a media file",
        "avrecog data",
        "isn't text; expected a CSV with columns path,label; a folder <class>/<files>",
        make=lambda folder, rows: [rows[0]["path"]],
    ),
    PathCase(
        "a CSV without the columns",
        "avrecog data",
        "column `label` is missing; expected path, label",
        make=lambda folder, rows: [filled(folder / "clips.csv", "path,lable\na.wav,high\n")],
    ),
    PathCase(
        "a folder of files, a table among them",
        "avrecog data",
        "of the CSVs in it name one: clips.csv",
        make=lambda folder, rows: [filled(tree(folder / "my", rows[:1]) / "clips.csv").parent],
    ),
    PathCase(
        "a tree without media",
        "avrecog data",
        "; expected a CSV with columns path,label; a folder <class>/<files>",
        make=lambda folder, rows: [filled(filled(folder / "my/a/a.txt", "a").parents[1] / "b/b.txt", "b").parents[1]],
    ),
    PathCase(
        "the folder that stage prepare writes to",
        "avrecog data",
        "data: holds data/demo, or lies in it, which stage prepare makes; put the clips into a folder of their own",
        make=lambda folder, rows: [tree(folder / "data", rows)],
    ),
    PathCase(
        "the project itself",
        "avrecog data",
        ".: holds data/demo, or lies in it, which stage prepare makes; put the clips into a folder of their own",
        make=lambda *_: ["."],
    ),
    PathCase(
        "clips that are all missing",
        "avrecog data",
        "none of 2 files is readable media",
        make=lambda folder, _: [filled(folder / "clips.csv", "path,label\na.wav,high\nb.wav,low\n")],
    ),
    PathCase(
        "a CSV of one class",
        "avrecog data",
        "expected two classes at least, got 1 (high)",
        make=lambda folder, rows: [
            filled(folder / "clips.csv", as_text([row for row in rows if row["label"] == "high"]))
        ],
    ),
    PathCase(
        "clips of one speaker alone, before anything is written",
        "avrecog data",
        "16 clips in 1 groups are too few to cut it off",
        make=lambda folder, rows: [
            filled(folder / "clips.csv", as_text([{**row, "group": "the speaker"} for row in rows]))
        ],
    ),
    PathCase(
        "Kinetics' lists without the folder of the media",
        "avrecog data",
        "say where the media are, with a second folder where those of val and test are elsewhere: avrecog data",
        make=lambda folder, rows: [kinetics(folder / "lists", rows)],
    ),
    PathCase(
        "Kinetics' lists of two forms in one folder",
        "avrecog data",
        "expected one train, got train_list.txt and train_list_rawframes.txt; keep one of them",
        make=lambda folder, rows: [filled(kinetics(folder / "lists", rows) / "train_list_rawframes.txt").parent],
    ),
    PathCase(
        "Kinetics' lists beside media",
        "avrecog data",
        "lists: holds media, a folder; DVC hashes everything in data.annotation",
        make=lambda folder, rows: [
            kinetics(folder / "lists", rows),
            "--media",
            tree(folder / "lists/media", rows),
        ],
    ),
    PathCase(
        "a folder of media for a CSV",
        "avrecog data",
        "--media: is of Kinetics' lists and their label map, and clips.csv holds none",
        make=lambda folder, rows: [filled(folder / "clips.csv", as_text(rows)).name, "--media", "."],
    ),
]


GROUPS: Mapping[str, Sequence[Case]] = {
    "Media files": MEDIA,
    "Annotations": TABLES,
    "A path of your own clips": PATHS,
    "params.yaml": PARAMS,
    "What earlier stages wrote": ARTEFACTS,
    "MMAction2's result files": FOREIGN,
}
