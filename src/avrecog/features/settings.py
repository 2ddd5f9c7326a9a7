"""Section `audio` of params.yaml: settings of the log-mel front end; ours, those of SlowFast and of MMAction2.

`FRONT_ENDS` has the settings that make the two reference implementations exact.
"""

import math
from typing import Any, Literal

from pydantic import field_validator

from avrecog.config import Count, Flag, NonNegativeNumber, Number, PositiveNumber, section, suggest
from avrecog.errors import ConfigError


@section
class LogMelConfig:
    """Part `logmel` of section `audio` in params.yaml."""

    sample_rate: Count = 16_000  # Hz; waveforms are resampled to this on decoding
    n_fft: Count = 512  # samples; the window is as long
    hop_length: Count = 256  # samples
    n_mels: Count = 80
    f_min: NonNegativeNumber = 0.0  # Hz
    f_max: PositiveNumber | None = None  # Hz; null: half the sample rate
    window: Literal["hann", "sine"] = "hann"
    center: Flag = True  # frame i is centred on sample i * hop_length, zeros beyond the ends
    power: Literal[1, 2] = 2  # 1: magnitude, 2: power
    mel_scale: Literal["htk", "slaney"] = "htk"
    mel_norm: Literal["slaney"] | None = "slaney"  # slaney: every filter has area one
    log: Literal["natural", "decibel"] = "natural"  # natural: log(x + offset); decibel: scaled and clipped to 0..1
    offset: PositiveNumber = 1e-6  # of the natural log
    floor_db: PositiveNumber = 100.0  # decibel: this far below reference_db is 0
    reference_db: Number = 20.0  # decibel: this is 1
    rms_level: PositiveNumber | None = (
        None  # scale every waveform to this root mean square first; null: leave its level
    )

    def __post_init__(self) -> None:
        if self.hop_length > self.n_fft:
            raise ConfigError(f"hop_length: expected at most n_fft ({self.n_fft}), got {self.hop_length}")
        if self.stop_hz > self.sample_rate / 2:
            raise ConfigError(
                f"f_max: expected at most half the sample rate ({self.sample_rate / 2:g}), got {self.f_max}"
            )
        if self.f_min >= self.stop_hz:
            raise ConfigError(f"f_min: expected less than f_max ({self.stop_hz:g}), got {self.f_min:g}")

    @property
    def stop_hz(self) -> float:
        """The upper end of the highest mel band."""
        return self.f_max if self.f_max is not None else self.sample_rate / 2

    @property
    def silence(self) -> float:
        """The front end's value where the waveform is zero."""
        if self.log == "natural":
            return math.log(self.offset)
        return min(1.0, max(0.0, -self.reference_db / self.floor_db))

    @property
    def per_db(self) -> float:
        """By how much a gain of one decibel moves a value (above the floor)."""
        return 1 / self.floor_db if self.log == "decibel" else self.power * math.log(10) / 20

    @property
    def frames_per_s(self) -> float:
        """Mel frames in a second."""
        return self.sample_rate / self.hop_length


@section
class AudioConfig:
    """Section `audio` in params.yaml: the front end."""

    logmel: LogMelConfig  # or the name of one in FRONT_ENDS

    @field_validator("logmel", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in FRONT_ENDS:
            known = " or ".join(FRONT_ENDS)
            raise ValueError(f"expected a mapping, or {known}, got {value!r}{suggest(value, FRONT_ENDS)}")
        return FRONT_ENDS[value]


FRONT_ENDS = {
    "slowfast": LogMelConfig(center=False, offset=1e-8, f_max=8000.0),
    "mmaction2": LogMelConfig(
        f_min=125.0, f_max=7600.0, window="sine", power=1, mel_scale="slaney", log="decibel", rms_level=0.1
    ),
}
