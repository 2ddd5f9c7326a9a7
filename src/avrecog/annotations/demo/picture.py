"""The picture of a demo clip: a tool or a ball and a slab, drawn by signed distances; it knows nothing of the material.

T frames, H W height and width. The scene's x goes right and y goes up, in picture heights; the slab's top is y = 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from avrecog.annotations.demo.motion import Motion


@dataclass(frozen=True)
class Blob:
    """A thing that means nothing: a drifting ball (both ends the same) or stick, in picture heights from the middle."""

    ends: np.ndarray  # (2, 2) x, y of its two ends
    radius: float
    drift: np.ndarray  # (2,) x, y per second
    colour: np.ndarray  # (3,) 0 to 1


@dataclass(frozen=True)
class Scene:
    """All that was drawn for one clip's picture; `render` makes the frames of it."""

    middle: np.ndarray  # (2,) x, y of the slab's top centre, in picture heights from the picture's middle
    zoom: float
    tilt: float  # radians
    mirrored: bool
    size: float  # of the tool or ball, 1 the usual
    lean: float  # radians, of the tool
    slab: tuple[float, float]  # half its width, and its thickness
    sky: np.ndarray  # (2, 3) colours at two opposite edges
    sky_angle: float
    slab_colour: np.ndarray  # (3,)
    thing_colour: np.ndarray  # (3,)
    mark_colour: np.ndarray  # (3,) of the hammer's handle and the ball's stripe
    blobs: tuple[Blob, ...]
    noise: np.ndarray  # (T, H, W) float32, added to all three colours


def draw_scene(generator: np.random.Generator, n_frames: int, size: int, noise: float, n_distractors: int) -> Scene:
    """A scene for any action: place, colours, at most `n_distractors` distractors and pixel noise are random.

    What acts is lighter than the slab, and the slab lighter than what is behind it; hues tell nothing. `noise` is a
    standard deviation, of the full range of brightness.
    """
    sky = np.clip(generator.uniform(0.05, 0.3, 3) + generator.normal(0, 0.03, (2, 3)), 0, 1)
    slab_colour = generator.uniform(0.35, 0.6, 3)
    thing_colour = generator.uniform(0.7, 1.0, 3)
    return Scene(
        middle=np.array([generator.uniform(-0.1, 0.1), generator.uniform(-0.36, -0.2)]),
        zoom=float(generator.uniform(0.85, 1.1)),
        tilt=float(generator.uniform(-0.15, 0.15)),
        mirrored=bool(generator.random() < 0.5),
        size=float(generator.uniform(0.9, 1.3)),
        lean=float(generator.uniform(0.5, 1.0)),
        slab=(float(generator.uniform(0.4, 0.7)), float(generator.uniform(0.06, 0.2))),
        sky=sky,
        sky_angle=float(generator.uniform(0, 2 * np.pi)),
        slab_colour=slab_colour,
        thing_colour=thing_colour,
        mark_colour=generator.uniform(0.5, 0.8, 3),
        blobs=tuple(_draw_blob(generator) for _ in range(generator.integers(0, n_distractors + 1))),
        noise=noise * generator.standard_normal((n_frames, size, size), dtype=np.float32),
    )


def render(scene: Scene, motion: Motion, times_s: np.ndarray) -> np.ndarray:
    """The frames that show the motion in the scene at the given times.

    Returns: (T, H, W, 3) uint8.
    """
    size = scene.noise.shape[1]
    right = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5)[None, None, :]
    up = -right.swapaxes(1, 2)
    along = 0.5 + right * np.cos(scene.sky_angle) + up * np.sin(scene.sky_angle)
    frames = np.empty((len(times_s), size, size, 3), np.float32)
    frames[:] = scene.sky[0] + np.clip(along, 0, 1)[..., None] * (scene.sky[1] - scene.sky[0])
    pixel = 1 / size
    for blob in scene.blobs:
        shift = blob.drift * times_s[:, None]  # (T, 2)
        distance = _to_stick(right, up, blob.ends[0] + shift, blob.ends[1] + shift) - blob.radius
        _paint(frames, distance / pixel, blob.colour)
    x, y = _scene_coordinates(scene, right, up)
    pixel /= scene.zoom
    for distance, colour in _shapes(scene, motion, times_s, x, y):
        _paint(frames, distance / pixel, colour)
    frames += scene.noise[..., None]
    frames *= 255
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)


