"""Ids of images: which texts may be one, how endings of files count, and lists of them in messages."""

from __future__ import annotations

import re
import unicodedata

LONGEST_ID = 250  # bytes; file systems end at 255, ending included
FILE_ENDINGS = re.compile(r"(\.(png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|npy))+$", re.IGNORECASE)


def why_no_id(text: str) -> str | None:
    """Say why ``text`` cannot name an image file within a folder; None if it can.

    Blanks, brackets and letters of any alphabet are allowed.
    """
    if not text:
        return "it is empty"
    if "/" in text or "\\" in text or re.match("[A-Za-z]:", text):
        return "it names a folder"
    if text.startswith("."):
        return "it begins with a dot"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text):
        return "it holds a control character"
    if len(text.encode()) > LONGEST_ID:
        return f"it is longer than {LONGEST_ID} bytes"
    return None


def without_ending(name: str) -> str:
    """Remove the ending of an image file: "a/b.PNG" -> "a/b"; dots within an id stay."""
    return FILE_ENDINGS.sub("", name.strip())


def name_some(image_ids: list[str], limit: int = 10) -> str:
    """Write "3 images (a, b, c)": the count and the first ``limit`` names."""
    count = f"{len(image_ids):,} image{'s' if len(image_ids) != 1 else ''}"
    more = ", ..." if len(image_ids) > limit else ""
    return f"{count} ({', '.join(image_ids[:limit])}{more})"
