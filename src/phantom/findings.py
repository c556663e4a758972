"""Findings in the phantoms' lungs, and objects on them: opacities, their mimics, lines and markers.

An opacity, the only finding of class "Lung Opacity", is a soft-edged patch of mottled texture inside a lung.
The findings of "No Lung Opacity / Not Normal" brighten the image just as much, but are smooth, sharp-edged,
linear or everywhere. So the label is in the local texture more than in the brightness of a region.
Units are those of ``anatomy``; a finding is a field of attenuation [H, W] to be added in the lungs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from phantom.anatomy import Anatomy, Chest, Lungs, lung_fields
from phantom.shapes import Pose, draw_lines, ellipse, smooth_noise, soft_step

FRAME = 1024  # pixels; boxes are given in a frame of this size, as in the RSNA set, at every image size
BOX_GRID = 128  # pixels; boxes are measured on a grid of this size, so that they don't depend on image size
SMALLEST_BOX = 9  # grid cells

MOTTLE = {14: 0.55, 30: 0.5, 80: 0.35}  # texture of opacities: cells across the frame -> amplitude

Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the 1024 frame
Finding = Callable[[Chest, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Patch:
    """An elliptic region of one lung."""

    centre: tuple[float, float]
    axes: tuple[float, float]  # half axes
    angle: float  # radians
    contrast: float

    def shape(self, lungs: Lungs, wobble: np.ndarray | float = 0.0) -> np.ndarray:
        """Coverage in [0, 1] on its side of the chest; the field ``wobble`` makes the outline irregular."""
        distance = np.sqrt(ellipse(lungs.x, lungs.y, self.centre, self.axes, self.angle))
        return soft_step(0.9 - distance + 0.16 * wobble, 0.75) * ((lungs.x < 0) == (self.centre[0] < 0))


def draw_side(rng: np.random.Generator) -> int:
    """Draw a side: -1 for the patient's right, +1 for the left."""
    return int(rng.choice((-1, 1)))


def draw_patch(rng: np.random.Generator, anatomy: Anatomy, side: int, size: float = 1.0) -> Patch:
    """Draw a region of one lung, as big as the boxes of the RSNA set if ``size`` is 1."""
    axes = (size * rng.uniform(0.15, 0.27), size * rng.lognormal(-1.25, 0.32))
    width, dome = (values[side > 0] for values in (anatomy.lung_width, anatomy.dome))
    y = rng.uniform(anatomy.apex + 0.38, dome - 0.08)
    reach = width * np.sqrt(1 - 0.8 * max(0.3 - y, 0) ** 2 / (0.3 - anatomy.apex) ** 2)
    x = rng.uniform(anatomy.mediastinum + 0.12, reach - 0.08)
    contrast = float(np.clip(rng.lognormal(-1.15, 0.25), 0.15, 0.45))
    return Patch((side * x, y), axes, rng.normal(0, 0.35), contrast)


# --- opacities -------------------------------------------------------------------------------------
def draw_opacities(rng: np.random.Generator, anatomy: Anatomy, pose: Pose, count: int) -> tuple[list[Patch], list[Box]]:
    """Draw ``count`` opacities, in both lungs if there are several, and the boxes around them."""
    lungs = lung_fields(anatomy, *pose.body_grid(BOX_GRID))
    side = draw_side(rng)
    patches: list[Patch] = []
    boxes: list[Box] = []
    while len(patches) < count:
        patch = draw_patch(rng, anatomy, side * (-1) ** len(patches), 1.0 if count <= 2 else 0.7)
        if (box := bounding_box(patch, lungs)) is not None:
            patches.append(patch)
            boxes.append(box)
    return patches, boxes