def _shapes(
    scene: Scene, motion: Motion, times_s: np.ndarray, x: np.ndarray, y: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Signed distances, (T or 1, H, W) and negative inside, with the colour of each; from back to front."""
    half_width, thickness = scene.slab
    yield np.maximum(np.abs(x) - half_width, np.abs(y + thickness / 2) - thickness / 2), scene.slab_colour
    place, height = motion.place(times_s), motion.height(times_s)
    size = scene.size
    if motion.action == "tap":
        head = np.stack([place, height + 0.08 * size], axis=1)  # (T, 2), its middle
        grip = np.array([0.55, 0.2]) * size + [0, 0.08]  # the hand stays and the hammer turns about it
        yield _to_stick(x, y, head, np.broadcast_to(grip, head.shape)) - 0.028 * size, scene.mark_colour
        aside, above = np.abs(x - _per_frame(head[:, 0])), np.abs(y - _per_frame(head[:, 1]))
        yield np.maximum(aside - 0.075 * size, above - 0.08 * size), scene.thing_colour
    elif motion.action == "scrape":
        tip = np.stack([place, height + 0.02], axis=1)
        top = tip + 0.5 * size * np.array([np.sin(scene.lean), np.cos(scene.lean)])
        yield _to_stick(x, y, tip, top) - 0.025 * size, scene.thing_colour
        yield _to_stick(x, y, tip + 0.55 * (top - tip), top) - 0.04 * size, scene.mark_colour
    else:
        radius = 0.13 * size
        if motion.action == "roll":  # between two stops
            stop = np.abs(np.abs(x) - motion.swing - radius - 0.03) - 0.03
            yield np.maximum(stop, np.abs(y - 0.08) - 0.08), scene.slab_colour
        centre = np.stack([place, height + radius], axis=1)
        angle = -place / radius if motion.action == "roll" else np.full(len(times_s), scene.lean)
        stripe = 0.8 * radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        yield _to_stick(x, y, centre, centre) - radius, scene.thing_colour
        yield _to_stick(x, y, centre - stripe, centre + stripe) - 0.2 * radius, scene.mark_colour


def _scene_coordinates(scene: Scene, right: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right, up = (right - scene.middle[0]) / scene.zoom, (up - scene.middle[1]) / scene.zoom
    cos, sin = np.float32(np.cos(scene.tilt)), np.float32(np.sin(scene.tilt))
    x, y = cos * right + sin * up, cos * up - sin * right
    return (-x if scene.mirrored else x), y


def _to_stick(x: np.ndarray, y: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Distance from each pixel to the line between two points, each (T, 2); (T, H, W) float32."""
    x0, y0 = _per_frame(start[:, 0]), _per_frame(start[:, 1])
    dx, dy = _per_frame(stop[:, 0]) - x0, _per_frame(stop[:, 1]) - y0
    x, y = x - x0, y - y0
    squared = dx * dx + dy * dy
    if not squared.any():
        return np.sqrt(x * x + y * y)
    part = np.clip((x * dx + y * dy) / squared, 0, 1)
    x, y = x - part * dx, y - part * dy
    return np.sqrt(x * x + y * y)


def _per_frame(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]


def _paint(frames: np.ndarray, distance_pixels: np.ndarray, colour: np.ndarray) -> None:
    """Lay a colour over the frames where the distance is negative, with an edge one pixel soft."""
    cover = np.clip(0.5 - distance_pixels, 0, 1)[..., None]
    frames += cover * (colour.astype(np.float32) - frames)


def _draw_blob(generator: np.random.Generator) -> Blob:
    place = generator.uniform(-0.5, 0.5, 2)
    is_stick = generator.random() < 0.5
    half_length = generator.uniform(-0.2, 0.2, 2) if is_stick else np.zeros(2)
    return Blob(
        ends=np.stack([place - half_length, place + half_length]),
        radius=float(generator.uniform(0.02, 0.05) if is_stick else generator.uniform(0.05, 0.13)),
        drift=generator.normal(0, 0.06, 2),
        colour=generator.uniform(0.3, 0.6, 3),
    )
