"""Off-policy values where the truth is known."""

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics import cross_fit_outcome_model, policy_difference, policy_value

ESTIMATORS = ["ips", "snips", "dr"]


def log(rows: int, seed: int):
    """Three arms with mean rewards 1, x0 + 0.5 and 2 x1, given with propensities that depend on x."""
    rng = np.random.default_rng(seed)
    x = rng.random((rows, 2))
    q = np.stack([np.ones(rows), x[:, 0] + 0.5, 2 * x[:, 1]], axis=1)
    chance = np.stack([0.2 + 0.4 * x[:, 1], 0.4 - 0.2 * x[:, 1], 0.4 - 0.2 * x[:, 1]], axis=1)
    arm = (rng.random((rows, 1)) > chance.cumsum(axis=1)).sum(axis=1)
    reward = q[np.arange(rows), arm] + rng.normal(0, 0.5, rows)
    return x, q, arm, chance[np.arange(rows), arm], reward


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    """Values over the whole population, by a large simulation."""
    _, q, *_ = log(2_000_000, 99)
    return {"best": q.max(axis=1).mean(), "control": 1.0, "mixed": (q @ [0.2, 0.3, 0.5]).mean()}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_intervals_cover_the_truth(truth: dict[str, float], estimator: str) -> None:
    inside = []
    for seed in range(300):
        x, q, arm, propensity, reward = log(600, seed)
        found = policy_value(
            q.argmax(axis=1), reward, arm, propensity, q_hat=q + 0.3 * x[:, :1], estimator=estimator
        )
        inside.append(truth["best"] in found.interval)
    assert 0.90 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_any_policy_deterministic_or_not(truth: dict[str, float], estimator: str) -> None:
    _, q, arm, propensity, reward = log(40_000, 1)
    control = np.zeros(len(arm), dtype=int)
    mixed = np.tile([0.2, 0.3, 0.5], (len(arm), 1))
    for policy, name in ((control, "control"), (q.argmax(axis=1), "best"), (mixed, "mixed")):
        found = policy_value(policy, reward, arm, propensity, q_hat=q, estimator=estimator)
        assert found.interval.estimate == pytest.approx(truth[name], abs=0.03)
        assert found.contributions.mean() == pytest.approx(found.interval.estimate)
        assert found.mean_ratio == pytest.approx(1, abs=0.03)
        assert found.warning is None


def test_a_deterministic_policy_is_its_own_one_hot() -> None:
    _, q, arm, propensity, reward = log(500, 2)
    best = q.argmax(axis=1)
    for estimator in ESTIMATORS:
        one, two = (
            policy_value(p, reward, arm, propensity, q_hat=q, estimator=estimator)
            for p in (best, np.eye(3)[best])
        )
        assert one.interval.estimate == pytest.approx(two.interval.estimate)
        assert one.interval.low == pytest.approx(two.interval.low)


def test_dr_is_right_with_a_useless_model_and_narrow_with_a_good_one(
    truth: dict[str, float],
) -> None:
    _, q, arm, propensity, reward = log(20_000, 3)
    best = q.argmax(axis=1)
    useless = policy_value(best, reward, arm, propensity, q_hat=np.full_like(q, 9.0))
    good = policy_value(best, reward, arm, propensity, q_hat=q)
    assert truth["best"] in useless.interval
    assert good.interval.high - good.interval.low < 0.5 * (
        useless.interval.high - useless.interval.low
    )


