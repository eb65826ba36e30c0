"""A campaign file drafted from a table's columns: every guess with its reason, every placeholder marked."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from campaigns.drafting.roles import Asked, guess_roles
from campaigns.drafting.text import campaign_text
from campaigns.loading import parse_campaign

__all__ = ["draft_campaign"]


def draft_campaign(
    name: str,
    table: pd.DataFrame,
    path: str,
    *,
    unit: str | None = None,
    timestamp: str | None = None,
    treatment: str | None = None,
    control: str | None = None,
    outcomes: Sequence[str] | None = None,
) -> str:
    """The text of a commented campaign file for a table.

    Args:
        name: The campaign's name.
        table: Logged decisions, one a row, as read from ``path``.
        path: What the campaign's source says; ``.csv`` and ``.csv.gz`` are CSV, all else is Parquet.
        unit: The column that says who was decided on; guessed if None, as are the others.
        timestamp: The column that says when.
        treatment: The column that says what was given.
        control: The treatment's value that means 'not treated'.
        outcomes: The columns of responses.

    Returns:
        YAML that :func:`campaigns.loading.parse_campaign` takes. Costs, values and the budget are
        placeholders, marked ``CHANGE``.

    Raises:
        CampaignError: The name is no name.
        DataError: A role that a campaign can't do without fits no column: one line each, with the
            flag of ``updraft init`` that says it.
    """
    roles = guess_roles(table, Asked(unit, timestamp, treatment, control, outcomes))
    text = campaign_text(name, table, path, roles)
    parse_campaign(text, where="updraft init")
    return text
