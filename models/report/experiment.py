"""From an experiment's read-out to one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from campaigns.spec import Campaign
from models.readout import COST, ReadOut, VariantRow
from models.report import figures
from models.report.data import CampaignFacts
from models.report.page import environment

TEMPLATE = "experiment.html.j2"
LONGEST = 24  # characters of a variant's name beside a chart


def render_experiment(found: ReadOut, campaign: Campaign, path: Path) -> None:
    """Write the read-out as one HTML file: no scripts, no fonts, nothing that is fetched.

    Args:
        found: What the experiment shows.
        campaign: What it is about.
        path: Of the file; its folder is there.
    """
    html = (
        environment()
        .get_template(TEMPLATE)
        .render(
            r=found,
            cost=COST,
            campaign=CampaignFacts.of(campaign),
            charts={name: _forest(name, rows) for name, rows in found.outcomes.items()},
        )
    )
    path.write_text(html, encoding="utf-8")


def _forest(outcome: str, rows: dict[str, VariantRow]) -> str:
    """Differences from the reference with their intervals, where they are defined."""
    drawn = {
        name: row.effect.difference
        for name, row in rows.items()
        if row.effect.difference is not None
        and row.effect.difference.low < row.effect.difference.high
    }
    if not drawn:
        return ""
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in drawn]
    label = f"{outcome}, difference a unit"
    return figures.forest(names, list(drawn.values()), [None] * len(drawn), label)