def test_paired_difference_is_narrower_and_right(truth: dict[str, float]) -> None:
    _, q, arm, propensity, reward = log(20_000, 4)
    best, other = q.argmax(axis=1), q.argmax(axis=1)
    other[::20] = 0
    for estimator in ESTIMATORS:
        extras = {"q_hat": q, "estimator": estimator}
        one, two = (policy_value(p, reward, arm, propensity, **extras) for p in (best, other))
        paired = policy_difference(best, other, reward, arm, propensity, **extras)
        difference = one.interval.estimate - two.interval.estimate
        assert paired.interval.estimate == pytest.approx(difference)
        width = paired.interval.high - paired.interval.low
        assert width < 0.6 * (one.interval.high - one.interval.low)
        same = policy_difference(best, best, reward, arm, propensity, **extras)
        assert (same.interval.low, same.interval.high) == (0, 0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_weights_and_order(estimator: str) -> None:
    _, q, arm, propensity, reward = log(300, 5)
    best = q.argmax(axis=1)
    weight = np.random.default_rng(0).integers(0, 3, 300)
    rows = np.random.default_rng(1).permutation(np.repeat(np.arange(300), weight))
    weighted = policy_value(
        best, reward, arm, propensity, q_hat=q, estimator=estimator, weight=weight
    )
    repeated = policy_value(
        best[rows], reward[rows], arm[rows], propensity[rows], q_hat=q[rows], estimator=estimator
    )
    assert weighted.interval.estimate == pytest.approx(repeated.interval.estimate)


def test_poor_overlap_is_said() -> None:
    rng = np.random.default_rng(0)
    rows = 5000
    arm = (rng.random(rows) < 0.004).astype(int)
    propensity = np.where(arm == 1, 0.004, 0.996)
    few = policy_value(np.ones(rows), rng.random(rows), arm, propensity)
    assert few.effective_rows == arm.sum()
    assert "worth only" in few.warning
    never = policy_value(np.full(rows, 2), rng.random(rows), arm, propensity)
    assert np.isnan(never.interval.estimate)
    assert "says nothing" in never.warning
    wrong = policy_value(np.zeros(rows), rng.random(rows), arm, np.full(rows, 0.5))
    assert "should be 1" in wrong.warning
    uneven = np.where(np.arange(rows) == np.flatnonzero(arm == 0)[0], 1e-5, propensity)
    assert policy_value(np.zeros(rows), rng.random(rows), arm, uneven).warning is not None


@pytest.mark.parametrize("model", ["boosting", "ridge"])
def test_cross_fitted_model_narrows_the_interval(truth: dict[str, float], model: str) -> None:
    x, q, arm, propensity, reward = log(6000, 6)
    x = np.where(np.random.default_rng(0).random(x.shape) < 0.02, np.nan, x)
    q_hat = cross_fit_outcome_model(x, arm, reward, propensity, arms=3, folds=3, model=model)
    assert np.abs(q_hat - q).mean() < 0.12
    best = q.argmax(axis=1)
    dr = policy_value(best, reward, arm, propensity, q_hat=q_hat)
    ips = policy_value(best, reward, arm, propensity, estimator="ips")
    assert truth["best"] in dr.interval
    assert dr.interval.high - dr.interval.low < 0.7 * (ips.interval.high - ips.interval.low)


def test_cross_fitting_never_shows_a_row_its_own_reward() -> None:
    x, _, arm, propensity, reward = log(400, 7)
    first = cross_fit_outcome_model(x, arm, reward, propensity, arms=3, model="ridge", seed=1)
    reward[17] += 1e6
    again = cross_fit_outcome_model(x, arm, reward, propensity, arms=3, model="ridge", seed=1)
    np.testing.assert_allclose(again[17], first[17])
    assert np.abs(again - first).max() > 1000


def test_rare_and_missing_arms_get_a_mean() -> None:
    x, _, arm, _, reward = log(400, 8)
    reward[:10] = np.nan
    rare = np.where((arm == 2) & (np.arange(400) > 30), 1, arm)
    q_hat = cross_fit_outcome_model(x, rare, reward, arms=4, model="ridge")
    assert np.isfinite(q_hat).all()
    assert q_hat[:, 3] == pytest.approx(np.nanmean(reward), abs=0.1)
    with pytest.raises(DataError, match="NaN in every row"):
        cross_fit_outcome_model(x, arm, np.full(400, np.nan), arms=3)
    with pytest.raises(DataError, match="folds=1"):
        cross_fit_outcome_model(x, arm, reward, arms=3, folds=1)


def test_bad_input_is_refused() -> None:
    _, q, arm, propensity, reward = log(50, 9)
    for change, said in (
        ({"policy": np.full((50, 3), 0.5)}, "sum to 1.5"),
        ({"policy": np.full((50, 2), 0.5)}, "probabilities of 2 arms"),
        ({"policy": np.full(50, -1)}, "whole arm numbers"),
        ({"propensity": np.zeros(50)}, "propensity runs from 0"),
        ({"propensity": None}, "propensity is missing"),
        ({"estimator": "dr"}, "needs q_hat"),
        ({"estimator": "magic"}, "isn't known"),
        ({"q_hat": q[:, :2]}, "arm runs from 0 to 2"),
        ({"reward": np.append(reward[:-1], np.nan)}, "reward has 1 NaN"),
    ):
        kept = {"policy": arm, "reward": reward, "arm": arm, "propensity": propensity, **change}
        with pytest.raises(DataError, match=said):
            policy_value(**kept)
