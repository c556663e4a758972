"""Tables of text for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def aligned_columns(lines: Iterable[tuple[str, ...]], left: Collection[int]) -> list[str]:
    """Pad cells to columns of equal width; columns in ``left`` are aligned left, the others right."""
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
