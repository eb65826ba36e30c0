"""How much of a large table is in memory at a time."""

from __future__ import annotations

CELLS = 2**22  # 32 MB of float64; while a piece is worked on there are several copies of it
MOST = 2**17  # rows


def piece_rows(columns: int) -> int:
    """Rows of a piece of a table with so many columns.

    >>> piece_rows(25), piece_rows(725)
    (131072, 5785)
    """
    return max(1, min(MOST, CELLS // max(columns, 1)))
