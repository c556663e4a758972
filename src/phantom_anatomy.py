"""The anatomy of a chest phantom: fields of X-ray attenuation, summed from simple closed-form shapes.

Body coordinates: x runs to the image's right (the patient's left), y downwards; the origin is the middle
of the chest, and an unscaled frame shows -1 <= x, y <= 1. A field is a float32 array [H, W]; attenuation
is in display units, where about 0 is air outside the body and about 1 the abdomen.

Anatomy is random but belongs to the patient; pose, inspiration and view belong to the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

VECTOR_SIZE = 512  # pixels; lines are drawn on this canvas and resampled, so that they look alike at any size


@dataclass(frozen=True)
class Anatomy:
    """Lasting traits of one patient, in body units unless said otherwise."""

    lung_width: tuple[float, float]  # half width of the rib cage, right and left
    apex: float  # y of the top of the lungs
    dome: tuple[float, float]  # y of the top of the diaphragm, right and left
    heart: float  # relative size
    heart_tilt: float  # radians
    knob: float  # radius of the aortic knob
    mediastinum: float  # half width
    spine_bend: float
    rib_start: float
    rib_spacing: float
    rib_contrast: float
    clavicle: tuple[float, float]  # y of the inner end, right and left
    wall: float  # soft tissue outside the rib cage
    breast: float  # attenuation; 0 for none
    breast_y: float
    stomach: float  # radius of the gas bubble; 0 for none
    vessel_seed: int


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
        """Pixel coordinates of body ``points`` [N, 2] in a square image of ``size``."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = points[:, 0], points[:, 1]
        u = (cos * x - sin * y) * self.scale + self.shift[0]
        v = (sin * x + cos * y) * self.scale + self.shift[1]
        return list(zip(((u + 1) * size / 2).tolist(), ((v + 1) * size / 2).tolist(), strict=True))


@dataclass(frozen=True)
class Lungs:
    """Fields [H, W] that findings are placed by: body coordinates ``x`` and ``y``, the lungs' ``mask`` in
    [0, 1], and ``radius``, 0 at the chest's middle and 1 at the ribs."""

    x: np.ndarray
    y: np.ndarray
    mask: np.ndarray
    radius: np.ndarray


def draw_anatomy(rng: np.random.Generator, sex: str) -> Anatomy:
    """A patient's traits."""
    width = rng.uniform(0.64, 0.76)
    dome = rng.uniform(0.42, 0.56)
    return Anatomy(
        lung_width=(width * rng.uniform(0.97, 1.03), width * rng.uniform(0.96, 1.02)),
        apex=rng.uniform(-0.90, -0.78),
        dome=(dome, dome + rng.uniform(0.02, 0.10)),
        heart=rng.uniform(0.88, 1.12),
        heart_tilt=rng.uniform(0.45, 0.85),
        knob=rng.uniform(0.065, 0.10),
        mediastinum=rng.uniform(0.10, 0.14),
        spine_bend=rng.normal(0, 0.02),
        rib_start=rng.uniform(-0.98, -0.90),
        rib_spacing=rng.uniform(0.145, 0.175),
        rib_contrast=rng.uniform(0.7, 1.3),
        clavicle=tuple(rng.uniform(-0.66, -0.56) + rng.normal(0, 0.015, 2)),
        wall=rng.uniform(0.06, 0.22),
        breast=rng.uniform(0.03, 0.16) if sex == "F" else 0.0,
        breast_y=rng.uniform(0.30, 0.50),
        stomach=rng.uniform(0.05, 0.12) if rng.random() < 0.6 else 0.0,
        vessel_seed=int(rng.integers(2**31)),
    )


