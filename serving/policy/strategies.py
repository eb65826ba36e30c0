"""Strategies of exploration: epsilon-greedy, directed by uncertainty, Thompson sampling.

Each makes a :class:`Mixture` from a rate, with a propensity of `floor` at least for every eligible arm
(while the rate allows it: a spend cap goes before the floor). Votes are an ensemble's
(:mod:`serving.policy.committee`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from campaigns.errors import DataError
from serving.policy.committee import disagreement, disputed
from serving.policy.inputs import Floats, eligible_matrix, numbers, share
from serving.policy.mixture import Mixture, mixture
from serving.policy.schedules import fill_level


def epsilon_greedy(greedy_arm: ArrayLike, eligible: ArrayLike, epsilon: float) -> Mixture:
    """``P(a) = epsilon / |A_x| + (1 - epsilon) * 1[a = g]``."""
    return mixture(greedy_arm, eligible, trial=epsilon)


@dataclass(frozen=True)
class Dial:
    """How a unit's directed draws follow from its members' disagreement d (`disagreement`).

    ``directed(x) = min(base + slope * d(x), 1 - trial)``. Found once for a population (`dial`), it
    serves one unit as well as many: nobody's propensity depends on who else is decided on.
    """

    trial: float
    base: float
    slope: float

    def directed(self, doubt: Floats) -> Floats:
        """The probability of a directed draw, [N] -> [N]."""
        return np.minimum(self.base + self.slope * doubt, 1.0 - self.trial)


def dial(doubt: ArrayLike, *, epsilon: float, floor: float, arms: int) -> Dial:
    """The dial at which a population is explored with probability `epsilon` on average.

    Units that no member disagrees on get no directed draw, unless those that are disputed can't
    take all of epsilon.

    Args:
        doubt: d of each unit of the population, [N], >= 0.
        epsilon: Mean probability of a drawn arm, trial and directed together.
        floor: Least propensity of an eligible arm, from 0 to 1 / arms.
        arms: A, control included.

    Raises:
        DataError: A number out of its range.
    """
    doubts = numbers("doubt", doubt)
    if doubts.ndim != 1 or (doubts < 0).any():
        raise DataError("doubt must hold one number that is not negative for each unit.")
    asked, even = share("epsilon", epsilon), trial_of(floor, arms, epsilon)
    room, wanted = 1.0 - even, (asked - even) * len(doubts)
    if wanted <= 0:
        return Dial(even, 0.0, 0.0)
    slope = fill_level(doubts, np.full(len(doubts), room), wanted)
    if slope < np.inf:
        return Dial(even, 0.0, slope)
    disputed_ones = doubts[doubts > 0]  # every one of them is drawn, and that isn't enough
    agreed = len(doubts) - len(disputed_ones)
    slope = room / float(disputed_ones.min()) if len(disputed_ones) else 0.0
    return Dial(even, (wanted - room * len(disputed_ones)) / agreed, slope)


def directed(greedy_arm: ArrayLike, eligible: ArrayLike, votes: Floats, dialled: Dial) -> Mixture:
    """Explore where members disagree, with what they disagree about (`disputed`).

    Args:
        greedy_arm: What the policy would give, [N] int.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed.
        votes: b, [N, A] (`vote_shares`).
        dialled: From `dial`.
    """
    return mixture(
        greedy_arm,
        eligible,
        trial=dialled.trial,
        directed=dialled.directed(disagreement(votes)),
        chances=disputed(votes, eligible_matrix(eligible, votes.shape)),
    )


def thompson(
    greedy_arm: ArrayLike, eligible: ArrayLike, votes: Floats, *, rate: float = 1.0, floor: float
) -> Mixture:
    """Thompson sampling: a unit gets the arm of a member that is drawn for it, in this epoch.

    ``P(a) = trial / |A_x| + (rate - trial) * b(a | x) + (1 - rate) * 1[a = g]``: beside the floor's trial,
    the share of members that give a. To draw a member, the unit's uniform number picks one of the M,
    sorted by the arms that they give, so that the order of the members doesn't matter. A rate below 1
    leaves some units greedy (Russo et al. 2018, "A tutorial on Thompson sampling"; Chapelle & Li
    2011, "An empirical evaluation of Thompson sampling").

    Args:
        greedy_arm: What the policy would give, [N] int.
        eligible: Which arms a unit may get, [N, A] bool; control is always allowed.
        votes: b, [N, A] (`vote_shares`).
        rate: Probability of a drawn arm, trial and members' together.
        floor: Least propensity of an eligible arm, from 0 to 1 / A.
    """
    asked, even = share("rate", rate), trial_of(floor, np.shape(votes)[-1], rate)
    return mixture(greedy_arm, eligible, trial=even, directed=asked - even, chances=votes)


def trial_of(floor: float, arms: int, most: float = 1.0) -> float:
    """The trial that gives every eligible arm a propensity of `floor` at least; not above `most`.

    Raises:
        DataError: A floor that A arms can't all have.
    """
    if not 0 <= share("floor", floor) * arms <= 1 + 1e-12:
        raise DataError(
            f"floor is {floor}, but {arms} arms can have at most {1 / arms:.4g} each at once."
        )
    return min(floor * arms, most, 1.0)
