"""Features of images that need no trained network: area averages, gradients and grain.

Pixels in, numbers out; nothing here reads a file.
"""

from __future__ import annotations

import numpy as np
import torch

from common.arrays import release_memory_map

THUMBNAIL_SIDE = 16
# HOG is computed at no more pixels a side than this. At 64, with cells of 8 pixels, gradients are mostly
# grain: noise of SD 4 on real X-rays costs them nearly all of their recall; at 32 hardly any, while images
# upside down still have none.
HOG_SIDE = 32
HOG_CELL, HOG_BLOCK, HOG_DIRECTIONS = 8, 2, 8  # pixels, cells, bins of 22.5 degrees


def thumbnail_features(pixels: np.ndarray, side: int = THUMBNAIL_SIDE) -> np.ndarray:
    """Reduce images uint8 [N, S, S] to area averages float32 [N, side * side] in [0, 1]."""
    small = []
    for chunk in np.array_split(pixels, max(1, len(pixels) // 256)):
        images = torch.from_numpy(chunk.astype(np.float32))[:, None]
        small.append(torch.nn.functional.adaptive_avg_pool2d(images, side))
        release_memory_map(pixels)
    return torch.cat(small).flatten(1).numpy() / 255.0


def small_images(pixels: torch.Tensor, side: int, chunk: int = 512) -> np.ndarray:
    """Reduce images uint8 [N, S, S] on any device to rounded area averages uint8 [N, side, side]."""
    parts = [
        torch.nn.functional.adaptive_avg_pool2d(part[:, None].float(), side)[:, 0].round().byte().cpu()
        for part in pixels.split(chunk)
    ]
    return torch.cat(parts).numpy()


def hog_features(pixels: np.ndarray) -> np.ndarray:
    """Compute histograms of oriented gradients: uint8 [N, S, S] -> float32 [N, hog_dim(S)].

    The image is first reduced to at most ``HOG_SIDE`` pixels a side; cells have 8 x 8 pixels and blocks 2 x 2
    cells. A block of k numbers usually has length 1; here it has length sqrt(k), so that the kernel distance,
    which divides by the number of features, works on numbers of order 1.

    Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005.
    """
    from skimage.feature import hog

    side = min(HOG_SIDE, pixels.shape[1])
    small = thumbnail_features(pixels, side).reshape(-1, side, side)
    cell, block = (HOG_CELL, HOG_CELL), (HOG_BLOCK, HOG_BLOCK)
    rows = [hog(image, HOG_DIRECTIONS, cell, block) for image in small]
    return (np.stack(rows) * np.sqrt(HOG_BLOCK**2 * HOG_DIRECTIONS)).astype(np.float32)


def hog_dim(image_size: int) -> int:
    """Number of HOG features of an image of that side."""
    blocks = min(HOG_SIDE, image_size) // HOG_CELL - HOG_BLOCK + 1
    return blocks**2 * HOG_BLOCK**2 * HOG_DIRECTIONS


def grain(pixels: np.ndarray) -> float:
    """Mean size of the Laplacian (four neighbours) of images uint8 [N, S, S], in gray levels.

    High in grainy images, low in blurred ones. HOG does not see this, so it is reported beside HOG's values.
    """
    from scipy.ndimage import convolve1d

    total = 0.0
    for start in range(0, len(pixels), 256):
        part = pixels[start : start + 256].astype(np.float32)
        total += float(np.abs(sum(convolve1d(part, [1, -2, 1], axis) for axis in (1, 2))).sum(dtype=float))
    return total / pixels.size
