"""Which of the sources a path is: a CSV, a tree of classes, or a folder of Kinetics' lists; and the clips it names."""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.csv_source import read_csv
from avrecog.annotations.folder_source import read_folder, why_unwatchable
from avrecog.annotations.kinetics_source import check_only_lists, read_kinetics
from avrecog.annotations.settings import KineticsConfig
from avrecog.config import read_yaml
from avrecog.errors import ConfigError, ManifestError

PIPELINE = Path("dvc.yaml")
EXPECTED = (
    "expected a CSV with columns path,label; a folder <class>/<files> or <train|val|test>/<class>/<files>; or a folder "
    "with Kinetics' lists and label map"
)
LIST_OF = {
    "train": re.compile(r"(?<![a-z])train(?![a-z])"),
    "val": re.compile(r"(?<![a-z])val(id|idation)?(?![a-z])"),
    "test": re.compile(r"(?<![a-z])test(?![a-z])"),
}
LABEL_MAP = re.compile(r"label|class")
MAX_SNIFFED = 2**16  # bytes


@dataclass(frozen=True)
class DataSource:
    """What a path is, as section `data` of params.yaml has it, and what it names."""

    source: str  # csv, folder or kinetics
    annotation: str  # the path: below the project's root, or absolute
    kinetics: KineticsConfig | None
    rows: Sequence[AnnotatedClip]


def recognise(path: Path, media: Sequence[Path]) -> DataSource:
    """What the path is, its annotation read and checked.

    Args:
        path: of a file or a folder.
        media: of Kinetics' lists: the folders of the media, of train and, where that is another one, of val and test.

    Raises:
        ConfigError: if nothing is there, it is no source, params.yaml can't hold it, or DVC can't watch it.
        ManifestError: if it is one, and wrong.
    """
    annotation = written(path)
    if not os.path.exists(path):
        raise ConfigError(f"{path}: no such file or folder, or none that may be read; {EXPECTED}")
    _refuse_outputs(annotation)
    if path.is_dir() and (unwatchable := why_unwatchable(path, annotation)):
        raise ConfigError(unwatchable)
    entries = _entries(path) if path.is_dir() else []
    may_be_lists = bool(media) or not any(entry.is_dir() for entry in entries)
    lists = _kinetics_lists(path, entries) if may_be_lists else None
    if media and lists is None:
        raise ConfigError(f"--media: is of Kinetics' lists and their label map, and {path} holds none")
    if lists is not None:
        check_only_lists(path)
        kinetics = _with_media(path, lists, media)
        return DataSource("kinetics", annotation, kinetics, read_kinetics(path, kinetics))
    if path.is_dir():
        return DataSource("folder", annotation, None, _tree(path, annotation))
    return DataSource("csv", annotation, None, _table(path, annotation))


def written(path: Path) -> str:
    """A path as params.yaml has it: as given where it is relative and leads into the project, else absolute.

    Raises:
        ConfigError: if it holds what no table can: bytes that aren't UTF-8, or control characters.
    """
    absolute = path.resolve() if ".." in path.parts else path.absolute()
    result = absolute
    if not path.is_absolute() and absolute.is_relative_to(Path.cwd()):
        below = absolute.relative_to(Path.cwd())
        if ":" not in str(below).partition("/")[0]:  # DVC takes `s3:/clips` for an address
            result = below
    text = str(result)
    odd = [character for character in text if unicodedata.category(character) in ("Cc", "Cs")]
    if odd:
        what = "bytes that aren't UTF-8" if unicodedata.category(odd[0]) == "Cs" else "a control character"
        raise ConfigError(f"{ascii(text)}: holds {what}, which no table can; rename the file or the folder")
    return text


