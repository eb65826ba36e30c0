"""Prices for units that come one by one: they make the decisions spend and use what a period has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import DataError
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from serving.caps import net_of_limits
from serving.evaluation import HeldOut
from serving.limits import sums
from serving.online_prices import online_dial, online_prices
from serving.policy.allocation import decide
from serving.policy.strategies import Dial
from tests.unit.serving.test_exploring import Members
from tests.unit.serving.test_limits import SKINS, Linear, campaign

ROWS, DAYS = 3000, 10


def held_out(budget: float) -> tuple[HeldOut, pd.Series]:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "games": rng.gamma(3, 1, ROWS),
            "device": rng.choice(np.array(["ios", "pc"], dtype=object), ROWS),
        }
    )
    start = pd.Timestamp("2026-01-01", tz="UTC")
    when = pd.Series(start + pd.to_timedelta(rng.random(ROWS) * DAYS, unit="D"))
    nothing = np.zeros((ROWS, 4))
    return HeldOut(rows, nothing[:, 0], nothing, nothing, budget * DAYS / ROWS), when


def given(rules: Campaign, log: HeldOut, price: float, prices: dict[str, float]) -> Any:
    columns = {name: log.rows[name].to_numpy() for name in rules.features.names}
    predicted = Linear(rules).predict(columns)
    value, cost = value_and_cost(predicted, rules)
    limits = sums(rules, columns, cost, predicted)
    return decide(net_of_limits(value, limits, prices), cost, price), cost, columns


def test_prices_spread_scarce_arms_and_keep_shares() -> None:
    share = {"kind": "share", "at_least": 0.4, "arms": ["yes"], "where": {"device": "pc"}}
    rules = campaign(SKINS, share, amount=60, epsilon=0.0)
    log, when = held_out(60)
    predicted = Linear(rules).predict({name: log.rows[name].to_numpy() for name in ("games",)})
    price, prices = online_prices(predicted, log, rules, when)
    arm, cost, columns = given(rules, log, price, prices)
    assert cost[np.arange(ROWS), arm].sum() == pytest.approx(60 * DAYS, rel=0.05)
    assert (arm == 2).sum() == pytest.approx(30 * DAYS, rel=0.05)
    assert (arm == 3)[columns["device"] == "pc"].mean() == pytest.approx(0.4, abs=0.03)
    assert set(prices) == {"stock of skin", "share of device pc with yes"}
    assert online_prices(predicted, log, campaign(amount=60, epsilon=0.0), when)[1] == {}


def test_limits_that_cannot_be_kept_are_said_at_training() -> None:
    rules = campaign({"kind": "share", "at_least": 0.9}, amount=1)
    log, when = held_out(1)
    predicted = Linear(rules).predict({"games": log.rows["games"].to_numpy()})
    with pytest.raises(DataError, match="share of everybody with a treatment"):
        online_prices(predicted, log, rules, when)


def test_a_dial_explores_as_much_as_is_asked() -> None:
    rules = campaign(strategy="directed", epsilon=0.2, floor=0.01)
    log, _ = held_out(1e6)
    columns = {"games": log.rows["games"].to_numpy()}
    members = Members(rules).predict_members(columns)
    found = online_dial(members, 0.0, {}, log, rules)
    assert found is not None
    doubt = np.where(columns["games"] < 4, 0.48, 0.0)  # 2 of 5 members dispute
    average = (Dial(**found).trial + Dial(**found).directed(doubt)).mean()
    assert average == pytest.approx(0.2, abs=1e-6)
    assert found["trial"] == pytest.approx(0.04)
    assert online_dial(members, 0.0, {}, log, campaign()) is None