def as_imaged(anatomy: Anatomy, view: str, rng: np.random.Generator) -> Anatomy:
    """The patient as one exposure shows him or her.

    In an AP image (supine or sitting in bed) the heart lies far from the detector and is magnified, and
    inspiration is shallower, so the diaphragm is higher.
    """
    heart, rise = (rng.normal(1.10, 0.06), rng.uniform(0.0, 0.20)) if view == "AP" else (
        rng.normal(1.0, 0.03), rng.uniform(-0.06, 0.10))
    dome = tuple(level - rise + rng.normal(0, 0.012) for level in anatomy.dome)
    stomach = anatomy.stomach * rng.uniform(0.6, 1.1) if view == "PA" or rng.random() < 0.4 else 0.0
    return replace(anatomy, heart=anatomy.heart * heart, dome=dome, stomach=stomach)


def draw_pose(rng: np.random.Generator, view: str) -> Pose:
    spread = 1.6 if view == "AP" else 1.0
    return Pose(
        angle=rng.normal(0, 0.025 * spread),
        scale=float(np.clip(rng.normal(1.02, 0.07 * spread), 0.78, 1.22)),
        shift=(rng.normal(0, 0.03 * spread), rng.normal(0.03, 0.045 * spread)),
    )


# --- shapes ----------------------------------------------------------------------------------------
def soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """0 below -width/2, 1 above width/2, a cubic ramp between."""
    t = np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def ellipse(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], axes: tuple[float, float],
            angle: float = 0.0) -> np.ndarray:
    """Squared elliptic distance from ``centre``: 1 on the ellipse with the given half axes."""
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
        canvas = canvas.resize((size, size), Image.Resampling.BOX if size < VECTOR_SIZE else
                               Image.Resampling.BICUBIC)
    return np.asarray(canvas, dtype=np.float32) / 255


