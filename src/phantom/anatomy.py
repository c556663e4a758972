"""The anatomy of a chest phantom: fields of X-ray attenuation, summed from simple closed-form shapes.

Lengths are in the body units of ``shapes``. Attenuation is in display units, where about 0 is air
outside the body and about 1 the abdomen. Anatomy is random but belongs to the patient; pose, inspiration and
view belong to the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from phantom.shapes import Pose, draw_lines, ellipse, smooth_noise, soft_step


@dataclass(frozen=True)
class Anatomy:
    """Lasting traits of one patient; lengths in body units."""

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
class Lungs:
    """Fields [H, W] that findings are placed by: body coordinates ``x`` and ``y``; ``mask``, the lungs, and
    ``heart``, the shadow between them, in [0, 1]; ``radius``, 0 at the chest's middle and 1 at the ribs."""

    x: np.ndarray
    y: np.ndarray
    mask: np.ndarray
    heart: np.ndarray
    radius: np.ndarray


@dataclass(frozen=True)
class Chest:
    """A chest while it is being drawn: findings add to ``attenuation`` [H, W] in place."""

    anatomy: Anatomy
    lungs: Lungs
    vessels: np.ndarray  # coverage in [0, 1]; the bronchi run beside the vessels
    attenuation: np.ndarray


def draw_anatomy(rng: np.random.Generator, sex: str) -> Anatomy:
    """Draw a patient's traits."""
    width = rng.uniform(0.64, 0.76)
    dome = rng.uniform(0.42, 0.56)
    return Anatomy(
        lung_width=(width * rng.uniform(0.97, 1.03), width * rng.uniform(0.96, 1.02)),
        apex=rng.uniform(-0.92, -0.80),
        dome=(dome, dome + rng.uniform(0.02, 0.10)),
        heart=rng.uniform(0.88, 1.12),
        heart_tilt=rng.uniform(0.45, 0.85),
        knob=rng.uniform(0.07, 0.105),
        mediastinum=rng.uniform(0.115, 0.16),
        spine_bend=rng.normal(0, 0.02),
        rib_start=rng.uniform(-0.98, -0.90),
        rib_spacing=rng.uniform(0.145, 0.175),
        rib_contrast=rng.uniform(0.7, 1.3),
        clavicle=tuple(rng.uniform(-0.62, -0.48) + rng.normal(0, 0.015, 2)),
        wall=rng.uniform(0.06, 0.22),
        breast=rng.uniform(0.03, 0.16) if sex == "F" else 0.0,
        breast_y=rng.uniform(0.30, 0.50),
        stomach=rng.uniform(0.05, 0.12) if rng.random() < 0.6 else 0.0,
        vessel_seed=int(rng.integers(2**31)),
    )


def vary_by_view(anatomy: Anatomy, view: str, rng: np.random.Generator) -> Anatomy:
    """Change the anatomy to what one exposure shows.

    In an AP image (supine or sitting in bed) the heart lies far from the detector and is magnified, and
    inspiration is shallower, so the diaphragm is higher.
    """
    if view == "AP":
        heart, rise = rng.normal(1.10, 0.06), rng.uniform(0.0, 0.20)
    else:
        heart, rise = rng.normal(1.0, 0.03), rng.uniform(-0.06, 0.10)
    right, left = (level - rise + rng.normal(0, 0.012) for level in anatomy.dome)
    stomach = anatomy.stomach * rng.uniform(0.6, 1.1) if view == "PA" or rng.random() < 0.4 else 0.0
    return replace(anatomy, heart=anatomy.heart * heart, dome=(right, left), stomach=stomach)


def draw_pose(rng: np.random.Generator, view: str) -> Pose:
    """Draw how the patient stands or lies in the frame; AP images vary more."""
    spread = 1.6 if view == "AP" else 1.0
    return Pose(
        angle=rng.normal(0, 0.025 * spread),
        scale=float(np.clip(rng.normal(1.08, 0.07 * spread), 0.82, 1.30)),
        shift=(rng.normal(0, 0.03 * spread), rng.normal(0.03, 0.045 * spread)),
    )


