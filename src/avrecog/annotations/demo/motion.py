"""What happens when in a demo clip: the one timeline that its picture shows and its sound follows."""

from dataclasses import dataclass

import numpy as np

ACTIONS = ("tap", "scrape", "bounce", "roll")
STRIKING = ("tap", "bounce")  # these touch at moments; the others, all the time


@dataclass(frozen=True)
class Motion:
    """One thing's way over a surface; lengths count in picture heights, the surface is at height 0.

    A striking action touches the surface at the inner times of `touch_s`; its first and last lie outside the clip. Any
    other stays on the surface, and `touch_s` is empty.
    """

    action: str
    touch_s: np.ndarray  # (N,) float64, increasing
    peaks: np.ndarray  # (N - 1,) float64: greatest height between two touches
    swing: float  # how far it goes to each side
    rate_hz: float  # swings per second
    phase: float  # radians

    @property
    def impact_s(self) -> np.ndarray:
        """(N - 2,) float64: the impacts, in seconds, increasing."""
        return self.touch_s[1:-1]

    @property
    def impact_strength(self) -> np.ndarray:
        """(N - 2,) float64 in (0, 1]: the speed of each impact, which goes with the root of the height fallen."""
        return np.sqrt(self.peaks[:-1] / self.peaks.max()) if len(self.peaks) else self.peaks

    def height(self, time_s: np.ndarray) -> np.ndarray:
        """The thing's height over the surface at times within the clip; same shape."""
        if not len(self.touch_s):
            return np.zeros_like(time_s)
        index = np.clip(np.searchsorted(self.touch_s, time_s, side="right") - 1, 0, len(self.peaks) - 1)
        part = (time_s - self.touch_s[index]) / (self.touch_s[index + 1] - self.touch_s[index])
        return self.peaks[index] * np.clip(4 * part * (1 - part), 0, 1)

    def place(self, time_s: np.ndarray) -> np.ndarray:
        """The thing's place along the surface, 0 in the middle; same shape as `time_s`."""
        return self.swing * np.sin(2 * np.pi * self.rate_hz * time_s + self.phase)

    def speed(self, time_s: np.ndarray) -> np.ndarray:
        """Its speed along the surface, in parts of the greatest, 0 to 1; same shape as `time_s`."""
        return np.abs(np.cos(2 * np.pi * self.rate_hz * time_s + self.phase))


def draw_motion(generator: np.random.Generator, action: str, duration_s: float) -> Motion:
    """A motion of the given action, with its own moments, heights and speed.

    Raises:
        ValueError: if the action is unknown.
    """
    if action not in ACTIONS:
        raise ValueError(f"expected an action of {', '.join(ACTIONS)}, got {action!r}")
    phase = float(generator.uniform(0, 2 * np.pi))
    if action == "scrape":
        swing, rate_hz = generator.uniform((0.15, 0.5), (0.3, 1.1))
        return Motion(action, _NONE, _NONE, swing, rate_hz, phase)
    if action == "roll":
        swing, rate_hz = generator.uniform((0.12, 0.3), (0.25, 0.7))
        return Motion(action, _NONE, _NONE, swing, rate_hz, phase)
    gaps_s = _bounce_gaps(generator, duration_s) if action == "bounce" else _tap_gaps(generator, duration_s)
    touch_s = np.cumsum(gaps_s) - generator.uniform(0.1, 0.9) * gaps_s[0] - gaps_s[0]
    inside = np.flatnonzero((touch_s > 0) & (touch_s < duration_s))
    touch_s = touch_s[inside[0] - 1 : inside[-1] + 2]
    gaps_s = np.diff(touch_s)
    if action == "bounce":
        peaks = generator.uniform(1.2, 1.8) * gaps_s**2
        return Motion(action, touch_s, np.minimum(peaks, 0.65), float(generator.uniform(0, 0.2)), 0.2, phase)
    peaks = generator.uniform(0.2, 0.35) * generator.uniform(0.7, 1, len(gaps_s))
    return Motion(action, touch_s, peaks, 0.0, 0.0, phase)


_NONE = np.zeros(0)


def _tap_gaps(generator: np.random.Generator, duration_s: float) -> np.ndarray:
    return generator.uniform(0.25, 0.7, int(duration_s / 0.25) + 4)


def _bounce_gaps(generator: np.random.Generator, duration_s: float) -> np.ndarray:
    """Gaps that shrink from bounce to bounce; a ball that has come to rest is thrown up anew."""
    gaps_s: list[float] = []
    while sum(gaps_s) < duration_s + 1.5:
        gap_s, kept = generator.uniform(0.45, 0.7), generator.uniform(0.7, 0.9)
        while gap_s > 0.25:
            gaps_s.append(gap_s)
            gap_s *= kept
    return np.array(gaps_s)
