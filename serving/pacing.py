"""The price of spending, moved so that the budget lasts as long as its period.

The price that training found assumes as many units, worth as much, as there were in training. With more
of them the budget would be gone by noon, with fewer some would be left over. So the price follows the
share of the budget that is left over the share of the period that is left::

    lambda = max(min_return, base + scale * (left ** -GAIN - 1)),    scale = base, or 1 where that is 0
    left   = (1 - spent / budget) / (1 - elapsed)

Where base is positive that is base / left ** GAIN. Spending evenly what is left keeps `left` where it is,
so after a wrong start the price settles at the one that spends the budget by the end of the period, and
doesn't stay off as a price proportional to the error would. It is the feedback form of solving anew for
the remaining budget (Jasin & Kumar 2012, Mathematics of Operations Research 37(2)).

It depends on the ledger and the clock only: replicas agree, and a restart forgets nothing. The dual
ascent of adaptive pacing (Balseiro & Gur 2019, "Learning in Repeated Auctions with Budgets") sums errors
in a state that must be kept. What is spent never passes the budget, since a decision that no longer
fits is control (`serving.policy.spend`).

Where the campaign says how a day's arrivals spread over its hours (`budget.traffic`), time passes with them:
`elapsed` is the share of the period's expected arrivals that has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from campaigns.spec import Budget

MOST = 1e6  # times the base price; a tiny budget makes no infinite price
LEAST_LEFT = 1e-9  # of the budget, and of the period
GAIN = 3.0  # a tenth of the budget less than the clock has left makes the price a third higher


def paced_price(
    base: float, *, min_return: float, spent: float, budget: float, elapsed: float | None
) -> float:
    """lambda now.

    Args:
        base: lambda at the campaign's budget, as training found it.
        min_return: Its floor: the smallest value worth paying for one unit of cost.
        spent: Spent so far in the period.
        budget: The period's budget.
        elapsed: How much of the period has passed, 0..1; None = it has no end, and no pacing.
    """
    if elapsed is None or budget <= 0:
        return max(base, min_return)
    left = max(1 - spent / budget, LEAST_LEFT) / max(1 - elapsed, LEAST_LEFT)
    factor = min(left**-GAIN, MOST)
    return max(base + (base or 1.0) * (factor - 1), min_return)


def elapsed(budget: Budget, now: datetime) -> float | None:
    """How much of the budget's period has passed, 0..1, by UTC; None where nothing is paced by it."""
    return None if budget.pacing == "none" else elapsed_of(budget.per, now, budget.traffic)


def elapsed_of(per: str, now: datetime, traffic: Sequence[float] | None = None) -> float | None:
    """How much of a period of this kind has passed, 0..1, by UTC; None where it has no end.

    Args:
        per: ``hour``, ``day``, ``week`` or ``month``; others have no end.
        now: The moment.
        traffic: Arrivals of each hour of a day, [24], to pass the day by; None: evenly.
    """
    now = now.astimezone(UTC)
    if traffic is not None and per != "hour":
        now = _by_traffic(now, traffic)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "hour":
        start = now.replace(minute=0, second=0, microsecond=0)
        end = start + timedelta(hours=1)
    elif per == "day":
        start, end = midnight, midnight + timedelta(days=1)
    elif per == "week":
        start = midnight - timedelta(days=now.weekday())
        end = start + timedelta(days=7)
    elif per == "month":
        start = midnight.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    else:
        return None
    return (now - start) / (end - start)


def _by_traffic(now: datetime, traffic: Sequence[float]) -> datetime:
    """The time of day by which, if they came evenly, as much of the day's arrivals had come."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    into = (now - midnight) / timedelta(hours=1) - now.hour
    come = sum(traffic[: now.hour]) + traffic[now.hour] * into
    return midnight + come / sum(traffic) * timedelta(days=1)
