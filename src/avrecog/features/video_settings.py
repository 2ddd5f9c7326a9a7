"""Section `video` of params.yaml: apart from the decoder, so that a machine without PyAV can read it."""

from avrecog.config import Count, PositiveNumber, WholeNumber, section
from avrecog.errors import ConfigError


@section
class CropConfig:
    """Part `crop` of section `video`: a fixed region of the picture, turned upright, in the file's pixels."""

    x: WholeNumber
    y: WholeNumber
    width: Count
    height: Count


@section
class VideoConfig:
    """Section `video` in params.yaml: the frames that are stored."""

    fps: PositiveNumber = 10.0  # frames stored a second
    height: Count = 72  # pixels; the picture is scaled to cover height x width and cut in the middle
    width: Count = 72
    crop: CropConfig | None = None  # cut this region first; null: the whole picture

    def __post_init__(self) -> None:
        if self.height % 2 or self.width % 2:
            raise ConfigError(f"height: expected even height and width, got {self.height} x {self.width}")
