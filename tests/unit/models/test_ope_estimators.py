"""Every off-policy estimator against its definition in plain Python, and against known truth."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.errors import DataError
from models.metrics import policy_difference, policy_value
from models.metrics.ope_estimators import ESTIMATORS

every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
ARMS = 3


def log(rows: int, seed: int, noise: float = 0.5):
    """Rewards of three arms that depend on x, given with known propensities of 0.15 to 0.5."""
    rng = np.random.default_rng(seed)
    x = rng.random(rows)
    q = np.stack([np.ones(rows), x + 0.5, 2 * x], axis=1)
    chance = np.stack([0.5 - 0.2 * x, 0.35 - 0.2 * x, 0.15 + 0.4 * x], axis=1)
    arm = (rng.random((rows, 1)) > chance.cumsum(axis=1)).sum(axis=1)
    reward = q[np.arange(rows), arm] + rng.normal(0, noise, rows)
    return q, arm, chance[np.arange(rows), arm], reward


def plainly(policy, reward, arm, propensity, q_hat, weight, estimator, threshold) -> float:
    """The estimate as its formula says it, row by row."""
    total = above = below = 0.0
    for i in range(len(reward)):
        rho = policy[i][arm[i]] / propensity[i]
        model = sum(policy[i][a] * q_hat[i][a] for a in range(ARMS))
        miss = reward[i] - q_hat[i][arm[i]]
        total += weight[i]
        if estimator == "dm":
            above += weight[i] * model
        elif estimator == "ips":
            above += weight[i] * rho * reward[i]
        elif estimator == "clipped_ips":
            above += weight[i] * min(rho, threshold) * reward[i]
        elif estimator == "snips":
            above += weight[i] * rho * reward[i]
            below += weight[i] * rho
        elif estimator == "dr":
            above += weight[i] * (model + rho * miss)
        else:
            above += weight[i] * (model + (rho * miss if rho <= threshold else 0.0))
    return above / (below if estimator == "snips" else total)


@every_estimator
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 60), threshold=st.floats(0.1, 8.0))
def test_each_is_its_formula(estimator: str, seed: int, rows: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    q, arm, propensity, reward = log(rows, seed)
    policy, weight = rng.dirichlet([1] * ARMS, rows), rng.uniform(0.1, 2, rows)
    q_hat = q + rng.normal(0, 1, q.shape)
    asked = {"threshold": threshold} if estimator in ("clipped_ips", "switch_dr") else {}
    found = policy_value(
        policy, reward, arm, propensity, q_hat=q_hat, weight=weight, estimator=estimator, **asked
    )
    wanted = plainly(policy, reward, arm, propensity, q_hat, weight, estimator, threshold)
    assert found.interval.estimate == pytest.approx(wanted, abs=1e-9)
    assert np.average(found.contributions, weights=weight) == pytest.approx(wanted, abs=1e-9)
    mass = weight * policy[np.arange(rows), arm] / propensity
    assert found.effective_rows == pytest.approx(mass.sum() ** 2 / (mass**2).sum())
    order = rng.permutation(rows)
    again = policy_value(
        policy[order], reward[order], arm[order], propensity[order], q_hat=q_hat[order],
        weight=weight[order], estimator=estimator, **asked,
    )  # fmt: skip
    assert again.interval.low == pytest.approx(found.interval.low)


def test_they_are_one_another_at_the_ends() -> None:
    q, arm, propensity, reward = log(400, 1)
    policy = np.random.default_rng(0).dirichlet([1] * ARMS, 400)
    rows = (policy, reward, arm, propensity)

    def interval(estimator: str, q_hat=q, **more):
        return policy_value(*rows, q_hat=q_hat, estimator=estimator, **more).interval

    nothing = np.zeros_like(q)
    assert interval("dr", nothing) == interval("ips")
    assert interval("switch_dr", nothing, threshold=1e9) == interval("ips")
    assert interval("clipped_ips", threshold=1e9) == interval("ips")
    assert interval("switch_dr", threshold=1e9) == interval("dr")
    assert interval("switch_dr", threshold=1e-9) == interval("dm")
    assert interval("dm").estimate == pytest.approx((policy * q).sum(axis=1).mean())


@every_estimator
def test_the_logging_policy_s_own_value_is_the_mean(estimator: str) -> None:
    """rho = 1 in every row, and q_hat without any bias: all but the model alone give the mean."""
    rng = np.random.default_rng(2)
    chance = np.tile([0.5, 0.3, 0.2], (500, 1))
    arm = rng.choice(ARMS, 500, p=chance[0])
    reward = rng.normal(arm, 1.0)
    q_hat = np.tile([reward[arm == a].mean() for a in range(ARMS)], (500, 1))
    shares = np.bincount(arm, minlength=ARMS) / 500
    found = policy_value(
        np.tile(shares, (500, 1)), reward, arm, shares[arm], q_hat=q_hat, estimator=estimator
    )
    assert found.interval.estimate == pytest.approx(reward.mean())
    assert found.effective_rows == pytest.approx(500)
    assert (found.warning is None) == (estimator != "dm")


@every_estimator
def test_a_constant_reward_is_every_policy_s_value(estimator: str) -> None:
    q, arm, propensity, _ = log(3000, 3)
    found = policy_value(
        q.argmax(axis=1), np.full(3000, 2.0), arm, propensity, q_hat=np.full_like(q, 2.0),
        estimator=estimator,
    )  # fmt: skip
    narrow = estimator not in ("ips", "clipped_ips")  # those carry the noise of the weights
    assert found.interval.estimate == pytest.approx(2.0, abs=1e-12 if narrow else 0.1)
    assert (found.interval.high - found.interval.low < 1e-9) == narrow


def test_unbiased_where_it_is_promised_and_biased_where_it_is_warned_of() -> None:
    """Means over 400 logs of 300 rows; a policy that the log hardly follows, and a q_hat that is off."""
    found: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for seed in range(400):
        q, arm, propensity, reward = log(300, seed)
        policy = np.eye(ARMS)[np.where(q[:, 1] > q[:, 2], 1, 2)]
        for name in ESTIMATORS:
            more = {"threshold": 3.0} if name in ("clipped_ips", "switch_dr") else {}
            value = policy_value(
                policy, reward, arm, propensity, q_hat=q + 0.3, estimator=name, **more
            )
            found[name].append(value.interval.estimate)
    truth = 0.5 * (0.75 + 1.5)  # E max(x + 0.5, 2x), x uniform: x + 0.5 up to a half, 2x from there
    error = {
        name: (np.mean(values) - truth) / (np.std(values) / 20) for name, values in found.items()
    }
    for name in ("ips", "snips", "dr"):
        assert abs(error[name]) < 3.5, (name, error[name])
    assert error["clipped_ips"] < -10
    assert error["dm"] > 10
    assert 0 < np.mean(found["switch_dr"]) - truth < 0.3
    assert np.std(found["dr"]) < np.std(found["ips"])
    assert np.std(found["clipped_ips"]) < np.std(found["ips"])


@pytest.mark.slow
@every_estimator
def test_95_percent_intervals_cover_the_truth_93_to_97_times_in_100(estimator: str) -> None:
    inside = []
    truth = 0.5 * (0.75 + 1.5)
    for seed in range(4000):
        q, arm, propensity, reward = log(1000, seed)
        best = np.where(q[:, 1] > q[:, 2], 1, 2)
        found = policy_value(best, reward, arm, propensity, q_hat=q, estimator=estimator)
        inside.append(truth in found.interval)
    assert 0.93 <= np.mean(inside) <= 0.97


def test_a_tiny_propensity_decides_nothing_where_it_is_switched_or_clipped_off() -> None:
    """Some units nearly never get arm 1; one of them did."""
    rng = np.random.default_rng(5)
    rows = 4000
    rare = rng.random(rows) < 0.01
    p_one = np.where(rare, 0.0005, 0.5)
    arm = np.where(rare, 0, rng.random(rows) < 0.5).astype(int)
    arm[np.flatnonzero(rare)[0]] = 1
    q = np.stack([np.zeros(rows), np.ones(rows)], axis=1)
    reward = q[np.arange(rows), arm] + rng.normal(0, 0.3, rows)
    log_of = (np.ones(rows, dtype=int), reward, arm, np.where(arm == 1, p_one, 1 - p_one))

    def width(estimator: str) -> float:
        interval = policy_value(*log_of, q_hat=q, estimator=estimator).interval
        return interval.high - interval.low

    assert width("switch_dr") < 0.3 * width("dr")  # rho of 2000 is above sqrt(4000) = 63
    assert width("clipped_ips") < 0.3 * width("ips")
    switch = policy_value(*log_of, q_hat=q, estimator="switch_dr")
    assert 1.0 in switch.interval
    assert "worth only 9 rows" in switch.warning  # of the log, whatever is cut


def test_bias_of_the_model_and_of_the_threshold_is_said() -> None:
    q, arm, propensity, reward = log(5000, 6)
    rows = (q.argmax(axis=1), reward, arm, propensity)
    right, wrong = (policy_value(*rows, q_hat=q + off, estimator="dm") for off in (0, 0.2))
    low, high = re.search(r"lies (\S+) to (\S+) from the model's", right.warning).groups()
    assert -0.06 < float(low) < 0 < float(high) < 0.06
    low, high = re.search(r"lies (\S+) to (\S+) from the model's", wrong.warning).groups()
    assert -0.26 < float(low) < -0.2 < float(high) < -0.14
    assert wrong.interval.low > 1.125  # the truth isn't in it
    assert policy_value(*rows, estimator="clipped_ips").warning is None
    clipped = policy_value(*rows, estimator="clipped_ips", threshold=1.5)
    assert "leans towards 0" in clipped.warning
    switched = policy_value(*rows, q_hat=q, estimator="switch_dr", threshold=2.0)
    assert "leans towards q_hat" in switched.warning
    control = np.zeros(5000)
    apart = policy_difference(*rows[:1], control, *rows[1:], q_hat=q + 0.2, estimator="dm")
    assert "direct method's interval leaves out" in apart.warning


@every_estimator
def test_a_log_of_control_alone_says_nothing_about_treating(estimator: str) -> None:
    rows = 200
    q_hat = np.tile([1.0, 3.0], (rows, 1))
    found = policy_value(
        np.ones(rows), np.ones(rows), np.zeros(rows), np.full(rows, 0.5), q_hat=q_hat,
        estimator=estimator,
    )  # fmt: skip
    assert "says nothing" in found.warning
    assert found.effective_rows == 0
    wanted = {"snips": np.nan, "ips": 0.0, "clipped_ips": 0.0}.get(estimator, 3.0)
    assert found.interval.estimate == pytest.approx(wanted, nan_ok=True)


@every_estimator
def test_ten_units_and_propensities_that_contradict_the_log_are_warned_of(estimator: str) -> None:
    q, arm, propensity, reward = log(10, 7)
    few = policy_value(q.argmax(axis=1), reward, arm, propensity, q_hat=q, estimator=estimator)
    assert np.isfinite([few.interval.low, few.interval.high]).all()
    assert "worth only" in few.warning
    q, arm, propensity, reward = log(3000, 8)
    wrong = policy_value(np.zeros(3000), reward, arm, np.full(3000, 0.9), q_hat=q,
                         estimator=estimator)  # fmt: skip
    assert "should be 1" in wrong.warning


def test_bad_input_is_refused() -> None:
    q, arm, propensity, reward = log(50, 9)
    for change, said in (
        ({"estimator": "dm"}, "estimator='dm' needs q_hat"),
        ({"estimator": "switch_dr"}, "needs q_hat"),
        ({"threshold": 3.0}, "estimator='snips', which has none"),
        ({"estimator": "dr", "q_hat": q, "threshold": 3.0}, "estimator='dr', which has none"),
        ({"estimator": "clipped_ips", "threshold": 0.0}, "must be above 0"),
        ({"estimator": "clipped_ips", "threshold": np.nan}, "must be above 0"),
        ({"q_hat": np.full_like(q, np.nan)}, "q_hat has 150 NaN"),
        ({"policy": np.full((50, 3), np.nan)}, "policy has 150 NaN"),
    ):
        kept = {"policy": arm, "reward": reward, "arm": arm, "propensity": propensity, **change}
        with pytest.raises(DataError, match=said):
            policy_value(**kept)
