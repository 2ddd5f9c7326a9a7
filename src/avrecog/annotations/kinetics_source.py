"""Source `kinetics`: lists of clips as MMAction2 has them, a label map, and folders of the downloaded media."""

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.base import Source
from avrecog.annotations.names import cleaned, stem
from avrecog.annotations.settings import DataConfig, KineticsConfig
from avrecog.errors import ConfigError, ManifestError, MediaError
from avrecog.manifest import Clip, media_path
from avrecog.media import mmaction2_features
from avrecog.media.container import probe
from avrecog.media.kinds import claims_to_be_media

TIMES = re.compile(r"_\d{6}_\d{6}$")  # begin and end in seconds, which the downloaders write behind a video's id


class KineticsSource(Source):
    """`data.annotation` is the folder of the lists; `data.kinetics` names them and where the media lie."""

    def check(self, data: DataConfig) -> None:
        """The lists must be named, and have no folds.

        Raises:
            ConfigError: naming the key.
        """
        if data.kinetics is None:
            raise ConfigError(f"kinetics: expected the lists and the roots of the media with source {data.source}")
        if data.test_fold is not None:
            raise ConfigError(f"test_fold: source {data.source} has no folds; set it to null")

    def read(self, data: DataConfig, out: Path) -> list[AnnotatedClip]:
        """The rows of the lists."""
        return read_kinetics(media_path(data.annotation), self._lists(data))

    def class_names(self, data: DataConfig, clips: Sequence[Clip]) -> list[str]:
        """Those of the label map in its order, so that weights and scores of others fit."""
        return read_label_map(media_path(data.annotation), self._lists(data))

    @staticmethod
    def _lists(data: DataConfig) -> KineticsConfig:
        assert data.kinetics is not None, "check sees to it"
        return data.kinetics


def read_kinetics(folder: Path, config: KineticsConfig) -> list[AnnotatedClip]:
    """The rows of the lists, in their order, each with the media file that it means.

    A line is `path label` or `path frames label`, separated by white space, the label counted from 0. The path may
    hold spaces; a whole number before the label is the number of the video's frames, which stands in the manifest where
    the file has no picture of its own (`.npy`, sound); a file with a picture tells its own.

    The path counts from the list's root. It may be a bare video id: an ending may be missing (`.npy` is taken for
    none), as may the folder of the class, written with spaces or underscores, and the times that downloaders add
    (`<id>_000012_000022.mp4`). A file that isn't there stays in the rows, for stage prepare to count. The clips of one
    video id are one group.

    Raises:
        ManifestError: if a list, the label map or a root can't be read, a list is empty, or lines are wrong (all are
            counted, twenty listed).
    """
    labels = read_label_map(folder, config)
    clips: list[AnnotatedClip] = []
    problems: list[str] = []
    roots: dict[str, _Root] = {}
    for split in ("train", "val", "test"):
        name = getattr(config, split)
        if name is None:
            continue
        key = f"{split}_root" if getattr(config, f"{split}_root") is not None else "train_root"
        written = getattr(config, key)
        if written not in roots:
            roots[written] = _Root(written, key)
        n_before = len(clips) + len(problems)
        for number, line in enumerate(_lines(folder / name), start=1):
            if not line.strip():
                continue
            where = f"{name}, line {number}"
            try:
                clips.append(_annotated(line, where, split, labels, roots[written]))
            except ValueError as error:
                problems.append(f"{where}: {error}")
        if len(clips) + len(problems) == n_before:
            raise ManifestError(f"{folder / name}: has no lines; expected `path label` or `path frames label`")
    if problems:
        shown = "\n  ".join(problems[:20])
        raise ManifestError(f"{folder}: {len(problems)} lines are wrong:\n  {shown}")
    return clips


def read_label_map(folder: Path, config: KineticsConfig) -> list[str]:
    """The class names; the index of a name is its label in the lists.

    Raises:
        ManifestError: if the file can't be read, is empty, has an empty line or names a class twice.
    """
    path = folder / config.label_map
    names = [cleaned(line) for line in _lines(path)]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ManifestError(f"{path}: is empty; expected one class name a line")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name:
            raise ManifestError(f"{path}, line {number}: is empty; every line is a class, counted from 0")
        if name in seen:
            raise ManifestError(f"{path}, line {number}: class {name!r} stands in line {seen[name]} already")
        seen[name] = number
    return names


def check_only_lists(folder: Path) -> None:
    """Refuse a folder of lists that holds anything heavy: DVC hashes all of it whenever it looks for changes.

    Raises:
        ManifestError: if it is no folder, or holds a folder or a file that isn't text.
    """
    if not os.path.isdir(folder):
        raise ManifestError(f"{folder}: expected a folder with the lists and the label map (source kinetics)")
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() or not _is_text(entry.path):
            what = "a folder" if entry.is_dir() else "which isn't text"
            raise ManifestError(
                f"{folder}: holds {entry.name}, {what}; DVC hashes everything in data.annotation, so copy the lists "
                f"and the label map into a folder of their own; data.kinetics says where the media lie"
            )