# --- organs ----------------------------------------------------------------------------------------
def lung_fields(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> Lungs:
    """The lungs: inside the rib cage (half an ellipse), beside the mediastinum, above the diaphragm."""
    right, ax = x < 0, np.abs(x)
    width = np.where(right, *map(np.float32, anatomy.lung_width))
    height = np.float32(0.30 - anatomy.apex)
    above = np.maximum(np.float32(0.30) - y, 0) / height
    radius = np.sqrt((ax / width) ** 2 + above**2)
    # The dome peaks in the middle of each half and falls steeply to the costophrenic angle.
    across = (ax - 0.55 * width) / width
    diaphragm = np.where(right, *map(np.float32, anatomy.dome)) + 0.9 * across**2 + 1.1 * np.maximum(across, 0) ** 3
    # The medial border widens at the apex (neck) and towards the diaphragm.
    medial = np.float32(anatomy.mediastinum) + 0.10 * np.maximum(-0.55 - y, 0) + 0.05 * np.maximum(y, 0)
    mask = soft_step(1 - radius, 0.05) * soft_step(ax - medial, 0.05) * soft_step(diaphragm - y, 0.03)
    return Lungs(x=x, y=y, mask=mask, radius=radius)


def body_outline(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, view: str) -> np.ndarray:
    """Thickness of soft tissue in [0, 1]: neck, sloping shoulders, trunk; thin towards the skin."""
    trunk = max(anatomy.lung_width) + anatomy.wall + 0.04
    shoulder = trunk + (0.30 if view == "AP" else 0.22)
    slope = soft_step(y + 0.86, 0.34)
    taper = soft_step(y + (0.12 if view == "AP" else 0.28), 0.55)
    half_width = 0.20 + (shoulder - 0.20) * slope - (shoulder - trunk) * taper
    depth = np.clip((half_width - np.abs(x)) / 0.22, 0, 1)
    return np.sqrt(depth * (2 - depth))


def heart_field(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Heart and great vessels, in [0, 1]; two thirds of the heart lie on the patient's left."""
    k = anatomy.heart
    floor = anatomy.dome[1] - 0.02
    ventricle = ellipse(x, y, (0.10 * k, floor - 0.17 * k), (0.32 * k, 0.215 * k), anatomy.heart_tilt)
    atrium = ellipse(x, y, (-0.06, floor - 0.18 * k), (0.135 * k, 0.21 * k))
    knob = ellipse(x, y, (anatomy.mediastinum - 0.01, -0.33), (anatomy.knob, anatomy.knob * 1.1))
    trunk = ellipse(x, y, (0.09, -0.14), (0.10 * k, 0.13 * k))
    field = np.zeros_like(x)
    for inside, strength in ((ventricle, 1.0), (atrium, 0.85), (knob, 0.6), (trunk, 0.6)):
        thickness = 0.6 * soft_step(1 - inside, 0.16) + 0.4 * np.sqrt(np.maximum(1 - inside, 0))
        np.maximum(field, strength * thickness, out=field)
    return field


def rib_field(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Posterior ribs arching down and out, fainter anterior ribs running down and in; about [0, 1].

    All ribs of a layer are one periodic function of the height above a rib's curve.
    """
    width = np.where(x < 0, *map(np.float32, anatomy.lung_width))
    above = np.clip((0.30 - y) / np.float32(0.30 - anatomy.apex), 0, 1)
    s = np.minimum(np.abs(x) / (width * np.sqrt(1 - 0.75 * above**2)), 1.15)
    posterior = (y - anatomy.rib_start + 0.16 * s - 0.42 * s * s * s) / anatomy.rib_spacing
    inward = 1 - s
    anterior = (y - anatomy.rib_start - 0.10 - inward * (0.35 + 0.25 * inward)) / (anatomy.rib_spacing * 1.05)
    field = _rib_profile(posterior) * soft_step(s - 0.12, 0.1)
    return field + 0.55 * _rib_profile(anterior) * soft_step(s - 0.45, 0.3)


_PHASE = np.linspace(0, 1, 256, endpoint=False, dtype=np.float32)
_RIB = (
    np.clip(np.minimum(_PHASE, 0.46 - _PHASE) / 0.07, 0, 1)
    * (0.65 + 0.35 * np.exp(-(((_PHASE - 0.39) / 0.06) ** 2)) + 0.15 * np.exp(-(((_PHASE - 0.07) / 0.05) ** 2)))
).astype(np.float32)  # one rib and the space below it: a plateau with brighter, cortical margins


def _rib_profile(phase: np.ndarray) -> np.ndarray:
    # The first rib starts at phase 0; nothing above it.
    return _RIB[((phase * 256).astype(np.int32)) & 255] * (phase > 0)


def shoulder_girdle(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, view: str) -> np.ndarray:
    """Clavicles, scapulae and humeral heads, about [0, 1]."""
    ax = np.abs(x)
    inner = np.where(x < 0, *map(np.float32, anatomy.clavicle))
    curve = inner - 0.26 * ax - 0.05 * np.sin(ax * 6.5)
    along = soft_step(ax - 0.09, 0.06) * soft_step(0.88 - ax, 0.1)
    offset = np.abs(y - curve)
    clavicle = along * (soft_step(0.036 - offset, 0.025) + 0.35 * soft_step(0.012 - np.abs(offset - 0.028), 0.02))
    blade = 0.66 if view == "AP" else 0.78  # hands on hips (PA) turn the scapulae out of the lungs
    border = ax - blade - 0.22 * (y + 0.25)
    scapula = soft_step(border, 0.05) * soft_step(y + 0.72, 0.2) * soft_step(0.10 - y + ax - 0.75, 0.3)
    edge = soft_step(0.03 - np.abs(border - 0.02), 0.04) * soft_step(y + 0.6, 0.2) * soft_step(-0.02 - y, 0.25)
    head = ellipse(x=ax, y=y, centre=(1.04, -0.66), axes=(0.14, 0.15))
    humerus = soft_step(1 - head, 0.3)
    return clavicle + 0.30 * scapula + 0.25 * edge + 0.6 * humerus


def spine_field(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vertebral column with discs, and the air column of the trachea as a negative; about [-1, 1]."""
    centre = anatomy.spine_bend * np.sin(2.2 * y + 0.4)
    offset = np.abs(x - centre)
    bodies = 0.75 + 0.25 * np.cos((y + anatomy.rib_start) * np.float32(2 * math.pi / 0.135))
    column = soft_step(0.085 - offset, 0.04) * bodies
    process = soft_step(0.018 - offset, 0.02) * soft_step(bodies - 0.8, 0.3)
    trachea = soft_step(0.042 - np.abs(x - centre - 0.01), 0.04) * soft_step(-0.24 - y, 0.12)
    return column + 0.4 * process - 0.9 * trachea


def vessel_lines(anatomy: Anatomy) -> list[tuple[np.ndarray, float]]:
    """Pulmonary vessels: trees that leave the hila, branch and thin out towards the periphery."""
    rng = np.random.default_rng(anatomy.vessel_seed)
    lines: list[tuple[np.ndarray, float]] = []
    for side in (-1, 1):
        root = np.array([side * (anatomy.mediastinum + 0.06), -0.06 if side < 0 else -0.10])
        for angle in np.linspace(-1.35, 1.35, 11) + rng.normal(0, 0.08, 11):
            _grow(lines, rng, root, side, angle, width=0.024, steps=7)
    return lines


def _grow(lines: list, rng: np.random.Generator, start: np.ndarray, side: int, angle: float, width: float,
          steps: int) -> None:
    """Add one vessel and its branches; ``angle`` 0 points outwards, positive downwards."""
    if steps < 2 or width < 0.003:
        return
    turns = angle + np.cumsum(rng.normal(0, 0.16, steps))
    stride = rng.uniform(0.06, 0.085)
    points = start + stride * np.cumsum(np.column_stack((side * np.cos(turns), np.sin(turns))), axis=0)
    points = np.vstack((start, points))
    for k in range(steps):
        lines.append((points[k : k + 2], width * (1 - k / (steps + 1))))
    for k in (steps // 3, 2 * steps // 3):
        fork = turns[k] + rng.choice((-1, 1)) * rng.uniform(0.35, 0.8)
        _grow(lines, rng, points[k + 1], side, fork, width * 0.55, steps - k - 1)


def chest_attenuation(anatomy: Anatomy, pose: Pose, view: str, size: int) -> tuple[np.ndarray, Lungs]:
    """Attenuation of a healthy chest [size, size], and the fields of its lungs for what is put into them."""
    x, y = pose.body_grid(size)
    lungs = lung_fields(anatomy, x, y)
    body = body_outline(anatomy, x, y, view)
    heart = heart_field(anatomy, x, y)
    # Air is deepest in the middle of each lung and thins out towards the ribs.
    air = lungs.mask * (1 - 0.9 * heart) * (0.72 + 0.28 * (1 - np.minimum(lungs.radius, 1) ** 4))
    abdomen = soft_step(y - np.float32(max(anatomy.dome)) - 0.02, 0.5)
    middle = soft_step(np.float32(anatomy.mediastinum + 0.03) - np.abs(x), 0.16)
    total = body * (0.62 + 0.16 * abdomen) + 0.10 * middle * body + 0.16 * heart - 0.40 * air * body
    bone = rib_field(anatomy, x, y) * soft_step(1.06 - lungs.radius, 0.06) * (0.35 + 0.65 * lungs.mask)
    total += 0.085 * anatomy.rib_contrast * bone * (1 - 0.7 * heart)
    total += 0.13 * shoulder_girdle(anatomy, x, y, view) * body + 0.06 * spine_field(anatomy, x, y) * body
    total += 0.15 * draw_lines(vessel_lines(anatomy), pose, size, blur=1.3) * air
    if anatomy.breast:
        for side in (-1, 1):
            inside = ellipse(x, y, (side * 0.42, anatomy.breast_y), (0.32, 0.30))
            total += anatomy.breast * soft_step(1 - inside, 0.5) * body
    if anatomy.stomach:
        bubble = ellipse(x, y, (0.36, anatomy.dome[1] + 0.05 + anatomy.stomach), (anatomy.stomach * 1.4, anatomy.stomach))
        total -= 0.25 * soft_step(1 - bubble, 0.4) * (1 - lungs.mask)
    return total, lungs