def bounding_box(patch: Patch, lungs: Lungs) -> Box | None:
    """Return the box around the visible part of a patch; None if that is tiny or under half of the patch.

    The fields of ``lungs`` are those of a [BOX_GRID, BOX_GRID] frame.
    """
    shape = patch.shape(lungs)
    inside = shape * lungs.mask > 0.25
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if min(len(rows), len(columns)) < SMALLEST_BOX or inside.sum() < 0.5 * (shape > 0.25).sum():
        return None
    cell = FRAME // BOX_GRID
    left, top = int(columns[0]) * cell, int(rows[0]) * cell
    return left, top, (int(columns[-1]) + 1) * cell - left, (int(rows[-1]) + 1) * cell - top


def consolidation(chest: Chest, patches: list[Patch], rng: np.random.Generator) -> np.ndarray:
    """Mottled patches, darker where bronchi stay open in them (air bronchograms)."""
    size = len(chest.attenuation)
    wobble = smooth_noise(rng, 9, size)
    mottle = sum(weight * smooth_noise(rng, cells, size) for cells, weight in MOTTLE.items())
    texture = np.maximum(0.55 + 1.2 * mottle - 0.7 * chest.vessels, 0)
    return texture * sum(patch.contrast * patch.shape(chest.lungs, wobble) for patch in patches)