def _is_text(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"\0" not in file.read(2**16)
    except OSError:  # reading it as a list says so
        return True


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return io.StringIO(text, newline=None).read().split("\n")  # a name may hold Unicode's own ends of lines
    except OSError as error:
        raise ManifestError(
            f"{path}: can't be read ({error.strerror}); see data.annotation and data.kinetics in params.yaml"
        ) from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: expected text in UTF-8 ({error})") from None


def _annotated(line: str, where: str, split: str, labels: list[str], root: "_Root") -> AnnotatedClip:
    if "\0" in line:
        raise ValueError("expected text, got a NUL character")
    words = line.rsplit(maxsplit=2)
    if len(words) < 2:
        raise ValueError(f"expected `path label` or `path frames label`, got {line.strip()[:80]!r}")
    label = words[-1]
    if not _is_count(label) or int(label) >= len(labels):
        raise ValueError(f"expected a label from 0 to {len(labels) - 1} as the last word, got {label[:80]!r}")
    counted = len(words) == 3 and _is_count(words[1])
    path = (words[0] if counted else line.rsplit(maxsplit=1)[0]).strip()
    name = labels[int(label)]
    file = root.file_of(path, name)
    return AnnotatedClip(
        path=file,
        label=name,
        where=where,
        split=split,
        group=_video_id(file),
        n_frames=int(words[1]) if counted else None,
    )


def _is_count(text: str) -> bool:
    return len(text) < 10 and text.isascii() and text.isdigit()


def _media_among(root: Path, files: set[str]) -> set[str]:
    """Those that claim to be media (stage prepare says what is wrong with them); where none does, those that are.

    What a downloader puts beside a video (`<id>.json`, `<id>.jpg`) is not opened then: probing it may take longer than
    probing a video.
    """
    return {file for file in files if claims_to_be_media(root / file)} or {
        file for file in files if _is_media(root / file)
    }


def _is_media(path: Path) -> bool:
    try:
        probe(path)
    except MediaError:
        return False
    return True


def _video_id(path: str) -> str:
    return TIMES.sub("", stem(os.path.basename(path)))


class _Root:
    """A folder of media, each folder in it listed once, when it is first asked for."""

    def __init__(self, written: str, key: str) -> None:
        """Open the root that stands at `data.kinetics.<key>`.

        Raises:
            ManifestError: if there is no such folder.
        """
        self._written, self._real = written, media_path(written)
        self._folders: dict[str, _Folder] = {}
        if not os.path.isdir(self._real):
            raise ManifestError(f"data.kinetics.{key}: {written} is no folder; expected the one that holds the media")
        self._classes: dict[str, list[str]] = {}  # cleaned name -> folders
        for entry in sorted(os.scandir(self._real), key=lambda entry: entry.name):
            if entry.is_dir():
                self._classes.setdefault(cleaned(entry.name), []).append(entry.name)

    def file_of(self, path: str, label: str) -> str:
        """The file that a list's path means, as it will stand in the manifest; the path itself where there is none.

        Raises:
            ValueError: if several files fit equally well.
        """
        parent, name = os.path.split(path)
        of_class = [each for key in (label, label.replace(" ", "_")) for each in self._classes.get(key, ())]
        folders = [self._folder(each) for each in dict.fromkeys([parent, *of_class])]
        if name in folders[0].files:
            return os.path.join(self._written, path)
        bare = stem(name) if name.endswith(mmaction2_features.ENDING) else name
        ways = (("files", name), ("by_stem", bare), ("by_id", bare), ("by_id", stem(name)))  # the nearest first
        fitting = [[file for folder in folders for file in getattr(folder, table).get(key, ())] for table, key in ways]
        candidates = {file for files in fitting for file in files}
        if len(candidates) > 1:
            media = _media_among(self._real, candidates)
            fitting = [[file for file in files if file in media] for files in fitting]
        for found in fitting:
            if len(found) > 1:
                raise ValueError(f"{path} may be {' or '.join(found[:3])} below {self._written}; keep one of them")
            if found:
                return os.path.join(self._written, found[0])
        return os.path.join(self._written, path)

    def _folder(self, name: str) -> "_Folder":
        if name not in self._folders:
            self._folders[name] = _Folder(self._real / name, name)
        return self._folders[name]


class _Folder:
    """The files of a folder, as paths below the root: by name, by name without ending, by id where times follow.

    Feature files are found by the path that a list gives, and stand for no other one.

    Raises:
        ManifestError: if the folder is there and can't be listed.
    """

    def __init__(self, real: Path, name: str) -> None:
        self.files: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        self.by_id: dict[str, list[str]] = {}
        try:
            files = sorted(os.listdir(real)) if os.path.isdir(real) else []
        except OSError as error:
            raise ManifestError(f"{real}: can't be listed ({error.strerror})") from None
        for file in files:
            if file.startswith(".") or file.endswith(mmaction2_features.ENDING):
                continue
            path, bare = os.path.join(name, file), stem(file)
            self.files[file] = [path]
            self.by_stem.setdefault(bare, []).append(path)
            if TIMES.search(bare):
                self.by_id.setdefault(TIMES.sub("", bare), []).append(path)
