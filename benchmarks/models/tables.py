"""Numbers as tables: means with intervals, and Markdown written between a page's markers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from scipy import stats


def interval(values: Sequence[float], digits: int) -> str:
    """The mean, and half the width of its 95% t-interval where there are several values."""
    mean = float(np.mean(values))
    if len(values) < 2 or not np.isfinite(mean):
        return f"{mean:.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def put(page: str, name: str, text: str) -> str:
    """The page with what stands between the markers of ``name`` replaced.

    Raises:
        ValueError: The page doesn't have exactly one pair of those markers, in order.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    if page.count(begin) != 1 or page.count(end) != 1 or not pattern.search(page):
        raise ValueError(f"the page needs one pair of markers '{begin}' ... '{end}'")
    return pattern.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", page)
