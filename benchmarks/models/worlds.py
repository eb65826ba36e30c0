"""Worlds whose truth is known, each hard in a way of its own, as logged trials of fresh units.

``bonus``      game_bonus: two arms, two outcomes; any bonus matters more than which one.
``rare``       one arm given to 85%, twelve skewed features; few buy, and fewer because of the arm.
``chain``      three treated arms, visit -> cart -> buy; an arm acts on a step, not on the end.
``factorial``  two factors of three levels with interactions; activity and heavy-tailed revenue.

All have missing values and features that matter for nothing. Truth is the exact expected outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from campaigns.frame import decision_frame
from campaigns.spec import Campaign
from campaigns.worlds import world


@dataclass(frozen=True)
class Case:
    """A campaign, its log, and fresh units whose truth is known.

    Attributes:
        name: The world's.
        campaign: The log's campaign.
        frame: Its decision frame.
        units: Features of units that are in no log, N rows.
        truth: Their expected potential outcomes, [N, A, K].
    """

    name: str
    campaign: Campaign
    frame: pd.DataFrame
    units: pd.DataFrame
    truth: np.ndarray


@dataclass(frozen=True)
class _World:
    """How a log is drawn: features, then an arm by ``shares``, then outcomes around the truth.

    Attributes:
        features: Columns of n units.
        truth: Their expected potential outcomes, [n, A, K].
        draw: Outcomes [n, K] around expected ones [n, K].
        shares: Probability of each arm, [A].
        spec: The campaign's treatments, outcomes and sequence.
        levels: The factors' columns of each arm.
    """

    features: Callable[[np.random.Generator, int], pd.DataFrame]
    truth: Callable[[pd.DataFrame], np.ndarray]
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    shares: np.ndarray
    spec: dict[str, Any]
    levels: dict[str, list[str]]


def case(name: str, rows: int, seed: int, units: int = 100_000) -> Case:
    """A world's log of ``rows`` decisions, and ``units`` fresh units."""
    if name == "bonus":
        return _bonus(rows, seed, units)
    made = WORLDS[name]
    rng = np.random.default_rng([seed, 77])
    table = made.features(rng, rows)
    campaign = _campaign(name, table, made.spec)
    expected = made.truth(table)
    arm = rng.choice(len(made.shares), rows, p=made.shares)
    outcomes = made.draw(rng, expected[np.arange(rows), arm])
    log = table.assign(
        unit=np.arange(rows),
        at=pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s"),
        propensity=made.shares[arm],
        **{column: np.array(given, dtype=object)[arm] for column, given in made.levels.items()},
        **{name: outcomes[:, k] for k, name in enumerate(made.spec["outcomes"])},
    )
    fresh = made.features(np.random.default_rng([seed, 78]), units)
    return Case(name, campaign, decision_frame(log, campaign, name), fresh, made.truth(fresh))


def _bonus(rows: int, seed: int, units: int) -> Case:
    simulated = world("game_bonus")
    log = simulated.log(rows, seed=seed)
    levels = {"none": {"cost": 0.0}, "coins": {"cost": 0.30}, "skin": {"cost": 0.55}}
    spec = {
        "treatments": {"bonus": {"column": "bonus", "control": "none", "levels": levels}},
        "outcomes": {
            "login_next_day": {"kind": "binary", "value": 1.0},
            "plays_more_7d": {"kind": "binary", "value": 2.0},
        },
    }
    columns = log[[*simulated.numeric, *simulated.categorical]]
    campaign = _campaign("bonus", columns, spec, unit="player_id", timestamp="event_timestamp")
    fresh = simulated.units(units, seed=seed + 10_000)
    truth = simulated.truth(fresh)[:, :, :2]
    return Case("bonus", campaign, decision_frame(log, campaign, "bonus"), fresh, truth)


def _campaign(
    name: str,
    features: pd.DataFrame,
    spec: dict[str, Any],
    unit: str = "unit",
    timestamp: str = "at",
) -> Campaign:
    text = [column for column in features if features[column].dtype == object]
    return Campaign.model_validate(
        {
            "name": name,
            "unit": unit,
            "source": {"kind": "parquet", "path": "none.parquet"},
            "timestamp": timestamp,
            "features": {"numeric": [c for c in features if c not in text], "categorical": text},
            "propensity": "propensity",
            "budget": {"per": "day", "amount": 1.0},
            **spec,
        }
    )


