"""What is found in the phantoms' lungs, and what lies on them: opacities, their mimics, lines and markers.

An opacity, the only finding of class "Lung Opacity", is a soft-edged patch of mottled texture inside a lung.
The findings of "No Lung Opacity / Not Normal" brighten the image just as much, but are smooth, sharp-edged,
linear or everywhere. So the label is in the local texture more than in the brightness of a region.
Units are those of ``phantom_anatomy``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from phantom_anatomy import Anatomy, Lungs, Pose, draw_lines, ellipse, lung_fields, smooth_noise, soft_step

FRAME = 1024  # pixels; boxes are given in a frame of this size, as in the RSNA set, at every image size
BOX_GRID = 128  # pixels; boxes are measured on a grid of this size, so that they don't depend on image size
SMALLEST_BOX = 5  # grid cells


@dataclass(frozen=True)
class Patch:
    """An elliptic region of one lung."""

    centre: tuple[float, float]
    axes: tuple[float, float]
    angle: float
    contrast: float

    def shape(self, lungs: Lungs, wobble: np.ndarray) -> np.ndarray:
        """Coverage in [0, 1] inside the lung, the outline made irregular by the noise field ``wobble``."""
        distance = np.sqrt(ellipse(lungs.x, lungs.y, self.centre, self.axes, self.angle))
        same_side = (lungs.x < 0) == (self.centre[0] < 0)
        return soft_step(0.9 - distance + 0.16 * wobble, 0.75) * lungs.mask * same_side


# --- opacities -------------------------------------------------------------------------------------
def draw_patch(rng: np.random.Generator, anatomy: Anatomy, side: int, size: float = 1.0) -> Patch:
    """A place for an opacity in the right (``side`` -1) or left (+1) lung."""
    half_width, half_height = size * rng.uniform(0.15, 0.27), size * rng.lognormal(-1.25, 0.32)
    width = anatomy.lung_width[0 if side < 0 else 1]
    dome = anatomy.dome[0 if side < 0 else 1]
    y = rng.uniform(anatomy.apex + 0.38, dome - 0.08)
    reach = width * np.sqrt(1 - 0.8 * max(0.3 - y, 0) ** 2 / (0.3 - anatomy.apex) ** 2)
    inner, outer = anatomy.mediastinum + 0.12, reach - 0.08
    contrast = float(np.clip(rng.lognormal(-1.75, 0.33), 0.07, 0.32))
    return Patch((side * rng.uniform(inner, outer), y), (half_width, half_height), rng.normal(0, 0.35), contrast)


def draw_opacities(rng: np.random.Generator, anatomy: Anatomy, pose: Pose, count: int) -> list[Patch]:
    """``count`` opacities, in both lungs when there are several, each big enough to see in the frame."""
    first = rng.choice((-1, 1))
    lungs = lung_fields(anatomy, *pose.body_grid(BOX_GRID))
    patches: list[Patch] = []
    while len(patches) < count:
        patch = draw_patch(rng, anatomy, first * (-1) ** len(patches), 1.0 if count <= 2 else 0.7)
        if _extent(patch, lungs) is not None:
            patches.append(patch)
    return patches


def bounding_boxes(patches: list[Patch], anatomy: Anatomy, pose: Pose) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, width, height) around ``patches`` in whole pixels of a 1024 x 1024 frame."""
    lungs = lung_fields(anatomy, *pose.body_grid(BOX_GRID))
    cell = FRAME // BOX_GRID
    boxes = []
    for patch in patches:
        top, bottom, left, right = _extent(patch, lungs)
        boxes.append((left * cell, top * cell, (right - left) * cell, (bottom - top) * cell))
    return boxes


def _extent(patch: Patch, lungs: Lungs) -> tuple[int, int, int, int] | None:
    """First and last row, first and last column (ends excluded) of a patch; None if hardly in the frame."""
    inside = patch.shape(lungs, np.float32(0)) > 0.25
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if min(len(rows), len(columns)) < SMALLEST_BOX:
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def add_opacities(total: np.ndarray, patches: list[Patch], lungs: Lungs, rng: np.random.Generator) -> None:
    """Add consolidations: mottled, with dark streaks (air bronchograms) where bronchi stay open."""
    size = len(total)
    wobble, mottle = smooth_noise(rng, 9, size), smooth_noise(rng, 44, size)
    streaks = np.abs(smooth_noise(rng, 22, size))
    texture = 1 + 0.75 * mottle - 0.5 * soft_step(0.22 - streaks, 0.3)
    for patch in patches:
        total += patch.contrast * patch.shape(lungs, wobble) * texture


