"""The shapes that chest phantoms are made of: soft edges, ellipses, smooth noise, polylines, and the pose.

Body coordinates: x runs to the image's right (the patient's left), y downwards; the origin is the middle
of the chest, and an unscaled frame shows -1 <= x, y <= 1. A field is a float32 array [H, W].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

VECTOR_SIZE = 512  # pixels; lines are drawn on this canvas and resampled, so that they look alike at any size


@dataclass(frozen=True)
class Pose:
    """How the body lies in the frame."""

    angle: float  # radians
    scale: float
    shift: tuple[float, float]

    def body_grid(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Body coordinates x, y of the pixel centres of a square image, each float32 [size, size]."""
        pixel = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
        u = (pixel - self.shift[0])[None, :] / self.scale
        v = (pixel - self.shift[1])[:, None] / self.scale
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return (cos * u + sin * v).astype(np.float32), (cos * v - sin * u).astype(np.float32)

    def to_pixels(self, points: np.ndarray, size: int) -> list[tuple[float, float]]:
        """Return the pixel coordinates of body ``points`` [N, 2] in a square image of ``size``."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = points[:, 0], points[:, 1]
        u = (cos * x - sin * y) * self.scale + self.shift[0]
        v = (sin * x + cos * y) * self.scale + self.shift[1]
        return list(zip(((u + 1) * size / 2).tolist(), ((v + 1) * size / 2).tolist(), strict=True))


def soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """0 below -width/2, 1 above width/2, a cubic ramp between."""
    t = np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def ellipse(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], axes: tuple[float, float], angle: float = 0.0
) -> np.ndarray:
    """Return the squared elliptic distance from ``centre``: 1 on the ellipse with the given half axes."""
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    return ((cos * dx + sin * dy) / axes[0]) ** 2 + ((cos * dy - sin * dx) / axes[1]) ** 2


def smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Gaussian noise of about unit variance on ``cells`` x ``cells`` knots, interpolated to [size, size].

    The knots do not depend on ``size``, so that an image shows the same pattern at every resolution.
    """
    knots = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(knots.resize((size, size), Image.Resampling.BICUBIC))


def draw_lines(lines: list[tuple[np.ndarray, float]], pose: Pose, size: int, blur: float) -> np.ndarray:
    """Polylines given as (body points [N, 2], width in body units) -> coverage in [0, 1], [size, size]."""
    canvas = Image.new("L", (VECTOR_SIZE, VECTOR_SIZE))
    brush = ImageDraw.Draw(canvas)
    for points, width in lines:
        pixels = max(1, round(width * pose.scale * VECTOR_SIZE / 2))
        brush.line(pose.to_pixels(points, VECTOR_SIZE), fill=255, width=pixels, joint="curve")
    canvas = canvas.filter(ImageFilter.GaussianBlur(blur))
    if size != VECTOR_SIZE:
        canvas = canvas.resize((size, size), Image.Resampling.BOX if size < VECTOR_SIZE else Image.Resampling.BICUBIC)
    return np.asarray(canvas, dtype=np.float32) / 255
