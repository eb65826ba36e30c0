"""Decisions that are drawn: a uniform trial, a directed draw, or the greedy arm.

Outside the holdout, for unit x with eligible arms A_x (control is always one of them) and greedy arm g,

    P(a) = trial / |A_x| + directed(x) * r(a | x) + (1 - trial - directed(x)) * 1[a = g]

The trial is what `explore` draws: uniform and of the same probability for every unit, so that its
rows (`explored`) stay a clean randomized trial of the whole population, whatever directs the rest,
and every eligible arm has a propensity of trial / |A_x| at least. Directed rows count as chosen; their
propensity, P(a), is as true. All draws are keyed by (salt, unit, epoch), as those of `explore`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from serving.policy.exploration import Draw, full_propensities, held_out, random_arm
from serving.policy.hashing import ARM, COIN, DIRECTED, Units, uniform
from serving.policy.inputs import (
    Bools,
    Floats,
    Ints,
    amount,
    arm_vector,
    cost_matrix,
    eligible_matrix,
    numbers,
    same_length,
    share,
)

ROUNDING = 1e-9  # of probabilities that sum to 1
HALVINGS = 40  # of an interval of rates: a part in 10^12


@dataclass(frozen=True, eq=False)
class Mixture:
    """What is drawn with which probability, for N units.

    Attributes:
        greedy: The arm of those that are not drawn, [N] int64.
        eligible: Which arms a unit may get, [N, A] bool; control among them.
        trial: Probability of a uniform draw, one for all.
        directed: Probability of a directed draw, [N]; trial + directed is at most 1.
        chances: r, the probability of each arm in a directed draw, [N, A]; rows sum to 1, arms that
            aren't eligible have 0.
    """

    greedy: Ints
    eligible: Bools
    trial: float
    directed: Floats
    chances: Floats

    def __len__(self) -> int:
        return len(self.greedy)

    @property
    def epsilon(self) -> Floats:
        """The probability that a unit's arm is drawn, not chosen, [N]."""
        return self.trial + self.directed

    def propensities(self, holdout: ArrayLike | None = None) -> Floats:
        """P(a), [N, A]; rows sum to 1. Who is held out ([N] bool) gets control for certain."""
        full = full_propensities(self.greedy, self.eligible, self.trial)
        moved = self.directed[:, None] * self.chances
        moved[np.arange(len(self)), self.greedy] -= self.directed
        full = np.where(self.eligible, np.maximum(full + moved, 0.0), 0.0)
        if holdout is not None:
            full[np.asarray(holdout, dtype=bool)] = np.eye(full.shape[1])[0]
        return full


@dataclass(frozen=True, eq=False)
class Drawn(Draw):
    """The decisions; ``directed`` [N] bool says whose arm was drawn, but not in the trial."""

    directed: Bools


def mixture(
    greedy_arm: ArrayLike,
    eligible: ArrayLike,
    *,
    trial: float,
    directed: float | Floats = 0.0,
    chances: ArrayLike | None = None,
) -> Mixture:
    """A mixture, checked.

    Args:
        greedy_arm: What the policy would give, [N] int.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed.
        trial: Probability of a uniform draw.
        directed: Probability of a directed draw, one for all or one a unit [N].
        chances: r, [N, A]; default: uniform over the eligible arms.

    Raises:
        DataError: A wrong shape, a probability outside [0, 1], chances that don't sum to 1 or give an
            arm that isn't eligible, a trial and directed draws of more than 1 together.
    """
    matrix = np.asarray(eligible)
    if matrix.ndim != 2:
        raise DataError(f"eligible must have the shape [units, arms], not {list(matrix.shape)}.")
    greedy = arm_vector(greedy_arm, matrix.shape[1], "greedy_arm")
    allowed = eligible_matrix(matrix, (len(greedy), matrix.shape[1]))
    even = share("trial", trial)
    full_propensities(greedy, allowed, even)  # refuses a greedy arm that isn't eligible
    rate = np.broadcast_to(numbers("directed", directed), greedy.shape)
    if ((rate < 0) | (rate + even > 1 + ROUNDING)).any():
        raise DataError(
            f"directed must be from 0 to {1 - even:g} beside a trial of {even:g}, but reaches "
            f"{rate.min():g} to {rate.max():g}."
        )
    if chances is None:
        given = allowed / allowed.sum(axis=1, keepdims=True)
    else:
        given = numbers("chances", chances)
        if given.shape != allowed.shape or (given < 0).any():
            raise DataError(
                f"chances must be probabilities with the shape {list(allowed.shape)}, "
                f"not {list(given.shape)}{' with negative ones' * bool((given < 0).any())}."
            )
        off = np.abs(given.sum(axis=1) - 1) > ROUNDING
        barred = ((given > 0) & ~allowed).any(axis=1)
        if (off | barred).any():
            row = int(np.flatnonzero(off | barred)[0])
            raise DataError(
                f"chances[{row}] is {given[row].tolist()}; it must sum to 1 over the eligible arms."
            )
    return Mixture(greedy, allowed, even, np.clip(rate, 0.0, 1 - even), given)


