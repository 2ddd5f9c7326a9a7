"""The sound of a demo clip: modal synthesis, that is, a sum of damped sines that impacts or friction set ringing.

The material sets the ratios of the modes' frequencies and how fast they die; the pitch, which in nature goes with an
object's size, is drawn from ranges that overlap, so that it doesn't give the material away.
Source: van den Doel and Pai, "The Sounds of Physical Shapes", 1998.
"""

from dataclasses import dataclass

import numpy as np

from avrecog.annotations.demo.motion import Motion


@dataclass(frozen=True)
class Material:
    """How an object of this material rings."""

    ratios: tuple[float, ...]  # frequencies of the modes over the lowest one's
    pitch_hz: tuple[float, float]  # range of the lowest mode
    decay_s: tuple[float, float]  # range of the lowest mode's time to fall to 1/e
    damping: float  # decay time goes with frequency to the power of -damping
    tilt: float  # amplitude goes with frequency to the power of -tilt


MATERIALS = {
    "metal": Material((1, 2.756, 5.404, 8.933, 13.34), (250, 800), (0.2, 0.8), 0.3, 0.3),  # a free bar
    "wood": Material((1, 2.572, 4.644, 6.984), (220, 750), (0.015, 0.06), 0.7, 0.9),  # a xylophone-like bar
    "glass": Material((1, 2.32, 4.25, 6.63, 9.38), (300, 1000), (0.05, 0.25), 0.2, 0.4),  # a wine glass
}


@dataclass(frozen=True)
class Sound:
    """All that was drawn for one clip's sound; `synthesise` makes the waveform of it."""

    frequencies_hz: np.ndarray  # (M,) float64, below half the sample rate
    decays_s: np.ndarray  # (M,)
    amplitudes: np.ndarray  # (M,)
    contact_s: float  # length of an impact's push
    grain: np.ndarray  # (S,) what friction or rolling pushes with at full speed
    hiss: np.ndarray  # (S,) background, standard deviation 1
    click_s: np.ndarray  # (C,) moments of stray clicks
    click_strength: np.ndarray  # (C,) over the hiss
    snr_db: float
    peak: float  # of the finished waveform, below 1


def draw_sound(
    generator: np.random.Generator,
    action: str,
    material: str,
    n_samples: int,
    sample_rate: int,
    *,
    snr_db: tuple[float, float],
    n_clicks: int,
) -> Sound:
    """The sound of an action on a material, in a room with hiss and at most `n_clicks` stray clicks."""
    kind = MATERIALS[material]
    ratios = np.array(kind.ratios) * np.append(1, generator.uniform(0.97, 1.03, len(kind.ratios) - 1))
    frequencies_hz = _log_uniform(generator, kind.pitch_hz) * ratios
    frequencies_hz = frequencies_hz[frequencies_hz < 0.47 * sample_rate]
    ratios = ratios[: len(frequencies_hz)]
    grain = generator.standard_normal(n_samples)
    if action == "roll":  # many small impacts instead of steady friction
        grain *= generator.random(n_samples) < generator.uniform(100, 400) / sample_rate
    clicks = int(generator.integers(0, n_clicks + 1))
    return Sound(
        frequencies_hz=frequencies_hz,
        decays_s=_log_uniform(generator, kind.decay_s) * ratios**-kind.damping,
        amplitudes=generator.uniform(0.4, 1, len(ratios)) * ratios**-kind.tilt,
        contact_s=_log_uniform(generator, (0.0002, 0.001)),
        grain=grain,
        hiss=_hiss(generator, n_samples),
        click_s=generator.uniform(0, n_samples / sample_rate, clicks),
        click_strength=generator.uniform(2, 12, clicks),
        snr_db=float(generator.uniform(*snr_db)),
        peak=float(generator.uniform(0.3, 0.9)),
    )


def synthesise(sound: Sound, motion: Motion, sample_rate: int) -> np.ndarray:
    """The waveform: the motion pushes, the modes ring, the room hisses.

    Returns: (S,) float32 in (-1, 1).
    """
    ringing = ring(sound, motion, sample_rate)
    noise = sound.hiss.copy()
    noise[(sound.click_s * sample_rate).astype(np.int64)] += sound.click_strength
    level = np.sqrt(np.mean(ringing**2) / np.mean(noise**2)) * 10 ** (-sound.snr_db / 20)
    mixed = ringing + level * noise
    return (mixed * (sound.peak / np.abs(mixed).max())).astype(np.float32)


def ring(sound: Sound, motion: Motion, sample_rate: int) -> np.ndarray:
    """The action's own sound, without the room; (S,) float64, not scaled."""
    n_samples = len(sound.grain)
    times_s = np.arange(n_samples) / sample_rate
    push = np.zeros(n_samples) if len(motion.impact_s) else sound.grain * motion.speed(times_s)
    n_contact = max(2, round(sound.contact_s * sample_rate))
    contact = np.sin(np.pi * (np.arange(n_contact) + 0.5) / n_contact) / n_contact
    for moment_s, strength in zip(motion.impact_s, motion.impact_strength, strict=True):
        start = int(moment_s * sample_rate)
        push[start : start + n_contact] += strength * contact[: n_samples - start]
    modes = np.exp(-times_s / sound.decays_s[:, None]) * np.sin(2 * np.pi * sound.frequencies_hz[:, None] * times_s)
    return _convolved(push, sound.amplitudes @ modes)


def _convolved(push: np.ndarray, response: np.ndarray) -> np.ndarray:
    n_fft = 1 << (2 * len(push) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(push, n_fft) * np.fft.rfft(response, n_fft), n_fft)[: len(push)]


def _hiss(generator: np.random.Generator, n_samples: int) -> np.ndarray:
    """Noise with a random spectral slope, between white and pink, whose loudness wanders; standard deviation 1."""
    spectrum = np.fft.rfft(generator.standard_normal(n_samples))
    spectrum *= np.arange(1, len(spectrum) + 1) ** -generator.uniform(0, 0.5)
    noise = np.fft.irfft(spectrum, n_samples)
    swell = np.sin(np.pi * np.linspace(0, generator.uniform(0.5, 4), n_samples) + generator.uniform(0, 2 * np.pi))
    noise *= 1 + generator.uniform(0, 0.9) * swell
    return noise / noise.std()


def _log_uniform(generator: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(generator.uniform(*np.log(limits))))
