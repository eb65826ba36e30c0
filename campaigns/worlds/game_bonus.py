"""A game that may offer each player a login bonus: a world after MTMT's figure 1.

Outcomes as in the paper's product data (MTMT, section 5.1.1): ``login_next_day`` and
``plays_more_7d``, with two bonuses. *Any* bonus matters much more than *which* bonus, low-active
players respond most and most to the dearer one, regulars play regardless, and some players are put off.

What the truth is, exactly (missing: win_rate_7d 0.5, session_minutes 20, friends 5, region and channel
are "other"; sig(z) = 1 / (1 + e^-z); ``any`` is the effect of a bonus, ``inc`` what a skin adds to it)::

    g      = log(1 + games_7d);  s = log(1 + spend_90d);  angle = effect_drift * day
    low    = sig(2.2 * (1.5 - g))                        plays little
    reach  = sig((12 - days_since_login) / 3)            not yet gone for good
    social = sig((friends - 6) / 2)                      has somebody to play with
    fresh  = exp(-tenure_days / 90)                      still finding out
    tilted = sig(14 * (0.40 - win_rate_7d))              keeps losing
    crowd  = sig(2 * (s - 2.6)) * sig(16 * (win_rate_7d - 0.50))
                                                         pays and wins: a gift cheapens what they earn
    loyal  = (1 - low) * sig((session_minutes - 24) / 4)
    who    = cos(angle) * low * reach + sin(angle) * loyal
    taste  = cos(angle) * (1.15 * exp(-((skins_owned - 6) / 3)^2) - 0.15)
           + sin(angle) * (0.5 if region is asia or latam else -0.5)
                                                         in the middle of a collection

    p0_login  = sig(-1.3 + g - 0.05 * days_since_login + 0.3 * social + 0.2 * [device is pc])
    p0_more   = sig(-1.4 + 0.5 * low * reach + 0.4 * fresh + 0.3 * social - 0.2 * [channel is ads])
    any_login = 0.04 + who * (0.20 + 0.10 * [device is android or ios]) + 0.04 * tilted - 0.16 * crowd
    any_more  = who * (0.06 + 0.32 * social + 0.10 * fresh) + 0.05 * tilted - 0.16 * crowd
    inc_login = 0.20 * taste * low * reach
    inc_more  = 0.28 * taste * low * reach

    P(. | none) = p0;  P(. | coins) = p0 + any;  P(. | skin) = p0 + any + inc;  kept in 0.01 .. 0.99

``reward_spend`` is the bonus' unit cost, paid when it is given: none 0, coins 0.30, skin 0.55. The two
binary outcomes share their luck for 30% of the players, so they correlate beyond the features.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd

from campaigns.errors import CampaignError
from campaigns.worlds.base import (
    START,
    require_arms,
    require_at_least,
    require_columns,
    uniform_trial,
)

COSTS = np.array([0.0, 0.30, 0.55])
DEVICES = np.array(["android", "ios", "console", "pc"], dtype=object)
REGIONS = np.array(["asia", "europe", "latam", "north_america", "other"], dtype=object)
CHANNELS = np.array(["ads", "organic", "referral", "store"], dtype=object)


class GameBonus:
    """The world ``game_bonus``: the module says what its truth is, :class:`World` what its methods do.

    Args:
        covariate_drift: How far the players' latent activity falls a day, in standard deviations; as
            it falls they play less, come less often and move to mobile devices. 0.02 is slow.
        effect_drift: How far the effects turn a day, in radians: from the low-active towards loyal
            players with long sessions, and from collectors towards regions. 0.02 is slow; at pi/2 other
            players respond, at pi the taste for skins is reversed.
    """

    name = "game_bonus"
    unit = "player_id"
    factor = "bonus"
    arms: tuple[str, ...] = ("none", "coins", "skin")
    outcomes: tuple[str, ...] = ("login_next_day", "plays_more_7d", "reward_spend")
    numeric: tuple[str, ...] = (
        "days_since_login",
        "games_7d",
        "win_rate_7d",
        "sessions_30d",
        "session_minutes",
        "spend_90d",
        "skins_owned",
        "tenure_days",
        "friends",
    )
    categorical: tuple[str, ...] = ("device", "region", "channel")

    def __init__(self, covariate_drift: float = 0.0, effect_drift: float = 0.0) -> None:
        for option, value in (("covariate_drift", covariate_drift), ("effect_drift", effect_drift)):
            if not np.isfinite(value):
                raise CampaignError(
                    f"world 'game_bonus': {option} is {value}; give a finite number"
                )
        self.covariate_drift = covariate_drift
        self.effect_drift = effect_drift

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
            self._draw,
            rows,
            seed=seed,
            days=days,
            start=start,
            first_day=first_day,
        )

    def truth(self, features: pd.DataFrame, *, day: int | np.ndarray = 0) -> np.ndarray:
        require_columns(features, self.numeric + self.categorical)
        x = _Player(features)
        angle = self.effect_drift * np.asarray(day, dtype=float)
        who = np.cos(angle) * x.low * x.reach + np.sin(angle) * x.loyal
        taste = np.cos(angle) * x.collector + np.sin(angle) * x.regional
        base = np.stack(
            [
                _sig(-1.3 + x.g - 0.05 * x.days_away + 0.3 * x.social + 0.2 * x.pc),
                _sig(-1.4 + 0.5 * x.low * x.reach + 0.4 * x.fresh + 0.3 * x.social - 0.2 * x.ads),
            ],
            axis=-1,
        )
        any_bonus = np.stack(
            [
                0.04 + who * (0.20 + 0.10 * x.mobile) + 0.04 * x.tilted - 0.16 * x.crowd,
                who * (0.06 + 0.32 * x.social + 0.10 * x.fresh) + 0.05 * x.tilted - 0.16 * x.crowd,
            ],
            axis=-1,
        )
        increment = (taste * x.low * x.reach)[:, None] * np.array([0.20, 0.28])
        expected = np.empty((len(features), len(self.arms), len(self.outcomes)))
        expected[:, 0, :2] = base
        expected[:, 1, :2] = base + any_bonus
        expected[:, 2, :2] = base + any_bonus + increment
        expected[:, :, :2] = expected[:, :, :2].clip(0.01, 0.99)
        expected[:, :, 2] = COSTS
        return expected

    def respond(
        self, features: pd.DataFrame, arm: np.ndarray, *, seed: int, day: int = 0
    ) -> np.ndarray:
        require_at_least(0, seed=seed, day=day)
        arm = require_arms(arm, len(features), len(self.arms))
        return self._draw(features, arm, np.asarray(day), np.random.default_rng([seed, 2, day]))

    def _draw(
        self, features: pd.DataFrame, arm: np.ndarray, day: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        expected = self.truth(features, day=day)[np.arange(len(arm)), arm]
        luck = rng.random((len(arm), 2))
        shared = rng.random(len(arm)) < 0.3
        luck[shared, 1] = luck[shared, 0]
        return np.column_stack([luck < expected[:, :2], expected[:, 2]])

    def _features(self, seed: int, index: np.ndarray, day: np.ndarray) -> pd.DataFrame:
        """Unit ids and features of players ``index`` [N] of population ``seed`` on ``day`` [N]."""
        population = int(index.max()) + 1
        ids = np.array([f"p{seed}-{i:07d}" for i in range(population)], dtype=object)
        t = {trait: values[index] for trait, values in _identities(seed, population).items()}
        shift = self.covariate_drift * day
        wave = np.sin(2 * np.pi * (day / t["season"] + t["phase"]))
        activity = t["engagement"] + 0.35 * wave - shift

        gap = np.exp(0.9 - 0.9 * (t["engagement"] - shift) + 0.4 * t["rhythm"]).clip(0, 89) // 1 + 1
        away = (day + t["phase"] * gap // 1) % gap  # comes every `gap` days
        games = np.exp(1.7 + 0.9 * activity + 0.3 * t["rhythm"]) * (1 - away / 7).clip(0)
        sessions = np.exp(2.6 + 0.8 * activity + 0.3 * t["rhythm"]) * (1 - away / 30).clip(0)
        games, sessions = np.floor(games), np.floor(sessions)
        win_rate = (0.5 + 0.11 * t["skill"] + 0.04 * wave).clip(0.02, 0.98).round(3)
        minutes = (np.exp(3.0 + 0.35 * t["stamina"] + 0.15 * activity)).clip(1, 240).round(1)
        payer = t["wallet"] > 0.30 - 0.25 * t["engagement"]
        spend = np.where(payer, np.exp(2.4 + 1.3 * t["whale"] + 0.2 * wave), 0.0).round(2)
        skins = np.floor(np.exp(1.0 + 0.9 * t["collector"]) * (0.8 + 0.6 * payer))
        mobile = _sig(_logit(t["screen"]) + shift)
        device = DEVICES[np.searchsorted([0.35, 0.55, 0.70], 1 - mobile)]
        return pd.DataFrame(
            {
                self.unit: ids[index],
                "days_since_login": away,
                "games_7d": games,
                "win_rate_7d": np.where(games > 0, win_rate, np.nan),  # no games, no rate
                "sessions_30d": sessions,
                "session_minutes": np.where(t["old_client"] < 0.05, np.nan, minutes),
                "spend_90d": spend,
                "skins_owned": skins,
                "tenure_days": np.floor((t["joined"] + day) % t["stay"]),  # since (re)joining
                "friends": np.where(t["private"] < 0.08, np.nan, t["friends"]),
                "device": device,
                "region": t["region"],
                "channel": t["channel"],
            }
        )


def _identities(seed: int, n: int) -> dict[str, np.ndarray]:
    """What never changes about the first ``n`` players, [n] each; a stream of its own for each trait,
    so that the first players are the same for every ``n``."""
    streams = iter(np.random.SeedSequence([seed, 0]).spawn(32))

    def normal() -> np.ndarray:
        return np.random.default_rng(next(streams)).standard_normal(n)

    def uniform() -> np.ndarray:
        return np.random.default_rng(next(streams)).random(n)

    traits = {
        name: normal() for name in "engagement rhythm skill stamina wallet whale collector".split()
    }
    traits |= {name: uniform() for name in "phase screen old_client private".split()}
    traits["season"] = 45 + 45 * uniform()  # days of a player's slow ups and downs
    traits["stay"] = 120 - 600 * np.log1p(-uniform())  # days from joining to leaving and rejoining
    traits["joined"] = traits["stay"] * uniform()
    traits["friends"] = np.floor(np.exp(1.6 + 0.8 * normal() + 0.25 * traits["engagement"])).clip(
        0, 200
    )
    region, channel = uniform(), uniform()
    traits["region"] = REGIONS[np.searchsorted([0.30, 0.55, 0.70, 0.90], region)]
    traits["region"][uniform() < 0.02] = None
    traits["channel"] = CHANNELS[np.searchsorted([0.35, 0.70, 0.85], channel)]
    traits["channel"][uniform() < 0.10] = None
    return traits


class _Player:
    """The quantities of the module's formulas, [N] each, from a frame of features."""

    def __init__(self, frame: pd.DataFrame) -> None:
        def number(column: str, missing: float = 0.0) -> np.ndarray:
            return np.asarray(frame[column].fillna(missing), dtype=float)

        win_rate = number("win_rate_7d", 0.5)
        friends = number("friends", 5.0)
        spend = np.log1p(number("spend_90d"))
        self.days_away = number("days_since_login")
        self.g = np.log1p(number("games_7d"))
        self.low = _sig(2.2 * (1.5 - self.g))
        self.reach = _sig((12 - self.days_away) / 3)
        self.social = _sig((friends - 6) / 2)
        self.fresh = np.exp(-number("tenure_days") / 90)
        self.tilted = _sig(14 * (0.40 - win_rate))
        self.crowd = _sig(2 * (spend - 2.6)) * _sig(16 * (win_rate - 0.50))
        self.loyal = (1 - self.low) * _sig((number("session_minutes", 20.0) - 24) / 4)
        self.collector = 1.15 * np.exp(-(((number("skins_owned") - 6) / 3) ** 2)) - 0.15
        self.regional = np.where(frame["region"].isin(["asia", "latam"]), 0.5, -0.5)
        self.mobile = frame["device"].isin(["android", "ios"]).to_numpy(dtype=float)
        self.pc = (frame["device"] == "pc").to_numpy(dtype=float)
        self.ads = (frame["channel"] == "ads").to_numpy(dtype=float)


def _sig(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-z)))


def _logit(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(p) - np.log1p(-p))
