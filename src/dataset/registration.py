"""Two X-rays -> are they the same picture? One is laid over the other, then fine details are compared.

The detail distance finds candidates among millions of pairs. Here a pair is judged: a small affine map (shift,
scale, shear, turn) is fitted, and the correlation of fine details is taken in 64 parts of the image. Their
median is the score: letters and labels burned into a corner change a few parts only. Grain, ribs and vessels of
two people do not fit onto each other, however alike their chests are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

SIDES = (32, 64, 128)  # pixels; the map is fitted coarse to fine, the finest one as the images allow
STEPS = 8  # of Gauss and Newton per size, at most
SETTLED = 0.01  # pixels; a smaller step ends a size
LARGEST_STEP = 0.06  # half sides
START_SHIFT = 3  # pixels of 32: 9 % of the side in either direction
BAND = (0.7, 3.0)  # sigmas in pixels, between which the map is fitted
SCORE_SIDE, SCORE_SIGMA = 64, 1.5  # details finer than 1.5 of 64 pixels are compared
# Set after looking at RSNA images and made-up chests. Of the 3,000 pairs of RSNA images of different patients with
# the smallest detail distance (of 719,164; all 1,200 images) none scores above 0.67 at 64 pixels; of the
# nearest 800 none above 0.41 at 128. Of the likely pairs of 700 made-up chests of 64
# pixels, which differ less, none is above both.
SAME, SAME_GRAIN = 0.92, 0.75
PROMISING = 0.45  # score after the coarsest fit; below it, finer fits are not tried and it is the score
PARTS = 8  # parts of the image along each side
LEAST_DETAIL, LEAST_PARTS = 0.25, 0.25  # gray levels in a part that counts; share of parts that must count
BATCH = 128  # pairs at once: 200 MB at 128 pixels


def show_same_picture(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return which pairs of images uint8 [K, S, S] and [K, T, T], S and T at least 128, show one picture: bool [K].

    Their details agree at 64 pixels and, less strictly, those twice as fine: made-up chests can be alike at 64.
    """
    scores = _match_scores(a, b, (SCORE_SIDE, SIDES[-1]))
    return (scores[:, 0] >= SAME) & (scores[:, 1] >= SAME_GRAIN)


