"""The front end: how media become the numbers that a model reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avrecog.config import validate
from avrecog.features.settings import AudioConfig
from avrecog.features.video_settings import VideoConfig


@dataclass(frozen=True)
class FrontEnd:
    """How media become numbers."""

    audio: AudioConfig | None
    video: VideoConfig | None

    @classmethod
    def of(cls, plain_values: Mapping[str, Any]) -> "FrontEnd":
        """The front end that a checkpoint or an export says it was trained with.

        Raises:
            ConfigError: if it says none that there is.
            KeyError: if it lacks one of both.
        """
        return cls(
            validate(AudioConfig | None, plain_values["audio"], "front_end.audio"),
            validate(VideoConfig | None, plain_values["video"], "front_end.video"),
        )
