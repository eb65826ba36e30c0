"""A shop that may offer each visitor a discount: a world whose treatment is a dose.

The discount is a number from 0 (control) to 30 percent. More of it never sells less, each further
percent does less than the one before, and how soon it has done all it can differs between shoppers, as
does how much that is. A bargain hunter needs little, a loyal shopper buys regardless.

What the truth is, exactly (missing: minutes 6; sig(z) = 1 / (1 + e^-z); d = discount / 30)::

    want   = sig(-1.2 + 0.5 * log(1 + visits_30d) - 0.03 * days_since_order)
    reach  = sig(8 * (promo_share - 0.45)) * (1.2 if device is app else 0.8)   moved by discounts
    half   = 0.06 + 0.9 * sig((basket - 45) / 12)              large baskets need more of it
    g(d)   = d * (1 + half) / (d + half)                       from 0 to 1, concave

    P(purchase | d)  = want + 0.75 * reach * (1 - want) * g(d);   kept in 0.01 .. 0.99
    E(revenue | d)   = P(purchase | d) * basket * (1 + 0.2 * [minutes > 8] * d)

``revenue`` is 0 without a purchase, else its mean times a log-normal factor of mean 1.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from campaigns.errors import CampaignError
from campaigns.part import text
from campaigns.worlds.base import (
    START,
    require_arms,
    require_at_least,
    require_columns,
    uniform_trial,
)

LARGEST = 30.0  # percent
SPREAD = 0.4  # of the logarithm of revenue, given a purchase
DEVICES = np.array(["app", "desktop", "mobile"], dtype=object)


class Discount:
    """The world ``discount``: the module says what its truth is, :class:`World` what its methods do.

    Args:
        steps: Discounts that the logged trial gives, evenly from 0 to 30 percent.
    """

    name = "discount"
    unit = "shopper_id"
    factor = "discount"
    outcomes: tuple[str, ...] = ("purchase", "revenue")
    numeric: tuple[str, ...] = (
        "visits_30d",
        "days_since_order",
        "promo_share",
        "basket",
        "minutes",
    )
    categorical: tuple[str, ...] = ("device",)

    def __init__(self, steps: float = 7) -> None:
        if not (2 <= steps <= 100 and steps == int(steps)):
            raise CampaignError(
                f"world 'discount': steps is {steps}; give a whole number from 2 to 100"
            )
        self.doses = np.linspace(0.0, 1.0, int(steps))
        self.arms: tuple[str, ...] = tuple(text(round(LARGEST * d, 9)) for d in self.doses.tolist())

    def units(self, n: int, *, seed: int, day: int = 0) -> pd.DataFrame:
        require_at_least(1, n=n)
        require_at_least(0, seed=seed, day=day)
        return self._features(seed, np.arange(n), np.full(n, day))

    def log(
        self, rows: int, *, seed: int, days: int = 28, start: datetime = START, first_day: int = 0
    ) -> pd.DataFrame:
        return uniform_trial(
            self,
            lambda index, day: self._features(seed, index, day),
            lambda features, arm, day, rng: self._draw(features, arm, rng),
            rows,
            seed=seed,
            days=days,
            start=start,
            first_day=first_day,
        )

    def truth(self, features: pd.DataFrame, *, day: int | np.ndarray = 0) -> np.ndarray:
        return self.response(features, self.doses)

    def response(self, features: pd.DataFrame, doses: np.ndarray) -> np.ndarray:
        """Expected outcomes under doses [S] (0 to 1), whether the log gave them or not: [N, S, K]."""
        require_columns(features, self.numeric + self.categorical)
        column = {name: features[name].to_numpy(dtype=float)[:, None] for name in self.numeric}
        minutes = np.nan_to_num(column["minutes"], nan=6.0)
        app = (features["device"] == "app").to_numpy()[:, None]
        want = _sig(-1.2 + 0.5 * np.log1p(column["visits_30d"]) - 0.03 * column["days_since_order"])
        reach = _sig(8 * (column["promo_share"] - 0.45)) * np.where(app, 1.2, 0.8)
        half = 0.06 + 0.9 * _sig((column["basket"] - 45) / 12)
        risen = doses * (1 + half) / (doses + half)
        purchase = (want + 0.75 * reach * (1 - want) * risen).clip(0.01, 0.99)
        revenue = purchase * column["basket"] * (1 + 0.2 * (minutes > 8) * doses)
        return np.stack([purchase, revenue], axis=-1)

    def respond(
        self, features: pd.DataFrame, arm: np.ndarray, *, seed: int, day: int = 0
    ) -> np.ndarray:
        require_at_least(0, seed=seed, day=day)
        arm = require_arms(arm, len(features), len(self.arms))
        return self._draw(features, arm, np.random.default_rng([seed, 2, day]))

    def _draw(
        self, features: pd.DataFrame, arm: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        expected = self.truth(features)[np.arange(len(arm)), arm]
        bought = rng.random(len(arm)) < expected[:, 0]
        luck = np.exp(SPREAD * rng.standard_normal(len(arm)) - SPREAD**2 / 2)
        return np.column_stack([bought, bought * expected[:, 1] / expected[:, 0] * luck])

    def _features(self, seed: int, index: np.ndarray, day: np.ndarray) -> pd.DataFrame:
        """Unit ids and features of shoppers ``index`` [N] of population ``seed`` on ``day`` [N]."""
        n = int(index.max()) + 1
        streams = iter(np.random.SeedSequence([seed, 0]).spawn(8))  # one a trait, whatever n
        activity, size, patience = (
            np.random.default_rng(next(streams)).standard_normal(n)[index] for _ in range(3)
        )
        hunts, phase, screen, silent = (
            np.random.default_rng(next(streams)).random(n)[index] for _ in range(4)
        )
        gap = np.exp(2.6 - 0.6 * activity).clip(1, 90)  # days between orders
        wave = np.sin(2 * np.pi * (day / 60 + phase))
        minutes = np.exp(1.8 + 0.5 * patience + 0.1 * wave).round(1)
        return pd.DataFrame(
            {
                self.unit: np.array([f"s{seed}-{i:07d}" for i in range(n)], dtype=object)[index],
                "visits_30d": np.floor(np.exp(1.2 + 0.8 * activity + 0.2 * wave)),
                "days_since_order": np.floor((day + phase * gap) % gap),
                "promo_share": hunts.round(3),
                "basket": np.exp(3.8 + 0.4 * size).round(2),
                "minutes": np.where(silent < 0.05, np.nan, minutes),
                "device": DEVICES[np.searchsorted([0.4, 0.65], screen)],
            }
        )


def _sig(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-z)))