# --- organs ----------------------------------------------------------------------------------------
def lung_fields(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> Lungs:
    """Draw the lungs: inside the rib cage, above the diaphragm, beside the heart and the mediastinum."""
    ax = np.abs(x)
    width = np.where(x < 0, *map(np.float32, anatomy.lung_width))
    above = np.maximum(np.float32(0.30) - y, 0) / np.float32(0.30 - anatomy.apex)
    radius = np.sqrt((ax / width) ** 2 + above**2 * np.sqrt(above))  # a half ellipse, broader at the top
    # The dome peaks in the middle of each half and falls steeply to the costophrenic angle.
    across = (ax - 0.52 * width) / width
    fall = 0.75 * across**2 + 1.3 * np.maximum(across, 0) ** 3
    diaphragm = np.where(x < 0, *map(np.float32, anatomy.dome)) + fall
    heart = heart_field(anatomy, x, y)
    mask = soft_step(1 - radius, 0.06) * soft_step(diaphragm - y, 0.035) * (1 - heart)
    return Lungs(x=x, y=y, mask=mask, heart=heart, radius=radius)


def heart_field(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Heart, great vessels and mediastinum in [0, 1]; two thirds of the heart lie on the patient's left.

    Their outlines are joined by a smooth minimum of squared elliptic distances, -log(sum(exp(-k d))) / k.
    """
    k, floor, m = anatomy.heart, anatomy.dome[1], anatomy.mediastinum
    column = (x / (m + 0.16 * np.maximum(-0.62 - y, 0) + 0.06 * np.maximum(y, 0))) ** 2
    parts = (
        column,
        ellipse(x, y, (0.11 * k, floor - 0.16 * k), (0.34 * k, 0.225 * k), anatomy.heart_tilt),  # ventricles
        ellipse(x, y, (-0.07, floor - 0.20 * k), (0.14 * k, 0.24 * k)),  # right atrium
        ellipse(x, y, (m - 0.035, -0.35), (anatomy.knob, anatomy.knob * 1.2)),  # aortic knob
        ellipse(x, y, (0.09, -0.10), (0.115 * k, 0.22 * k)),  # pulmonary trunk
    )
    sharpness = np.float32(4.0)
    joined = sum(np.exp(-sharpness * np.minimum(part, 9)) for part in parts)
    return soft_step(1 + np.log(joined + np.float32(1e-20)) / sharpness, 0.30)


def body_outline(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, view: str) -> np.ndarray:
    """Thickness of soft tissue in [0, 1]: neck, sloping shoulders, trunk; thin towards the skin."""
    trunk = max(anatomy.lung_width) + anatomy.wall + 0.04
    shoulder = trunk + (0.34 if view == "AP" else 0.24)
    slope = np.sqrt(soft_step(y + 0.82, 0.42))
    taper = soft_step(y + (0.10 if view == "AP" else 0.25), 0.55)
    half_width = 0.26 + (shoulder - 0.26) * slope - (shoulder - trunk) * taper
    depth = np.clip((half_width - np.abs(x)) / 0.22, 0, 1)
    return np.sqrt(depth * (2 - depth))


def rib_field(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Posterior ribs arching down and out, fainter anterior ones down and in, each layer periodic; [0, 1]."""
    width = np.where(x < 0, *map(np.float32, anatomy.lung_width))
    above = np.clip((0.30 - y) / np.float32(0.30 - anatomy.apex), 0, 1)
    s = np.minimum(np.abs(x) / (width * np.sqrt(1 - 0.75 * above**2)), 1.15)
    posterior = (y - anatomy.rib_start + 0.16 * s - 0.42 * s * s * s) / anatomy.rib_spacing
    inward = 1 - s
    anterior = (y - anatomy.rib_start - 0.10 - inward * (0.35 + 0.25 * inward)) / (anatomy.rib_spacing * 1.05)
    field = _rib_profile(posterior) * soft_step(s - 0.12, 0.1)
    return field + 0.55 * _rib_profile(anterior) * soft_step(s - 0.45, 0.3)


_PHASE = np.linspace(0, 1, 256, endpoint=False, dtype=np.float32)
_CORTEX = 0.35 * np.exp(-(((_PHASE - 0.39) / 0.06) ** 2)) + 0.15 * np.exp(-(((_PHASE - 0.07) / 0.05) ** 2))
# One rib and the space below it: a plateau with brighter margins.
_RIB = (np.clip(np.minimum(_PHASE, 0.46 - _PHASE) / 0.07, 0, 1) * (0.65 + _CORTEX)).astype(np.float32)


def _rib_profile(phase: np.ndarray) -> np.ndarray:
    """The first rib starts at phase 0; nothing is above it."""
    return _RIB[((phase * 256).astype(np.int32)) & 255] * (phase > 0)


def shoulder_girdle(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, view: str) -> np.ndarray:
    """Clavicles, scapulae and humeral heads, about [0, 1]."""
    ax = np.abs(x)
    inner = np.where(x < 0, *map(np.float32, anatomy.clavicle))
    offset = np.abs(y - inner + 0.22 * ax + 0.05 * np.sin(ax * 7))
    bar = soft_step(0.032 - offset, 0.03) + 0.3 * soft_step(0.012 - np.abs(offset - 0.024), 0.02)
    clavicle = bar * soft_step(ax - 0.09, 0.08) * soft_step(0.90 - ax, 0.3)
    blade = 0.66 if view == "AP" else 0.78  # hands on hips (PA) turn the scapulae out of the lungs
    border = ax - blade - 0.22 * (y + 0.25)
    scapula = soft_step(border, 0.05) * soft_step(y + 0.72, 0.2) * soft_step(0.10 - y + ax - 0.75, 0.3)
    edge = soft_step(0.03 - np.abs(border - 0.02), 0.04) * soft_step(0.29 - np.abs(y + 0.31), 0.22)
    humerus = soft_step(1 - ellipse(ax, y, (1.04, -0.60), (0.14, 0.16)), 0.5)
    return 0.8 * clavicle + 0.35 * scapula + 0.3 * edge + 0.6 * humerus


def spine_field(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vertebral column with discs, and the air column of the trachea as a negative; about [-1, 1]."""
    centre = anatomy.spine_bend * np.sin(2.2 * y + 0.4)
    offset = np.abs(x - centre)
    bodies = 0.7 + 0.3 * np.cos((y + anatomy.rib_start) * np.float32(2 * math.pi / 0.135))
    column = soft_step(0.08 - offset, 0.06) * bodies
    process = soft_step(0.018 - offset, 0.02) * soft_step(bodies - 0.8, 0.3)
    trachea = soft_step(0.042 - np.abs(x - centre - 0.01), 0.04) * soft_step(-0.24 - y, 0.12)
    return column + 0.4 * process - 1.1 * trachea


def vessel_lines(anatomy: Anatomy) -> list[tuple[np.ndarray, float]]:
    """Pulmonary vessels: trees that leave the hila, branch and thin out towards the periphery."""
    rng = np.random.default_rng(anatomy.vessel_seed)
    lines: list[tuple[np.ndarray, float]] = []
    for side in (-1, 1):
        root = np.array([side * (anatomy.mediastinum + 0.03), -0.06 if side < 0 else -0.12])
        for angle in np.linspace(-1.3, 1.4, 9) + rng.normal(0, 0.1, 9):
            _grow(lines, rng, root + rng.normal(0, 0.03, 2), side, angle, width=0.026, steps=7)
    return lines


def _grow(
    lines: list[tuple[np.ndarray, float]], rng: np.random.Generator, start: np.ndarray, side: int,
    angle: float, width: float, steps: int,
) -> None:  # fmt: skip
    """Add one vessel and its branches; ``angle`` 0 points outwards, positive downwards."""
    if steps < 2:
        return
    turns = angle + np.cumsum(rng.normal(0, 0.2, steps))
    stride = rng.uniform(0.05, 0.085)
    points = start + stride * np.cumsum(np.column_stack((side * np.cos(turns), np.sin(turns))), axis=0)
    points = np.vstack((start, points))
    lines += [(points[k : k + 2], width * (1 - k / steps)) for k in range(steps)]
    for k in (steps // 3, 2 * steps // 3):
        fork = turns[k] + rng.choice((-1, 1)) * rng.uniform(0.3, 0.8)
        _grow(lines, rng, points[k + 1], side, fork, width * 0.55, steps - k - 1)


# --- the whole chest -------------------------------------------------------------------------------
def draw_chest(anatomy: Anatomy, pose: Pose, view: str, size: int, rng: np.random.Generator) -> Chest:
    """Draw a healthy chest in a square frame of ``size`` pixels."""
    x, y = pose.body_grid(size)
    lungs = lung_fields(anatomy, x, y)
    # Air is deepest in the middle of each lung and thins out towards the ribs.
    air = lungs.mask * (0.72 + 0.28 * (1 - np.minimum(lungs.radius, 1) ** 4))
    abdomen = soft_step(y - np.float32(max(anatomy.dome)) - 0.02, 0.5)
    # Heart and spine add most near the midline and low down, nothing in the neck.
    depth = np.exp(-((lungs.x - 0.04) ** 2) / 0.05)
    mediastinum = lungs.heart * soft_step(lungs.y + 0.55, 0.9) * (0.05 + 0.14 * depth)
    total = 0.62 + 0.16 * abdomen + mediastinum * (1 - 0.7 * abdomen) - 0.41 * air
    # Ribs end at the chest wall, and hardly show before the heart and the abdomen.
    ribs = rib_field(anatomy, x, y) * (soft_step(1.06 - lungs.radius, 0.06) * (0.25 + 0.75 * lungs.mask))
    total += 0.09 * anatomy.rib_contrast * ribs
    total += 0.12 * shoulder_girdle(anatomy, x, y, view) + 0.065 * spine_field(anatomy, x, y)
    vessels = draw_lines(vessel_lines(anatomy), pose, size, blur=2.0)
    hila = np.exp(-((np.abs(x) - anatomy.mediastinum - 0.05) ** 2 / 0.010 + (y + 0.08) ** 2 / 0.03))
    total += (0.12 * vessels + 0.09 * hila) * lungs.mask
    _add_soft_tissue(total, anatomy, lungs, smooth_noise(rng, 7, size))
    total *= body_outline(anatomy, x, y, view)
    return Chest(anatomy, lungs, vessels, total)


def _add_soft_tissue(total: np.ndarray, anatomy: Anatomy, lungs: Lungs, wobble: np.ndarray) -> None:
    """Breasts, and gas in the stomach below the left diaphragm."""
    if anatomy.breast:
        inside = ellipse(np.abs(lungs.x), lungs.y, (0.42, anatomy.breast_y), (0.33, 0.30))
        total += anatomy.breast * soft_step(1 - inside + 0.1 * wobble, 0.5)
    if anatomy.stomach:
        radius = anatomy.stomach
        inside = ellipse(lungs.x, lungs.y, (0.34, anatomy.dome[1] + 0.05 + radius), (radius * 1.6, radius))
        total -= 0.16 * soft_step(1 - inside + 0.35 * wobble, 0.7) * (1 - lungs.mask)