def _sig(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def _holes(rng: np.random.Generator, table: pd.DataFrame, share: float) -> pd.DataFrame:
    """Numbers go missing, the first column's where they are large (not at random)."""
    for place, column in enumerate(table.select_dtypes("number").columns):
        lost = rng.random(len(table)) < share
        if place == 0:
            lost &= table[column] > table[column].median()
        table.loc[lost, column] = np.nan
    return table


def _known(table: pd.DataFrame, column: str, otherwise: float) -> np.ndarray:
    return table[column].fillna(otherwise).to_numpy()


def _rare_features(rng: np.random.Generator, n: int) -> pd.DataFrame:
    latent = rng.normal(size=(n, 3))
    columns = {f"f{j}": np.exp(0.8 * latent[:, j % 3] + 0.8 * rng.normal(size=n)) for j in range(9)}
    columns |= {f"f{j}": rng.poisson(np.exp(0.5 * latent[:, j % 3])).astype(float) for j in (9, 10)}
    columns["f11"] = rng.exponential(size=n) ** 2
    return _holes(rng, pd.DataFrame(columns), 0.1)


def _rare_truth(table: pd.DataFrame) -> np.ndarray:
    a, b, c = (np.log(_known(table, name, 1.0)) for name in ("f0", "f1", "f2"))
    d, e = _known(table, "f9", 1.0), np.log1p(_known(table, "f11", 1.0))
    visit = _sig(-3.3 + 0.9 * a + 0.5 * b + 0.2 * d)
    persuaded = _sig(2.5 * (b - 0.3)) * _sig(-1.5 * (a - 0.8)) + 0.3 * (e > 1.2)
    put_off = _sig(3.0 * (c - 1.2))
    more = visit * (1.3 * persuaded - 0.9 * put_off)
    buys = 0.02 + 0.10 * _sig(1.2 * a + 0.6 * c - 1.0)
    truth = np.empty((len(table), 2, 2))
    truth[:, 0, 0], truth[:, 1, 0] = visit, (visit + more).clip(0.001, 0.95)
    truth[:, :, 1] = truth[:, :, 0] * buys[:, None]
    return truth


def _chained(rng: np.random.Generator, expected: np.ndarray) -> np.ndarray:
    """Steps of which each needs the one before: one uniform draw, so that they nest."""
    return (rng.random((len(expected), 1)) < expected).astype(float)


def _chain_features(rng: np.random.Generator, n: int) -> pd.DataFrame:
    latent = rng.normal(size=(n, 2))
    columns: dict[str, Any] = {
        f"x{j}": latent[:, j % 2] * 0.7 + rng.normal(size=n) for j in range(6)
    }
    columns["recency"] = rng.exponential(30.0, n)
    columns["spend"] = np.exp(1.5 * latent[:, 0] + rng.normal(size=n))
    columns["city"] = np.array([f"c{i}" for i in range(40)], dtype=object)[
        np.minimum(rng.zipf(1.4, n) - 1, 39)
    ]
    columns["device"] = rng.choice(np.array(["a", "b", "c"], dtype=object), n)
    return _holes(rng, pd.DataFrame(columns), 0.08)


def _chain_truth(table: pd.DataFrame) -> np.ndarray:
    x = {name: _known(table, name, 0.0) for name in ("x0", "x1", "x2", "x3")}
    away = _known(table, "recency", 20.0)
    rich = np.log1p(_known(table, "spend", 1.0))
    big = table["city"].isin(["c0", "c1", "c2"]).to_numpy()
    phone = (table["device"] == "a").to_numpy()
    visit = -1.0 + 0.7 * x["x0"] - 0.01 * away + 0.3 * phone
    cart = -1.2 + 0.6 * x["x1"] + 0.2 * rich
    buy = -0.6 + 0.5 * x["x2"] + 0.3 * big
    remind = 0.9 * _sig(0.15 * (away - 20)) - 0.4 * (x["x3"] > 1)
    discount = 0.9 * _sig(-2.0 * (rich - 1.2)) + 0.5 * big * (x["x1"] > 0)
    freight = 0.8 * (x["x2"] < 0) * phone + 0.15
    acts = np.zeros((len(table), 4, 3))
    acts[:, 1, 0], acts[:, 2, 1], acts[:, 3, 2] = remind, discount, freight
    acts[:, 2, 0] = 0.25 * discount
    steps = _sig(np.stack([visit, cart, buy], axis=1)[:, None] + acts)
    return np.cumprod(steps, axis=2)


LEVELS = [(i, j) for i in range(3) for j in range(3)]


def _factorial_features(rng: np.random.Generator, n: int) -> pd.DataFrame:
    columns: dict[str, Any] = {f"x{j}": rng.normal(size=n) for j in range(5)}
    columns["tenure"] = rng.gamma(1.2, 200.0, n)
    columns["orders"] = rng.poisson(np.exp(0.7 * columns["x0"])).astype(float)
    columns["segment"] = rng.choice(np.array(list("pqrst"), dtype=object), n)
    return _holes(rng, pd.DataFrame(columns), 0.08)


def _factorial_truth(table: pd.DataFrame) -> np.ndarray:
    x = {name: _known(table, name, 0.0) for name in ("x0", "x1", "x2", "x3")}
    old = np.log1p(_known(table, "tenure", 200.0) / 100.0)
    orders = _known(table, "orders", 1.0)
    liked = table["segment"].isin(["p", "q"]).to_numpy()
    price = np.array([0.0, 0.5, 0.8])[:, None] * (0.9 * _sig(1.5 * x["x1"]) - 0.15)
    message = np.array([0.0, 0.4, 0.3])[:, None] * (_sig(2 * x["x2"]) - 0.3 * liked)
    message[2] += 0.4 * liked * (old < 0.8)
    together = 0.6 * _sig(2.0 * (x["x3"] - 0.3)) - 0.35
    base = -0.8 + 0.5 * x["x0"] + 0.2 * np.minimum(orders, 5)
    truth = np.empty((len(table), 9, 2))
    for arm, (i, j) in enumerate(LEVELS):
        push = price[i] + message[j] + together * (i > 0) * (j > 0)
        active = _sig(base + push)
        basket = np.exp(1.0 + 0.5 * x["x0"] + 0.25 * old + 0.3 * push)
        truth[:, arm, 0], truth[:, arm, 1] = active, active * basket
    return truth


def _revenue(rng: np.random.Generator, expected: np.ndarray) -> np.ndarray:
    """Active or not; who is spends a log-normal amount with a tail (sigma 1)."""
    active = rng.random(len(expected)) < expected[:, 0]
    amount = expected[:, 1] / expected[:, 0] * np.exp(rng.normal(size=len(expected)) - 0.5)
    return np.column_stack([active.astype(float), active * amount])


def _one_factor(name: str, costs: dict[str, float]) -> dict[str, Any]:
    levels = {level: {"cost": cost} for level, cost in costs.items()}
    return {"treatments": {name: {"column": name, "control": next(iter(costs)), "levels": levels}}}


WORLDS = {
    "rare": _World(
        _rare_features,
        _rare_truth,
        _chained,
        np.array([0.15, 0.85]),
        _one_factor("ad", {"off": 0.0, "on": 1.0})
        | {"outcomes": {n: {"kind": "binary", "value": v} for n, v in (("visit", 1), ("buy", 20))}},
        {"ad": ["off", "on"]},
    ),
    "chain": _World(
        _chain_features,
        _chain_truth,
        _chained,
        np.full(4, 0.25),
        _one_factor("offer", {"none": 0.0, "remind": 0.1, "discount": 0.5, "freight": 0.3})
        | {
            "outcomes": {
                n: {"kind": "binary", "value": v}
                for n, v in (("visit", 0.1), ("cart", 0.5), ("buy", 10.0))
            },
            "sequence": ["visit", "cart", "buy"],
        },
        {"offer": ["none", "remind", "discount", "freight"]},
    ),
    "factorial": _World(
        _factorial_features,
        _factorial_truth,
        _revenue,
        np.full(9, 1 / 9),
        {
            "treatments": {
                "price": _one_factor("price", {"p0": 0.0, "p1": 0.4, "p2": 0.8})["treatments"]["price"],
                "mail": _one_factor("mail", {"m0": 0.0, "m1": 0.1, "m2": 0.2})["treatments"]["mail"],
            },
            "outcomes": {
                "active": {"kind": "binary", "value": 0.5},
                "revenue": {"kind": "continuous", "value": 1.0},
            },
        },
        {
            "price": [f"p{i}" for i, _ in LEVELS],
            "mail": [f"m{j}" for _, j in LEVELS],
        },
    ),
}  # fmt: skip
