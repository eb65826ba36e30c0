"""The price of spending, moved so that the budget lasts as long as its period.

The price that training found assumes as many units as there were in training. With more of them the
budget would be gone by noon, with fewer some would be left over. So the price follows how far spending
is ahead of the clock (a proportional controller)::

    lambda = max(min_return, base + GAIN * scale * (spent / budget - elapsed)),  scale = base, or 1

It depends on the ledger and the clock only: replicas agree, and a restart forgets nothing. The dual
ascent of adaptive pacing (Balseiro & Gur 2019, "Learning in Repeated Auctions with Budgets") sums the
same errors, but in a state that must be kept.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from campaigns.spec import Budget

MOST = 1e6  # budgets spent; a tiny budget makes no infinite price
GAIN = 5.0  # ten percent of the budget ahead of the clock makes the price half as high again


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
    ahead = min(spent / budget, MOST) - elapsed
    return max(base + GAIN * (base or 1.0) * ahead, min_return)


def elapsed(budget: Budget, now: datetime) -> float | None:
    """How much of the budget's period has passed, 0..1, by UTC; None where nothing is paced by it."""
    if budget.pacing == "none":
        return None
    per = budget.per
    now = now.astimezone(UTC)
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