def _refuse_outputs(annotation: str) -> None:
    """DVC watches the whole of what is named, so that it must not hold what stage prepare makes.

    Raises:
        ConfigError: naming the first output in it, or around it.
    """
    here = Path(annotation).absolute()
    stage = read_yaml(PIPELINE).get("stages", {}).get("prepare", {})
    for entry in stage.get("outs", ()):
        out = entry if isinstance(entry, str) else next(iter(entry))
        output = Path(out).absolute()
        if output.is_relative_to(here) or here.is_relative_to(output):
            raise ConfigError(
                f"{annotation}: holds {out}, or lies in it, which stage prepare makes; put the clips into a folder of "
                f"their own"
            )


def _table(path: Path, annotation: str) -> list[AnnotatedClip]:
    """The rows of a CSV.

    Raises:
        ConfigError: if it is no text.
        ManifestError: if it can't be read, or rows are wrong.
    """
    try:
        with path.open("rb") as file:
            is_text = b"\0" not in file.read(MAX_SNIFFED)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror})") from None
    if not is_text:
        raise ConfigError(f"{path}: isn't text; {EXPECTED}")
    return read_csv(path, Path(annotation).parent)


def _tree(path: Path, annotation: str) -> list[AnnotatedClip]:
    """The files of a tree of classes.

    Raises:
        ConfigError: if there are none.
    """
    tables = sorted(each.name for each in path.glob("*.csv"))
    hint = f"; of the CSVs in it name one: {', '.join(tables[:5])}" if tables else ""
    try:
        rows = read_folder(path, Path(annotation))
    except ManifestError as error:
        raise ConfigError(f"{error}{hint}; {EXPECTED}") from None
    labels = sorted({row.label for row in rows})
    if len(labels) < 2:
        got = f"files in {labels[0]} alone" if labels else "none with files"
        raise ConfigError(f"{path}: expected two class folders at least, got {got}{hint}; {EXPECTED}")
    return rows


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted.

    Raises:
        ConfigError: if it can't be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"{folder}: can't be listed ({error.strerror}); make it readable") from None


def _kinetics_lists(folder: Path, entries: Sequence[Path]) -> dict[str, str | None] | None:
    """The names of the lists and the label map in a folder, as data.kinetics has them; None where it isn't one of them.

    As in the recipes, val is cut from train where there is no list of the test: then MMAction2's val list is the test.

    Raises:
        ConfigError: if there are several of one kind.
    """
    names = [each.name for each in entries if each.suffix in (".txt", ".list", ".lst") and each.is_file()]
    kinds: dict[str, list[str]] = {"label_map": [name for name in names if LABEL_MAP.search(name.lower())]}
    others = [name for name in names if name not in kinds["label_map"]]
    for split, pattern in LIST_OF.items():
        kinds[split] = [name for name in others if pattern.search(name.lower().replace("_", " "))]
    if not kinds["label_map"] or not kinds["train"]:
        return None
    several = [(kind, found) for kind, found in kinds.items() if len(found) > 1]
    if several:
        kind, found = several[0]
        raise ConfigError(
            f"{folder}: expected one {kind.replace('_', ' ')}, got {' and '.join(found)}; keep one of them"
        )
    lists = {kind: found[0] if found else None for kind, found in kinds.items()}
    if lists["test"] is None:
        lists |= {"val": None, "test": lists["val"]}
    return lists


def _with_media(folder: Path, lists: dict[str, str | None], media: Sequence[Path]) -> KineticsConfig:
    """Section data.kinetics: the lists, and the folders of their media.

    Raises:
        ConfigError: if the folders aren't told, or too many are.
    """
    if not 1 <= len(media) <= 2:
        raise ConfigError(
            f"{folder}: holds Kinetics' lists; say where the media are, with a second folder where those of val and "
            f"test are elsewhere: avrecog data {folder} --media FOLDER [FOLDER]; got {len(media)} folders"
        )
    roots = [written(each) for each in media]
    other = roots[1] if len(roots) > 1 else None
    return KineticsConfig(
        train=str(lists["train"]),
        label_map=str(lists["label_map"]),
        train_root=roots[0],
        val=lists["val"],
        test=lists["test"],
        val_root=other if lists["val"] else None,
        test_root=other if lists["test"] else None,
    )
