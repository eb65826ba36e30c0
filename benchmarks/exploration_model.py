"""The model of the exploration benchmark: an ensemble that is fit again on everything in milliseconds.

Reward of unit x under arm a: ``y = phi(x)' (b + d_a)``, ``d_0 = 0``, by ridge regression; phi are the
standardised features and 160 random ReLUs of them. What all arms share, b, and each effect, d_a,
have penalties of their own. Least squares need sums over rows alone, so that a cycle adds its own rows
to the sums of all before; these fade by a factor a cycle, since the world drifts.

Each member weighs each row by Exp(1) (the Bayesian bootstrap) and shrinks towards a draw of its own
instead of towards 0 (randomized prior functions: Osband, Aslanides & Cassirer 2018), so that members
also disagree where nothing was ever logged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from campaigns.worlds.base import World

RELUS = 160
SHARED, EFFECT = 20.0, 200.0  # penalties, in rows; chosen on uniform logs of the still world
PRIOR = 0.05  # spread of a coefficient's prior
SKEWED = ("days_since_login", "games_7d", "sessions_30d", "session_minutes", "spend_90d",
          "skins_owned", "tenure_days", "friends")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Features:
    """phi: standardisation and random directions, fixed by a first frame."""

    world: World
    middle: np.ndarray
    scale: np.ndarray
    levels: dict[str, list[str]]
    direction: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, world: World, frame: pd.DataFrame, seed: int) -> Features:
        raw = _numbers(world, frame)
        levels = {name: sorted(frame[name].dropna().unique()) for name in world.categorical}
        width = raw.shape[1] + sum(len(each) for each in levels.values())
        rng = np.random.default_rng([seed, 77])
        direction = rng.normal(0, 1, (width, RELUS)) * (rng.random((width, RELUS)) < 4 / width)
        return cls(
            world,
            np.nanmedian(raw, axis=0),
            np.maximum(np.nanstd(raw, axis=0), 1e-3),
            levels,
            direction,
            rng.normal(0, 1, RELUS),
        )

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """phi, [N, P]; the first column is 1."""
        raw = _numbers(self.world, frame)
        z = (np.where(np.isnan(raw), self.middle, raw) - self.middle) / self.scale
        hot = [
            (frame[name] == level).to_numpy(float)[:, None]
            for name, each in self.levels.items()
            for level in each
        ]
        z = np.hstack([z.clip(-4, 4), *hot])
        relu = np.maximum(z @ self.direction + self.shift, 0.0)
        return np.hstack([np.ones((len(z), 1)), z, relu])


class Ensemble:
    """M members, from the sums of all rows that were added.

    Args:
        width: P, columns of phi.
        arms: A, control included.
        members: M.
        keep: What is left of a row's weight a cycle later.
        seed: Of bootstrap weights and priors.
    """

    def __init__(self, width: int, arms: int, members: int, keep: float, seed: int) -> None:
        self.keep = keep
        self.rng = np.random.default_rng([seed, 78])
        self.gram = np.zeros((members, arms, width, width))
        self.moment = np.zeros((members, arms, width))
        self.prior = self.rng.normal(0, PRIOR, (members, arms, width))
        self.penalty = np.repeat([SHARED, *[EFFECT] * (arms - 1)], width)

    def add(self, phi: np.ndarray, arm: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
        """A cycle's rows: phi [N, P], arm, reward and weight [N]."""
        self.gram *= self.keep
        self.moment *= self.keep
        for m in range(len(self.gram)):
            own = weight * self.rng.exponential(size=len(weight))
            for a in np.unique(arm):
                rows = arm == a
                weighed = phi[rows] * own[rows, None]
                self.gram[m, a] += weighed.T @ phi[rows]
                self.moment[m, a] += weighed.T @ y[rows]

    def values(self, phi: np.ndarray) -> np.ndarray:
        """Each member's value of each arm over control, [M, N, A]."""
        members, arms, width = self.moment.shape
        found = np.zeros((members, len(phi), arms))
        for m in range(members):
            normal = np.zeros((arms, width, arms, width))
            normal[0, :, 0] = self.gram[m].sum(axis=0)
            for a in range(1, arms):
                normal[0, :, a] = normal[a, :, 0] = normal[a, :, a] = self.gram[m, a]
            right = np.r_[self.moment[m].sum(axis=0)[None], self.moment[m, 1:]]
            right = (right + self.penalty.reshape(arms, width) * self.prior[m]).ravel()
            flat = normal.reshape(arms * width, arms * width) + np.diag(self.penalty)
            effects = np.linalg.solve(flat, right).reshape(arms, width)[1:]
            found[m, :, 1:] = phi @ effects.T
        return found


def _numbers(world: World, frame: pd.DataFrame) -> np.ndarray:
    columns = [frame[name].to_numpy(np.float64) for name in world.numeric]
    return np.column_stack(
        [np.log1p(x) if name in SKEWED else x for name, x in zip(world.numeric, columns)]
    )
