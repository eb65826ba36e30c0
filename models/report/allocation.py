"""From an allocation to one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.report.page import environment

TEMPLATE = "allocation.html.j2"


def render_allocation(found: Mapping[str, Any], path: Path) -> None:
    """Write who gets what, and what every limit costs, as one HTML file that fetches nothing.

    Args:
        found: As ``updraft allocate --json`` prints it.
        path: Of the file; its folder is there.
    """
    path.write_text(environment().get_template(TEMPLATE).render(r=found), encoding="utf-8")