def draw(plan: Mixture, units: Units, epoch: str | int, salt: str, holdout: float = 0.0) -> Drawn:
    """Draw each unit's arm. Without directed draws, the decisions of `explore`.

    A unit's draws don't depend on who is decided on with it, nor in which order.

    Args:
        plan: What is drawn with which probability, N units.
        units: Unit ids, [N].
        epoch: The exploration epoch, such as a date: a unit's draws are the same all through it.
        salt: Key of the draws.
        holdout: Share of units that are never treated; who they are doesn't depend on the epoch.

    Raises:
        DataError: A wrong number of units, a share outside [0, 1].
    """
    same_length("units", units, len(plan))
    held = held_out(units, salt=salt, holdout=holdout)
    coin = uniform(units, salt=salt, epoch=epoch, purpose=COIN)
    explored = (coin < plan.trial) & ~held
    directed = (coin >= plan.trial) & (coin < plan.epsilon) & ~held
    even = random_arm(plan.eligible, uniform(units, salt=salt, epoch=epoch, purpose=ARM))
    aimed = _by_chance(plan.chances, uniform(units, salt=salt, epoch=epoch, purpose=DIRECTED))
    arm = np.where(explored, even, np.where(directed, aimed, plan.greedy))
    arm = np.where(held, 0, arm)
    return Drawn(
        arm=arm,
        propensity=plan.propensities(held)[np.arange(len(arm)), arm],
        explored=explored,
        explored_propensity=np.where(explored, 1.0 / plan.eligible.sum(axis=1), np.nan),
        holdout=held,
        directed=directed,
    )


def exploration_cost(plan: Mixture, cost: ArrayLike) -> Floats:
    """What exploring a unit is expected to cost, [N]: the cost of arms drawn in place of the greedy one.

    ``sum over a != g of P(a) * c(a)``. A draw that gives the greedy arm costs what it would have
    cost anyway, so it is no exploration's spend.

    Args:
        plan: N units.
        cost: Cost of each arm over control, [A] or [N, A]; arm 0 costs 0.
    """
    shifted = plan.propensities()
    shifted[np.arange(len(plan)), plan.greedy] = 0.0
    return (shifted * cost_matrix(cost, plan.eligible.shape)).sum(axis=1)


def rate_within(
    make: Callable[[float], Mixture], cost: ArrayLike, spend: float, *, most: float = 1.0
) -> float:
    """The greatest rate whose exploration is expected to cost no more than `spend`.

    Caps what exploration may spend, and makes strategies comparable: each at the same spend.

    Args:
        make: The mixture of a rate, such as epsilon; its exploration must not get cheaper as it grows.
        cost: Cost of each arm over control, [A] or [N, A], none negative.
        spend: Most that all units' exploration may cost together, >= 0; infinity for no cap.
        most: The rate that is wanted, from 0 to 1.

    Returns:
        The rate, from 0 to `most`.
    """
    cap, high = amount("spend", spend), share("most", most)

    def fits(rate: float) -> bool:
        return float(exploration_cost(make(rate), cost).sum()) <= cap

    if fits(high):
        return high
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _by_chance(chances: Floats, uniforms: Floats) -> Ints:
    """The arm [N] that a uniform draw [N] stands for; never one without a chance."""
    reached = chances.cumsum(axis=1)
    arm = (reached > (uniforms * reached[:, -1])[:, None]).argmax(axis=1)
    return arm.astype(np.int64)
