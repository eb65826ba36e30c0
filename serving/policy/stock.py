"""Stock: at most so many units of an arm. A price on each scarce arm, next to the one on cost.

The dual is minimised one price at a time: lambda exactly (`relax`), then each arm's price, which is
the margin of the first unit that has to go without. It is convex but not smooth, so this can stop
short of the minimum; every price gives a valid upper bound, so the reported gap stays true.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from serving.policy.inputs import Bools, Floats, Ints
from serving.policy.knapsack import Relaxed, cheapest, relax

ROUNDS = 50
ENOUGH = 1e-7  # a round that lowers the bound by less than this share is the last


def stock_vector(stock: ArrayLike, arms: int) -> Floats:
    """Pieces of each arm, [A] float64 with infinity for no limit (given as infinity or NaN)."""
    pieces = np.array(stock, dtype=np.float64)
    if pieces.shape != (arms,):
        raise DataError(f"stock must have one entry for each of the {arms} arms.")
    pieces[np.isnan(pieces)] = np.inf
    if (pieces < 0).any():
        raise DataError(f"stock must not be negative, but holds {pieces.min()}.")
    if np.isfinite(pieces[0]):
        raise DataError("stock of arm 0 must be infinite: control never runs out.")
    return np.floor(pieces)


def relax_with_stock(
    net: Floats, cost: Floats, allowed: Bools, budget: float, stock: Floats
) -> Relaxed:
    """`relax` with a price on each scarce arm; its arms keep to the budget and to the stock."""
    if (cost[allowed] < 0).any():
        raise DataError("stock goes with costs that are not negative only.")
    scarce = np.flatnonzero(np.isfinite(stock))
    best = relax(net, cost, allowed, budget)
    last = best
    for _ in range(ROUNDS):
        arm_price = _arm_prices(net, cost, allowed, last, stock)
        last = relax(net - arm_price, cost, allowed, budget)
        bound = last.bound + float(arm_price[scarce] @ stock[scarce])
        last = Relaxed(last.arm, last.price, arm_price, bound)
        gained = best.bound - bound
        best = last if gained > 0 else best
        if gained <= ENOUGH * abs(bound):
            break
    arm = _within_stock(net, cost, allowed, best, stock)
    return Relaxed(arm, best.price, best.arm_price, best.bound)


def _arm_prices(net: Floats, cost: Floats, allowed: Bools, at: Relaxed, stock: Floats) -> Floats:
    """One sweep: each scarce arm's best price, the others' given."""
    free = np.where(allowed, net - at.price * cost, -np.inf)
    arm_price = at.arm_price.copy()
    for arm in np.flatnonzero(np.isfinite(stock)):
        pieces = int(stock[arm])
        if pieces >= len(net):
            continue  # enough for everyone
        score = free - arm_price
        score[:, arm] = -np.inf
        margin = np.sort(free[:, arm] - score.max(axis=1))[::-1]
        arm_price[arm] = max(0.0, float(margin[pieces]))
    return arm_price


def _within_stock(net: Floats, cost: Floats, allowed: Bools, found: Relaxed, stock: Floats) -> Ints:
    """Units beyond the stock, those that gain least, go back to a free arm that isn't scarce."""
    rows = np.arange(len(net))
    fallback = cheapest(net, cost, allowed & np.isinf(stock))
    gain = net[rows, found.arm] - net[rows, fallback] - found.price * cost[rows, found.arm]
    arm = found.arm.copy()
    for scarce in np.flatnonzero(np.bincount(arm, minlength=len(stock)) > stock):
        takers = np.flatnonzero(arm == scarce)
        worst_first = takers[np.argsort(gain[takers], kind="stable")]
        beyond = worst_first[: len(takers) - int(stock[scarce])]
        arm[beyond] = fallback[beyond]
    return arm
