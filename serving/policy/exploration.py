"""Epsilon-greedy exploration with true propensities, by keyed draws.

For unit x with eligible arms A_x (control is always one of them) and greedy arm g, outside the
holdout: ``P(a) = epsilon / |A_x| + (1 - epsilon) * 1[a = g]``. Draws are keyed by (salt, unit,
epoch): a decision can be derived again, and a unit's draw sticks within an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from serving.policy.hashing import ARM, COIN, HOLDOUT, Units, uniform
from serving.policy.inputs import (
    Bools,
    Floats,
    Ints,
    arm_vector,
    eligible_matrix,
    numbers,
    same_length,
    share,
)


@dataclass(frozen=True, eq=False)
class Draw:
    """The decisions, one entry a unit.

    Attributes:
        arm: The arm given, [N] int64.
        propensity: Marginal probability of that arm, [N] in (0, 1].
        explored: The exploration coin came up (even where the arm drawn is the greedy one), [N] bool.
        explored_propensity: Probability of that arm given that it was drawn at random, [N];
            NaN where not explored.
        holdout: The unit is never treated, [N] bool: control, with propensity 1, not explored.
    """

    arm: Ints
    propensity: Floats
    explored: Bools
    explored_propensity: Floats
    holdout: Bools


def explore(
    greedy_arm: ArrayLike,
    eligible: ArrayLike,
    epsilon: float | Floats,
    units: Units,
    epoch: str | int,
    salt: str,
    holdout: float = 0.0,
) -> Draw:
    """Give each unit its greedy arm, or with probability epsilon a random eligible one.

    Args:
        greedy_arm: What the policy would give, [N] int.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed.
        epsilon: Probability of exploring, one for all or one a unit [N].
        units: Unit ids, [N].
        epoch: The exploration epoch, such as a date: a unit's draw is the same all through it.
        salt: Key of the draws (`exploration.salt` of the campaign).
        holdout: Share of units that are never treated; who they are doesn't depend on the epoch.

    Raises:
        DataError: A greedy arm that isn't eligible, a wrong shape, a share outside [0, 1].
    """
    greedy, allowed, rate = _checked(greedy_arm, eligible, epsilon)
    same_length("units", units, len(greedy))
    held = held_out(units, salt=salt, holdout=holdout)
    explored = (uniform(units, salt=salt, epoch=epoch, purpose=COIN) < rate) & ~held
    drawn = random_arm(allowed, uniform(units, salt=salt, epoch=epoch, purpose=ARM))
    arm = np.where(held, 0, np.where(explored, drawn, greedy))
    full = full_propensities(greedy, allowed, rate, held)
    return Draw(
        arm=arm,
        propensity=full[np.arange(len(arm)), arm],
        explored=explored,
        explored_propensity=np.where(explored, 1.0 / allowed.sum(axis=1), np.nan),
        holdout=held,
    )


def held_out(units: Units, *, salt: str, holdout: float) -> Bools:
    """Who is held out, [N] bool: for good, whatever the epoch. Growing the share keeps those in it."""
    return uniform(units, salt=salt, epoch="", purpose=HOLDOUT) < share("holdout", holdout)


def full_propensities(
    greedy_arm: ArrayLike,
    eligible: ArrayLike,
    epsilon: float | Floats,
    holdout: ArrayLike | None = None,
) -> Floats:
    """The probability of every arm, [N, A]; rows sum to 1.

    Args:
        greedy_arm: What the policy would give, [N] int.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed.
        epsilon: Probability of exploring, one for all or one a unit [N].
        holdout: Who is held out, [N] bool: control for certain. Default: nobody.
    """
    greedy, allowed, rate = _checked(greedy_arm, eligible, epsilon)
    full = allowed * (rate / allowed.sum(axis=1))[:, None]
    full[np.arange(len(greedy)), greedy] += 1 - rate
    if holdout is not None:
        full[np.asarray(holdout, dtype=bool)] = np.eye(full.shape[1])[0]
    return full


def random_arm(allowed: Bools, uniforms: Floats) -> Ints:
    """The eligible arm [N] that a uniform draw [N] stands for; `allowed` [N, A] has one at least."""
    rank = np.minimum((uniforms * allowed.sum(axis=1)).astype(np.int64), allowed.sum(axis=1) - 1)
    return (allowed.cumsum(axis=1) > rank[:, None]).argmax(axis=1)


def _checked(
    greedy_arm: ArrayLike, eligible: ArrayLike, epsilon: float | Floats
) -> tuple[Ints, Bools, Floats]:
    matrix = np.asarray(eligible)
    if matrix.ndim != 2:
        raise DataError(f"eligible must have the shape [units, arms], not {list(matrix.shape)}.")
    greedy = arm_vector(greedy_arm, matrix.shape[1], "greedy_arm")
    allowed = eligible_matrix(matrix, (len(greedy), matrix.shape[1]))
    barred = np.flatnonzero(~allowed[np.arange(len(greedy)), greedy])
    if len(barred):
        row = int(barred[0])
        raise DataError(f"greedy_arm[{row}] is {greedy[row]}, an arm that unit isn't eligible for.")
    rate = numbers("epsilon", epsilon)
    if rate.ndim > 1 or (rate.ndim == 1 and len(rate) != len(greedy)):
        raise DataError(f"epsilon must be one number or one for each of the {len(greedy)} units.")
    if ((rate < 0) | (rate > 1)).any():
        raise DataError(f"epsilon must be from 0 to 1, but reaches {rate.min()} to {rate.max()}.")
    return greedy, allowed, np.broadcast_to(rate, greedy.shape)