# --- other findings --------------------------------------------------------------------------------
def add_effusion(total: np.ndarray, anatomy: Anatomy, lungs: Lungs, rng: np.random.Generator) -> None:
    """Fluid at one base, climbing the chest wall (meniscus)."""
    side = rng.choice((-1, 1))
    dome = anatomy.dome[0 if side < 0 else 1]
    level = dome + rng.uniform(-0.22, 0.10) - 0.55 * np.maximum(lungs.radius - 0.55, 0) ** 2 * 3
    total += rng.uniform(0.22, 0.36) * soft_step(lungs.y - level, 0.16) * lungs.mask * (lungs.x * side > 0)


def add_nodules(total: np.ndarray, anatomy: Anatomy, lungs: Lungs, rng: np.random.Generator) -> None:
    """Round, smooth, sharply outlined: one mass, or some small nodules."""
    count = 1 if rng.random() < 0.4 else int(rng.integers(2, 7))
    for _ in range(count):
        patch = draw_patch(rng, anatomy, rng.choice((-1, 1)))
        radius = rng.uniform(0.09, 0.19) if count == 1 else rng.uniform(0.03, 0.06)
        inside = ellipse(lungs.x, lungs.y, patch.centre, (radius, radius * rng.uniform(0.8, 1.2)))
        total += rng.uniform(0.12, 0.24) * soft_step(1 - inside, 0.5) * lungs.mask


def add_atelectasis(total: np.ndarray, anatomy: Anatomy, lungs: Lungs, rng: np.random.Generator) -> None:
    """Plate-like bands above the diaphragm."""
    for _ in range(int(rng.integers(1, 4))):
        side = rng.choice((-1, 1))
        dome = anatomy.dome[0 if side < 0 else 1]
        centre = (side * rng.uniform(0.28, 0.55), dome - rng.uniform(0.04, 0.35))
        inside = ellipse(lungs.x, lungs.y, centre, (rng.uniform(0.12, 0.25), 0.016), side * rng.normal(0.1, 0.3))
        total += rng.uniform(0.10, 0.20) * soft_step(1 - inside, 1.2) * lungs.mask


def add_haze(total: np.ndarray, anatomy: Anatomy, lungs: Lungs, rng: np.random.Generator) -> None:
    """Diffuse interstitial haze of both lungs, denser near the hila or the bases, with a fine network."""
    del anatomy
    size = len(total)
    network = 1 - np.minimum(np.abs(smooth_noise(rng, 90, size)), 1)
    spread = 1 - rng.uniform(0.2, 0.7) * lungs.radius + rng.uniform(0, 0.4) * lungs.y
    total += rng.uniform(0.06, 0.16) * (0.75 + 0.35 * network) * spread * lungs.mask


def add_smooth_veil(total: np.ndarray, anatomy: Anatomy, lungs: Lungs, rng: np.random.Generator) -> None:
    """A big soft shadow without texture, as of pleural thickening or of fluid behind a supine lung."""
    patch = draw_patch(rng, anatomy, rng.choice((-1, 1)), 1.2)
    total += 0.8 * patch.contrast * patch.shape(lungs, smooth_noise(rng, 5, len(total)))


def add_faint_patch(total: np.ndarray, anatomy: Anatomy, lungs: Lungs, rng: np.random.Generator) -> None:
    """What one reader calls an opacity and another does not: the errors of the labels."""
    patch = draw_patch(rng, anatomy, rng.choice((-1, 1)), rng.uniform(0.5, 0.9))
    add_opacities(total, [Patch(patch.centre, patch.axes, patch.angle, 0.6 * patch.contrast)], lungs, rng)


