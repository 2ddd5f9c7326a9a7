"""The one check of what people call things, for all sources: labels, groups, clip ids and paths."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

JOINERS = "\u200c\u200d"  # between letters they change the word (Persian, Hindi) or the picture (emoji)
# drawn as nothing or as a blank, though Unicode counts them among letters, marks and symbols
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\u2800\u3164\ufe00-\ufe0f\uffa0]")

_ENDING = re.compile(r"\.(?=[^.]*[A-Za-z])[A-Za-z0-9]{1,5}$")


def cleaned(name: str) -> str:
    r"""A label or a group as the tables have it: in Unicode's form NFC, without what can't be seen.

    Control characters and all kinds of blanks become spaces, which are dropped at both ends; characters without a shape
    (zero-width space, byte order mark, soft hyphen) are dropped; bytes that are no UTF-8 are written out (`\xe9`).
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = unicodedata.normalize("NFC", "".join(_visible(character) for character in text))
    return text.strip(f" {JOINERS}")


def shown(name: str) -> str:
    r"""A name that any terminal and any file can hold in a line: what can't be printed is escaped (`\r`, `\xe9`)."""
    return "".join(character if character.isprintable() else _escaped(character) for character in name)


def name_problem(name: str) -> str | None:
    """Why a path or a clip id can't stand in tables and logs, or None."""
    if any("\udc80" <= character <= "\udcff" for character in name):
        return "is no UTF-8"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "holds a control character"
    return None


def stem(name: str) -> str:
    """A file's name without its ending, which holds a letter: a dot and a number belong to the name."""
    return _ENDING.sub("", name)


def joined_spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """`label -> spellings` of the labels that are written otherwise than `cleaned` has them, or in several ways."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[cleaned(name)].add(name)
    return {label: sorted(found) for label, found in sorted(spellings.items()) if found != {label}}


def look_alikes(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that differ in case, in width, or in what can't be seen, and in nothing else."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in sorted(set(labels)):
        folded = unicodedata.normalize("NFKC", _BLANK.sub("", label)).casefold()
        groups[" ".join(unicodedata.normalize("NFKC", folded).split())].append(label)
    return [group for group in groups.values() if len(group) > 1]


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cc" or category.startswith("Z"):
        return " "
    return "" if category == "Cf" and character not in JOINERS else character


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
