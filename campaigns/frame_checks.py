"""What is wrong with a decision frame that no single column shows, be it whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from campaigns.spec import Campaign


def piece_problems(frame: pd.DataFrame, campaign: Campaign, start: int = 0) -> Iterable[str]:
    """What some rows show by themselves.

    Args:
        frame: A decision frame, or rows of one.
        campaign: Its campaign.
        start: Which row of the whole its first one is.
    """
    ids = frame["decision_id"]
    if ids.duplicated().any():
        yield repeated(int(ids.duplicated().sum()), ids[ids.duplicated()].iloc[0])
    propensity = frame["propensity"].to_numpy()
    wrong = ~((propensity > 0) & (propensity <= 1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        yield (
            f"column '{campaign.propensity}' (propensity): {int(wrong.sum())} rows lie outside (0, 1], "
            f"such as {propensity[row]} in row {start + row}; "
            "it is the probability of the arm that was given"
        )


def repeated(rows: int, example: str) -> str:
    """The sentence about decision ids that come twice."""
    return (
        f"column 'decision_id': {rows} rows repeat an id, such as {example!r}; "
        "each decision has its own"
    )


class Seen:
    """What only the whole shows: which arms came, and between which values each outcome lies."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.arms: set[int] = set()
        self.ends: dict[str, tuple[float, float]] = {}  # least and greatest value of each outcome
        self.odd: dict[str, float] = {}  # least value of a binary outcome that is neither 0 nor 1

    def add(self, frame: pd.DataFrame) -> None:
        """Take a piece into account."""
        self.arms |= set(np.unique(frame["arm"]).tolist())
        for name, outcome in self.campaign.outcomes.items():
            values = frame[name].to_numpy()
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            low, high = self.ends.get(name, (np.inf, -np.inf))
            self.ends[name] = min(low, float(values.min())), max(high, float(values.max()))
            odd = values[(values != 0) & (values != 1)]
            if outcome.kind == "binary" and len(odd):
                self.odd[name] = min(self.odd.get(name, np.inf), float(odd.min()))

    def problems(self) -> Iterator[str]:
        """What is wrong with all that was added."""
        if len(self.arms) == 1:
            only = self.campaign.arm_table.names[next(iter(self.arms))]
            yield f"every row was given arm {only!r}; an effect needs at least two arms in the log"
        for name, outcome in self.campaign.outcomes.items():
            where = f"column '{name}' (outcomes.{name})"
            low, high = self.ends.get(name, (np.nan, np.nan))
            if name not in self.ends:
                yield f"{where}: no row has a value"
            elif low == high:
                yield (
                    f"{where}: every row is {low:g}; "
                    "an outcome that never changes can't be learned: leave it out or look at the join"
                )
            elif name in self.odd:
                yield (
                    f"{where}: holds {self.odd[name]:g}; a binary outcome is 0 or 1 "
                    "(else say kind: count or continuous)"
                )
            elif outcome.kind == "count" and low < 0:
                yield f"{where}: holds {low:g}; a count is 0 or more"