MIMICS = {
    add_effusion: 0.30,
    add_nodules: 0.25,
    add_atelectasis: 0.25,
    add_haze: 0.25,
    add_smooth_veil: 0.30,
    add_faint_patch: 0.07,
}  # finding of "Not Normal" -> how often
COMPANIONS = {add_effusion: 0.25, add_atelectasis: 0.15, add_haze: 0.12, add_nodules: 0.05}  # beside opacities


def add_findings(
    total: np.ndarray,
    frequencies: dict,
    anatomy: Anatomy,
    lungs: Lungs,
    rng: np.random.Generator,
) -> None:
    """Add each finding of the table with its frequency."""
    for add, frequency in frequencies.items():
        if rng.random() < frequency:
            add(total, anatomy, lungs, rng)


# --- devices and markers ---------------------------------------------------------------------------
def draw_devices(rng: np.random.Generator, anatomy: Anatomy, pose: Pose, size: int, busy: float) -> np.ndarray:
    """Electrode leads, a central line, a tube in the windpipe: coverage in [0, 1], [size, size].

    ``busy`` is the probability of each kind.
    """
    lines: list[tuple[np.ndarray, float]] = []
    t = np.linspace(0, 1, 24)
    if rng.random() < busy:
        for _ in range(int(rng.integers(2, 5))):
            lines += _electrode(rng, t)
    if rng.random() < 0.7 * busy:
        side = rng.choice((-1, 1))
        entry, tip = np.array([side * 0.45, -0.62]), np.array([-anatomy.mediastinum * 0.6, rng.uniform(-0.2, 0.15)])
        path = entry + (tip - entry) * t[:, None]
        path[:, 1] -= 0.12 * np.sin(np.pi * t) * (1 - t)
        lines.append((path, 0.010))
    if rng.random() < 0.5 * busy:
        tip = rng.uniform(-0.42, -0.28)
        lines.append((np.column_stack((0.012 + 0.01 * np.sin(3 * t), -1.3 + (tip + 1.3) * t)), 0.016))
    return draw_lines(lines, pose, size, blur=0.6) if lines else np.zeros((size, size), np.float32)


def _electrode(rng: np.random.Generator, t: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """A lead that hangs in a curve from its electrode on the chest to the edge of the frame."""
    start = np.array([rng.choice((-1, 1)) * rng.uniform(0.2, 0.8), rng.uniform(-0.6, 0.6)])
    end = np.array([rng.choice((-1, 1)) * 1.3, rng.uniform(-0.9, 1.2)])
    path = start + (end - start) * t[:, None]
    path += np.sin(np.pi * t)[:, None] * rng.normal(0, 0.15, 2)
    turn = np.linspace(0, 2 * np.pi, 12)
    disc = start + 0.016 * np.column_stack((np.cos(turn), np.sin(turn)))
    return [(path, 0.008), (disc, 0.02)]


def draw_markers(rng: np.random.Generator, view: str, size: int) -> np.ndarray:
    """Lead letters and stamps in the corners: coverage in [0, 1], [size, size].

    Half of the AP images, and few others, say "PORTABLE": the shortcut that the real set has, too.
    """
    canvas_size = max(size, 256)
    canvas = Image.new("L", (canvas_size, canvas_size))
    brush = ImageDraw.Draw(canvas)

    def write(text: str, x: float, y: float, height: float) -> None:
        font = ImageFont.load_default(height * canvas_size)
        brush.text((x * canvas_size, y * canvas_size), text, fill=235, font=font, anchor="mm")

    left = rng.random() < 0.6
    if rng.random() < 0.85:
        x = rng.uniform(0.90, 0.95) if left else rng.uniform(0.05, 0.10)
        write("L" if left else "R", x, rng.uniform(0.05, 0.14), rng.uniform(0.04, 0.06))
    if rng.random() < (0.5 if view == "AP" else 0.02):
        x, y = (rng.uniform(0.10, 0.16) if left else rng.uniform(0.84, 0.90)), rng.uniform(0.03, 0.12)
        write("PORTABLE", x, y, 0.028)
        write("AP" if rng.random() < 0.5 else "SUPINE", x, y + 0.045, 0.024)
    if canvas_size != size:
        canvas = canvas.resize((size, size), Image.Resampling.BOX)
    return np.asarray(canvas, dtype=np.float32) / 255
