"""The reader of real X-ray files: any PNG in, gray uint8 pixels of one size out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DECODING = 1  # version of ``read_image``; raise it with every change of the pixels that it makes


def read_image(path: str | Path, image_size: int) -> np.ndarray:
    """Decode a PNG (8- or 16-bit gray, RGB, RGBA, palette; any size) to gray uint8 [image_size, image_size].

    16-bit samples are divided by 257, PNG's own scaling to 8 bits; transparency is ignored; antialiased
    bilinear resize. ``OSError`` if the file is missing or damaged.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I"):  # 16-bit gray: PIL would clip it to 255
                gray = Image.fromarray((np.asarray(image, dtype=np.float32) / 257.0).clip(0, 255))
            else:
                gray = image if image.mode == "L" else image.convert("RGB").convert("L")
            resized = gray.resize((image_size, image_size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"not a readable image: {error}") from None
    return np.asarray(resized).round().astype(np.uint8)


def decoder_version() -> str:
    """What pixels depend on besides the file and the size: this code and the library that it calls."""
    import PIL

    return f"gray, antialiased bilinear, version {DECODING}, Pillow {PIL.__version__}"
