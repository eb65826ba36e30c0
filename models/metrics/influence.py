"""Influence functions: what each row adds to a metric, hence its standard error without a bootstrap.

A metric's error is the root of sum_i (w_i IF_i)^2 / U, U all units, and that of the difference of two
scores on the same rows comes from the difference of their IFs. With A_i = U v_i 1[treated] / V_T and
B_i = U v_i 1[control] / V_C (v inverse-propensity weights, V their sums), Q_i the share of the units
ranked at or above row i, mu_1, mu_0 and lift the means at a depth, G the gain curve and tau its slope:

    ate      A (y - mu_1(1)) - B (y - mu_0(1))
    lift@h   1[Q <= h] / h (A (y - mu_1(h)) - B (y - mu_0(h))) + (lift(h) - tau(h)) (1[Q <= h] - h) / h
    auuc     A ((1 - Q) y - M_1(Q)) - B ((1 - Q) y - M_0(Q)) + L(Q) - (G(1) - G(Q)),
             M_1, M_0, L the integrals of mu_1, mu_0, lift from Q to 1
    RATE     A (omega(Q) (y - m) - theta_T) - B (omega(Q) (y - m) - theta_C) + integral_Q^1 omega' tau

all centred. The last terms are for the ranks, which are estimated too: a unit moves those below it down.
Source: the functional delta method (van der Vaart, "Asymptotic Statistics", 1998, chapter 20) on our
definitions; for RATE: Yadlowsky et al., arXiv:2111.07966, section 3; for the others our derivation, held
to the bootstrap and to simulated coverage by tests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.metrics.checks import Array
from models.metrics.points import ratio
from models.metrics.rank_weighted import Weighting, rank_correction, rank_weights
from models.metrics.trial import Trial

Influence = Callable[[Trial], Array]


class _Rows:
    """A trial's rows by descending score, those without weight left out, and the curve at their blocks.

    ``a`` and ``b`` are A and B above, ``y`` outcomes, ``mass`` weights, each [n]; ``place`` the block
    of each row, ``depth`` the shares of units at the blocks' ends [M + 1].
    """

    def __init__(self, trial: Trial) -> None:
        ranked, self.length = trial.ranked, len(trial.y)
        heavy = trial.weight[ranked.order]
        kept = heavy > 0
        self.rows = ranked.order[kept]
        self.mass, self.y = heavy[kept], ranked.y[kept]
        inverse = np.ones(len(kept)) if ranked.inverse is None else ranked.inverse
        self.treated = ranked.treated[kept]
        v = [(inverse * member)[kept] for member in (ranked.treated, ranked.control)]
        units = self.mass.sum()
        self.a, self.b = (units * each / (self.mass @ each) for each in v)

        ends = np.arange(len(kept)) + 1 if ranked.ends is None else ranked.ends
        place = np.searchsorted(ends, np.flatnonzero(kept), side="right")
        _, self.place = np.unique(place, return_inverse=True)  # of the blocks that have weight
        columns = (self.mass, self.mass * self.a, self.mass * self.b)
        outcomes = (self.mass * self.a * self.y, self.mass * self.b * self.y)
        self.depth, self.f_t, self.f_c, y_t, y_c = (
            np.append(0.0, np.cumsum(np.bincount(self.place, each))) / units
            for each in (*columns, *outcomes)
        )
        self.mu_1, self.mu_0 = ratio(y_t, self.f_t), ratio(y_c, self.f_c)
        self.y_t, self.y_c = y_t, y_c
        self.lift = self.mu_1 - self.mu_0

    def at(self, values: Array) -> Array:
        """Each row's mean [n] over its block of ``values`` at the blocks' ends [M + 1]."""
        return ((values[1:] + values[:-1]) / 2)[self.place]

    def from_here(self, values: Array) -> Array:
        """Each row's integral [n] of ``values`` [M + 1] from its depth to 1."""
        parts = np.diff(self.depth) * (values[1:] + values[:-1]) / 2
        return self.at(np.append(np.cumsum(parts[::-1])[::-1], 0.0))

    def out(self, influence: Array) -> Array:
        """Centred, in the trial's order, 0 for rows without weight [N]."""
        found = np.zeros(self.length)
        found[self.rows] = influence - np.average(influence, weights=self.mass)
        return found


