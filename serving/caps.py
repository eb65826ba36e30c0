"""What is left of a campaign's limits, decision by decision: arms that no longer fit, and their price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from campaigns.limits import counted
from campaigns.spec import Campaign
from serving.ledger import Ledger
from serving.limits import Account, accounts, period_of
from serving.pacing import elapsed_of, paced_price
from serving.policy.limits import Limit

ROUNDING = 1e-9  # of a bound: three times 0.1 is within 0.3


@dataclass(frozen=True, eq=False)
class Cap:
    """A limit of N units, with what its period has used of it.

    Attributes:
        limit: The sum over these units.
        account: Where its use is kept.
        used: So far.
    """

    limit: Limit
    account: Account
    used: float

    @property
    def room(self) -> float:
        """What these units may use together at most."""
        return self.limit.at_most * (1 + ROUNDING) - self.used

    def price(self, base: float, campaign: Campaign, now: datetime) -> float:
        """The price now: the trained one, moved by its own clock as the budget's is."""
        (limit,) = (one for one in counted(campaign.limits) if one.title == self.limit.name)
        paced = base > 0 and campaign.budget.pacing == "clock"
        per, traffic = period_of(limit, campaign), campaign.budget.traffic
        passed = elapsed_of(per, now, traffic) if paced else None
        most = self.limit.at_most
        return paced_price(base, min_return=0.0, spent=self.used, budget=most, elapsed=passed)


def find_caps(
    limits: tuple[Limit, ...], campaign: Campaign, ledger: Ledger, now: datetime
) -> list[Cap]:
    """The limits that the ledger counts, as they stand."""
    known = accounts(campaign, now)
    return [
        Cap(limit, known[limit.name], ledger.uses.get(known[limit.name], 0.0))
        for limit in limits
        if limit.name in known
    ]


def shut(eligible: np.ndarray, caps: list[Cap]) -> tuple[np.ndarray, list[str]]:
    """Without the arms that use more than is left of a limit, [N, A]; and why, a sentence or "" a unit."""
    fits, reasons = eligible, [""] * len(eligible)
    for cap in caps:
        beyond = fits & (np.broadcast_to(cap.limit.use, fits.shape) > cap.room)
        beyond[:, 0] = False
        fits = fits & ~beyond
        for row in np.flatnonzero(beyond.any(axis=1)):
            told = f"{cap.limit.name}: {cap.used:g} of {cap.limit.at_most:g} used."
            reasons[row] = " ".join(filter(None, [reasons[row], told]))
    return fits, reasons


def enough(eligible: np.ndarray, caps: list[Cap]) -> bool:
    """Whether every limit has room for whatever the units get."""
    for cap in caps:
        use = np.where(eligible, np.broadcast_to(cap.limit.use, eligible.shape), 0.0)
        if use.max(axis=1, initial=0.0).sum() > cap.room:
            return False
    return True


def net_of_limits(
    value: np.ndarray,
    limits: tuple[Limit, ...],
    prices: Mapping[str, float],
) -> np.ndarray:
    """Values over control less what each limit's price asks, [N, A]."""
    net = value
    for limit in limits:
        price = prices.get(limit.name, 0.0)
        if price:
            use = np.broadcast_to(limit.use, value.shape)
            net = net - price * (use - use[:, :1])
    return net
