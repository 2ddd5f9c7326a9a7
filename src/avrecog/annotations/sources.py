"""Sources of clips by name. A new one is a file beside this, and a line in `SOURCES`."""

from typing import Annotated

from pydantic import AfterValidator

from avrecog.annotations.base import Source
from avrecog.annotations.csv_source import CsvSource
from avrecog.annotations.demo.source import DemoSource
from avrecog.annotations.folder_source import FolderSource
from avrecog.annotations.kinetics_source import KineticsSource
from avrecog.annotations.settings import DataConfig
from avrecog.config import suggest
from avrecog.errors import ConfigError

SOURCES: dict[str, Source] = {
    "demo": DemoSource(),
    "csv": CsvSource(),
    "folder": FolderSource(),
    "kinetics": KineticsSource(),
}


def register(name: str, source: Source) -> None:
    """Add a source that stands elsewhere; it must be run before params.yaml is read.

    Raises:
        ConfigError: if its name is taken.
    """
    if SOURCES.setdefault(name, source) is not source:
        raise ConfigError(f"source {name}: there is one of this name; choose another")


def find_source(data: DataConfig) -> Source:
    """The source that `data.source` names.

    Raises:
        ConfigError: if there is none of that name.
    """
    if data.source not in SOURCES:
        known = ", ".join(SOURCES)
        raise ConfigError(f"source: expected one of {known}, got {data.source!r}{suggest(data.source, SOURCES)}")
    return SOURCES[data.source]


def _checked(data: DataConfig) -> DataConfig:
    find_source(data).check(data)
    return data


DataSection = Annotated[DataConfig, AfterValidator(_checked)]  # section `data`, its source known and content with it