def ate_influence(trial: Trial) -> Array:
    """See above [N]."""
    rows = _Rows(trial)
    return rows.out(_ate(rows))


def lift_influence(trial: Trial, h: float = 0.3) -> Array:
    """See above [N]; tau(h) is the slope of G between the depths h -+ h n^(-1/3)."""
    rows = _Rows(trial)
    top = np.clip((h - rows.depth[:-1]) / np.diff(rows.depth), 0.0, 1.0)[rows.place]
    mu_1, mu_0 = (
        np.interp(h, rows.depth, above) / np.interp(h, rows.depth, below)
        for above, below in ((rows.y_t, rows.f_t), (rows.y_c, rows.f_c))
    )
    width = h * len(rows.y) ** (-1 / 3)
    sides = np.clip([h - width, h + width], 0.0, 1.0)
    low, high = np.interp(sides, rows.depth, rows.depth * rows.lift)
    slope = (high - low) / (sides[1] - sides[0])
    own = rows.a * (rows.y - mu_1) - rows.b * (rows.y - mu_0)
    return rows.out(top / h * (own + mu_1 - mu_0 - slope))


def auuc_influence(trial: Trial) -> Array:
    """See above [N]."""
    rows = _Rows(trial)
    return rows.out(_auuc(rows))


def qini_influence(trial: Trial) -> Array:
    """Of the Qini coefficient [N].

    Q = H (p AUUC - p ATE / 2), p the treated share of the H units, up to the noise of who is treated
    at which depth: IF = H (p (IF_auuc - IF_ate / 2) + p (A - 1) (L(Q) - AUUC) + (t - p) (AUUC - ATE / 2)).
    """
    rows = _Rows(trial)
    units = rows.mass.sum()
    share = (rows.mass @ rows.treated) / units
    area = float(np.trapezoid(rows.depth * rows.lift, rows.depth))
    ate = rows.lift[-1]
    found = share * (_auuc(rows) - _ate(rows) / 2)
    found += share * (rows.a - 1) * (rows.from_here(rows.lift) - area)
    found += (rows.treated - share) * (area - ate / 2)
    return units * rows.out(found)


def rate_influence(trial: Trial, weighting: Weighting = "autoc") -> Array:
    """See above [N]."""
    rows = _Rows(trial)
    level = (rows.mu_1[-1] + rows.mu_0[-1]) / 2
    gained = (rows.y_t - level * rows.f_t) - (rows.y_c - level * rows.f_c)
    omega = rank_weights(rows.depth, weighting)[rows.place]
    y, found = rows.y - level, np.zeros(len(rows.y))
    for mass, sign in ((rows.a, 1.0), (rows.b, -1.0)):
        theta = np.average(mass * omega * y, weights=rows.mass)
        found += sign * mass * (omega * y - theta)
    return rows.out(found + rank_correction(rows.depth, gained, weighting)[rows.place])


def standard_error(trial: Trial, influence: Array) -> float:
    """Of a metric with that influence [N]."""
    return float(np.sqrt(((trial.weight * influence) ** 2).sum()) / trial.weight.sum())


def _ate(rows: _Rows) -> Array:
    return rows.a * (rows.y - rows.mu_1[-1]) - rows.b * (rows.y - rows.mu_0[-1])


def _auuc(rows: _Rows) -> Array:
    past = 1.0 - rows.at(rows.depth)
    gain = rows.depth * rows.lift
    found = rows.a * (past * rows.y - rows.from_here(rows.mu_1))
    found -= rows.b * (past * rows.y - rows.from_here(rows.mu_0))
    return found + rows.from_here(rows.lift) - (gain[-1] - rows.at(gain))
