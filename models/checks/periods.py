"""Which rows are 'before' and which are 'now', when drift is looked for."""

from __future__ import annotations

import pandas as pd

from models.checks.drift import FEWEST_ROWS

RECENT = 0.25  # share of the rows that count as recent where nothing better is known


def earlier_and_recent(
    frame: pd.DataFrame, learned_until: str | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frame in two: what the newest model learned from, and what came in since.

    Where there is no model yet, or too little came in since, the newest quarter is recent.

    Args:
        frame: Decision frame in the order of time.
        learned_until: Time of the last decision that the newest model knew (ISO 8601), or None.
    """
    if learned_until is not None:
        known = (frame["decided_at"] <= pd.Timestamp(learned_until)).to_numpy()
        if FEWEST_ROWS <= (~known).sum() < len(frame):
            return frame[known], frame[~known]
    cut = int(len(frame) * (1 - RECENT))
    return frame.iloc[:cut], frame.iloc[cut:]