# --- other findings --------------------------------------------------------------------------------
def effusion(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Fluid at one base, climbing the chest wall (meniscus)."""
    side, lungs = draw_side(rng), chest.lungs
    climb = 1.6 * np.maximum(lungs.radius - 0.55, 0) ** 2
    level = chest.anatomy.dome[side > 0] + rng.uniform(-0.22, 0.10) - climb
    return rng.uniform(0.22, 0.36) * soft_step(lungs.y - level, 0.16) * (lungs.x * side > 0)


def nodules(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Round, smooth, sharply outlined: one mass, or some small nodules."""
    count = 1 if rng.random() < 0.4 else int(rng.integers(2, 7))
    field = np.zeros_like(chest.attenuation)
    for _ in range(count):
        centre = draw_patch(rng, chest.anatomy, draw_side(rng)).centre
        radius = rng.uniform(0.09, 0.19) if count == 1 else rng.uniform(0.03, 0.06)
        inside = ellipse(chest.lungs.x, chest.lungs.y, centre, (radius, radius * rng.uniform(0.8, 1.2)))
        field += rng.uniform(0.10, 0.20) * soft_step(1 - inside, 0.9)
    return field


def atelectasis(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Plate-like bands above the diaphragm."""
    field = np.zeros_like(chest.attenuation)
    for _ in range(int(rng.integers(1, 4))):
        side = draw_side(rng)
        centre = (side * rng.uniform(0.28, 0.55), chest.anatomy.dome[side > 0] - rng.uniform(0.04, 0.35))
        axes, angle = (rng.uniform(0.12, 0.25), 0.016), side * rng.normal(0.1, 0.3)
        inside = ellipse(chest.lungs.x, chest.lungs.y, centre, axes, angle)
        field += rng.uniform(0.10, 0.20) * soft_step(1 - inside, 1.2)
    return field


def haze(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Diffuse interstitial haze of both lungs, denser near the hila or the bases, with a fine network."""
    network = 1 - np.minimum(np.abs(smooth_noise(rng, 90, len(chest.attenuation))), 1)
    spread = 1 - rng.uniform(0.2, 0.7) * chest.lungs.radius + rng.uniform(0, 0.4) * chest.lungs.y
    return rng.uniform(0.06, 0.16) * (0.75 + 0.35 * network) * spread


def veil(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Return a big soft shadow without texture, as of pleural thickening or of fluid behind a supine lung."""
    patch = draw_patch(rng, chest.anatomy, draw_side(rng), 1.2)
    return 0.65 * patch.contrast * patch.shape(chest.lungs, smooth_noise(rng, 5, len(chest.attenuation)))


def doubtful_patch(chest: Chest, rng: np.random.Generator) -> np.ndarray:
    """Return a faint patch that readers would disagree about: such images make errors in the labels."""
    patch = draw_patch(rng, chest.anatomy, draw_side(rng), rng.uniform(0.5, 0.9))
    return consolidation(chest, [replace(patch, contrast=0.4 * patch.contrast)], rng)


# How often each finding is seen in an image of class "Not Normal", and beside an opacity.
MIMICS: dict[Finding, float] = {
    effusion: 0.30, nodules: 0.20, atelectasis: 0.25, haze: 0.25, veil: 0.40, doubtful_patch: 0.06,
}  # fmt: skip
COMPANIONS: dict[Finding, float] = {effusion: 0.25, atelectasis: 0.15, haze: 0.12, nodules: 0.05}


def add_findings(chest: Chest, frequencies: dict[Finding, float], rng: np.random.Generator) -> None:
    """Add each finding of the table with its frequency."""
    for finding, frequency in frequencies.items():
        if rng.random() < frequency:
            chest.attenuation[...] += finding(chest, rng) * chest.lungs.mask


# --- devices, markers, collimation -----------------------------------------------------------------
def draw_devices(rng: np.random.Generator, anatomy: Anatomy, pose: Pose, size: int, frequency: float) -> np.ndarray:
    """Electrode leads, a central line, a tube in the windpipe: coverage in [0, 1], [size, size]."""
    lines: list[tuple[np.ndarray, float]] = []
    t = np.linspace(0, 1, 24)
    if rng.random() < frequency:
        for _ in range(int(rng.integers(2, 5))):
            lines += _electrode(rng, t)
    if rng.random() < 0.7 * frequency:
        entry = np.array([draw_side(rng) * 0.45, -0.62])
        tip = np.array([-0.6 * anatomy.mediastinum, rng.uniform(-0.2, 0.15)])
        path = entry + (tip - entry) * t[:, None]
        path[:, 1] -= 0.12 * np.sin(np.pi * t) * (1 - t)
        lines.append((path, 0.010))
    if rng.random() < 0.5 * frequency:
        tip_y = rng.uniform(-0.42, -0.28)
        lines.append((np.column_stack((0.012 + 0.01 * np.sin(3 * t), -1.3 + (tip_y + 1.3) * t)), 0.014))
    return draw_lines(lines, pose, size, blur=0.6) if lines else np.zeros((size, size), np.float32)


def _electrode(rng: np.random.Generator, t: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Return a lead that hangs in a curve from its electrode on the chest to the edge of the frame."""
    side = draw_side(rng)
    start = np.array([side * rng.uniform(0.2, 0.8), rng.uniform(-0.6, 0.6)])
    end = np.array([side * 1.3, rng.uniform(-0.9, 1.2)])
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
        brush.text((x * canvas_size, y * canvas_size), text, fill=245, font=font, anchor="mm")

    left = rng.random() < 0.6
    if rng.random() < 0.85:
        x = rng.uniform(0.90, 0.95) if left else rng.uniform(0.05, 0.10)
        write("L" if left else "R", x, rng.uniform(0.06, 0.14), rng.uniform(0.04, 0.06))
    if rng.random() < (0.5 if view == "AP" else 0.02):
        x, y = (rng.uniform(0.10, 0.16) if left else rng.uniform(0.84, 0.90)), rng.uniform(0.03, 0.12)
        write("PORTABLE", x, y, 0.028)
        write("AP" if rng.random() < 0.5 else "SUPINE", x, y + 0.045, 0.024)
    if canvas_size != size:
        canvas = canvas.resize((size, size), Image.Resampling.BOX)
    return np.asarray(canvas, dtype=np.float32) / 255


def collimation(rng: np.random.Generator, size: int) -> np.ndarray:
    """1 inside the field of the X-ray tube's shutters, 0 outside: [size, size]."""
    frame = Pose(angle=rng.normal(0, 0.03), scale=1.0, shift=(0.0, 0.0))
    x, y = frame.body_grid(size)
    width, height = rng.uniform(0.90, 1.0, 2)
    return soft_step(width - np.abs(x), 0.01) * soft_step(height - np.abs(y), 0.01)
