"""What a source of clips is to stage prepare; each stands in a file of its own, and in `sources.py` by its name."""

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from avrecog.annotations.annotated_clip import AnnotatedClip
from avrecog.annotations.settings import DataConfig
from avrecog.errors import ConfigError
from avrecog.manifest import Clip


class Source(abc.ABC):
    """Reads an annotation: which clips there are, and what a person said of them."""

    makes_clips: ClassVar[bool] = False  # whether its media are made by reading it
    is_a_tree: ClassVar[bool] = False  # whether it names files by lying around them, some of which may be no media
    has_folds: ClassVar[bool] = False  # whether its clips may have folds

    def check(self, data: DataConfig) -> None:
        """Refuse keys of section `data` that mean nothing with this source, and the lack of those that it needs.

        Raises:
            ConfigError: naming the key.
        """
        if data.kinetics is not None:
            raise ConfigError(f"kinetics: expected null with source {data.source}")
        if data.test_fold is not None and not self.has_folds:
            raise ConfigError(f"test_fold: source {data.source} has no folds; set it to null")

    @abc.abstractmethod
    def read(self, data: DataConfig, out: Path) -> list[AnnotatedClip]:
        """The clips that are annotated.

        Args:
            data: section `data`.
            out: folder for clips that the source makes.

        Raises:
            ManifestError: if the annotation is wrong.
        """

    def class_names(self, data: DataConfig, clips: Sequence[Clip]) -> list[str]:
        """The names of the classes in the order of their indices: sorted, unless the source has an order of its own."""
        return sorted({clip.label for clip in clips})