def match_scores(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Score pairs of images uint8 [K, S, S] and [K, T, T] at 64 pixels, row by row: float32 [K], -1 to 1.

    The median over 8 x 8 parts of the correlation of fine details, after registration. 1: the same picture,
    whatever its brightness; a copy that was compressed, blurred, shifted or cropped a little stays above 0.8.
    0 for images without details.
    """
    return _match_scores(a, b, (SCORE_SIDE,))[:, 0]


def _match_scores(a: np.ndarray, b: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Score pairs at each of ``sides``: float32 [K, sides]."""
    scores = np.zeros((len(a), len(sides)), dtype=np.float32)
    for start in range(0, len(a), BATCH):
        part = slice(start, start + BATCH)
        one, other = (torch.from_numpy(np.asarray(images[part], dtype=np.float32)) for images in (a, b))
        scores[part] = _scores_of_batch(one, other, sides).numpy()
    return scores


def _scores_of_batch(a: Tensor, b: Tensor, score_sides: Sequence[int]) -> Tensor:
    """Score pairs at ``score_sides``, [K, score sides], after registration at all sizes; see ``PROMISING``."""
    maps = _fit_at(*_bands(a, b, SIDES[0]), None)
    scores = _scores(a, b, maps, SCORE_SIDE)[:, None].repeat(1, len(score_sides))
    promising = scores[:, 0] >= PROMISING
    if promising.any():
        a, b, maps = a[promising], b[promising], maps[promising]
        finest = max(SCORE_SIDE, min(a.shape[-1], b.shape[-1]))
        for side in (side for side in SIDES[1:] if side <= finest):
            maps = _fit_at(*_bands(a, b, side), maps)
        scores[promising] = torch.stack([_scores(a, b, maps, side) for side in score_sides], dim=1)
    return scores


def _bands(a: Tensor, b: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Reduce both to [K, side, side], and keep the structures between the sigmas of ``BAND``."""
    small = (_resized(a, side), _resized(b, side))
    one, other = (_blurred(images, BAND[0]) - _blurred(images, BAND[1]) for images in small)
    return one, other


def _resized(images: Tensor, side: int) -> Tensor:
    """Resize [K, S, S] to [K, side, side], bilinear, antialiased."""
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images[:, None], size=(side, side), mode="bilinear", antialias=True)[:, 0]


def _blurred(images: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, sigma, sigma)))


def _grid(maps: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return (places [K, side, side, 2] that ``maps`` [K, 2, 3] take pixels to, which lie inside: [K, side * side])."""
    grid = functional.affine_grid(maps, [len(maps), 1, side, side], align_corners=False)
    return grid, (grid.abs().amax(dim=3) < 1 - 2 / side).flatten(1).float()


# --- registration ----------------------------------------------------------------------------------
def _start(a: Tensor, b: Tensor) -> Tensor:
    """Return maps that shift ``b`` by whole pixels to where its correlation with ``a`` is largest."""
    side, reach = a.shape[-1], torch.arange(-START_SHIFT, START_SHIFT + 1)
    correlation = torch.fft.ifft2(torch.fft.fft2(a) * torch.fft.fft2(b).conj()).real
    best = correlation[:, reach[:, None], reach].flatten(1).argmax(dim=1)
    maps = torch.zeros(len(a), 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = 1.0
    maps[:, 0, 2] = -2.0 / side * (best % len(reach) - START_SHIFT)
    maps[:, 1, 2] = -2.0 / side * (best // len(reach) - START_SHIFT)
    return maps


def _fit_at(a: Tensor, b: Tensor, maps: Tensor | None) -> Tensor:
    """Fit the affine maps [K, 2, 3], in half sides, that bring ``b`` onto ``a`` [K, side, side]: Gauss-Newton.

    Contrast and brightness are fitted with them. ``maps``: where to start, None for whole shifts; the result
    never has a smaller correlation. After Lucas and Kanade, IJCAI 1981.
    """
    side = a.shape[-1]
    maps = _start(a, b) if maps is None else maps
    slopes = torch.gradient(b, dim=(2, 1))
    moving = torch.stack([b, *(slope * side / 2 for slope in slopes)], dim=1)  # [K, 3, side, side]
    identity = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    places = functional.affine_grid(identity, [1, 1, side, side], align_corners=False).reshape(-1, 2)
    base = torch.cat([places, torch.ones(len(places), 1)], dim=1).T  # x, y, 1: [3, side * side]
    target, best, kept = a.flatten(1), torch.full((len(a),), -2.0), maps
    jacobian = torch.empty(len(a), 8, side * side)
    for _ in range(STEPS):
        grid, inside = _grid(maps, side)
        moved = functional.grid_sample(moving, grid, padding_mode="border", align_corners=False).flatten(2)
        found = _correlation(moved[:, 0], target, inside)
        kept = torch.where((found > best)[:, None, None], maps, kept)
        best = torch.maximum(best, found)
        # Written in place: at 128 pixels, moving these numbers takes longer than computing with them.
        moved *= inside[:, None]
        torch.mul(moved[:, 1:2], base, out=jacobian[:, :3])
        torch.mul(moved[:, 2:3], base, out=jacobian[:, 3:6])
        jacobian[:, 6], jacobian[:, 7] = moved[:, 0], inside
        normal = jacobian @ jacobian.mT
        normal += 1e-6 * (normal.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] + 1e-6) * torch.eye(8)
        solved = torch.linalg.solve(normal, jacobian @ target[:, :, None])[:, :, 0]
        step = (solved[:, :6] / solved[:, 6:7].clamp(min=0.1)).clamp(-LARGEST_STEP, LARGEST_STEP)
        if float(step.abs().max()) * side / 2 < SETTLED:
            break
        maps = maps + step.view(-1, 2, 3)
    return kept


def _correlation(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Return Pearson's r along the last dimension, over places of ``weight`` 1; 0 for constant ones."""
    n = weight.sum(dim=-1, keepdim=True).clamp(min=1.0)
    one, other = (weight * (x - (weight * x).sum(dim=-1, keepdim=True) / n) for x in (one, other))
    lengths = one.square().sum(dim=-1).sqrt() * other.square().sum(dim=-1).sqrt()
    return (one * other).sum(dim=-1) / lengths.clamp(min=1e-6)


# --- comparison ------------------------------------------------------------------------------------
def _scores(a: Tensor, b: Tensor, maps: Tensor, side: int) -> Tensor:
    """Return the median correlation of fine details, over the parts that overlap by half and have details: [K]."""
    fixed, moving = _resized(a, side), _resized(b, side)
    grid, inside = _grid(maps, side)
    moved = functional.grid_sample(moving[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    one, other = (_parts(images - _blurred(images, SCORE_SIGMA)) for images in (fixed, moved))
    weight = _parts(inside.view_as(fixed))
    found = _correlation(one, other, weight)
    detailed = torch.maximum(one.std(dim=2), other.std(dim=2)) > LEAST_DETAIL
    usable = (weight.mean(dim=2) >= 0.5) & detailed
    median = found.masked_fill(~usable, float("nan")).nanmedian(dim=1).values
    return torch.where(usable.float().mean(dim=1) >= LEAST_PARTS, median, 0.0)


def _parts(images: Tensor) -> Tensor:
    """Cut [K, S, S] into ``PARTS`` x ``PARTS`` squares: [K, parts, pixels]."""
    size = images.shape[-1] // PARTS
    return images.view(len(images), PARTS, size, PARTS, size).transpose(2, 3).reshape(len(images), PARTS**2, -1)
