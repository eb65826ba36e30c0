"""Curves and areas against the definitions written out the slow way, and against known truth."""

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics import ate, aucc, auuc, cost_curve, lift_at, qini, qini_curve, uplift_curve


def slow_curves(y, score, t, p=None, w=None):
    """phi, gain and Qini at every distinct score, straight from the definitions."""
    n = len(y)
    w = np.ones(n) if w is None else w
    v = w.copy() if p is None else w / p
    for group in (t == 1, t == 0):
        v[group] *= w[group].sum() / v[group].sum()
    points = [(0.0, 0.0, 0.0)]
    for s in sorted(set(score), reverse=True):
        top = score >= s
        nt, nc = (v[top & (t == g)].sum() for g in (1, 0))
        yt, yc = ((v * y)[top & (t == g)].sum() for g in (1, 0))
        phi = w[top].sum() / w.sum()
        rate_t, rate_c = yt / nt if nt else 0.0, yc / nc if nc else 0.0
        points.append((phi, phi * (rate_t - rate_c), yt - (yc * nt / nc if nc else 0.0)))
    return np.array(points).T


@pytest.fixture
def trial():
    rng = np.random.default_rng(3)
    score = rng.integers(0, 40, 300) / 10
    p1 = rng.uniform(0.2, 0.8, 300)
    t = (rng.random(300) < p1).astype(int)
    return rng.normal(1 + t * score), score, t, np.where(t, p1, 1 - p1), rng.random(300)


@pytest.mark.parametrize("weighted", [False, True])
def test_curves_are_the_definitions(trial, weighted: bool) -> None:
    y, score, t, p, w = trial
    extras = {"propensity": p, "weight": w} if weighted else {}
    phi, gain, extra = slow_curves(y, score, t, *(extras.values()))
    for seen, expected in (
        (uplift_curve(y, score, t, **extras), gain),
        (qini_curve(y, score, t, **extras), extra),
    ):
        np.testing.assert_allclose(seen.x, phi)
        np.testing.assert_allclose(seen.y, expected)
    over_random = np.trapezoid(extra, phi) - extra[-1] / 2
    assert auuc(y, score, t, **extras) == pytest.approx(np.trapezoid(gain, phi))
    assert qini(y, score, t, **extras) == pytest.approx(over_random)
    assert qini(y, score, t, normalize="final", **extras) == pytest.approx(
        over_random / abs(extra[-1])
    )


def test_constant_propensities_cancel(trial) -> None:
    y, score, t, *_ = trial
    for p in (0.5, 0.1):
        known = np.where(t == 1, p, 1 - p)
        np.testing.assert_allclose(
            qini_curve(y, score, t, propensity=known).y, qini_curve(y, score, t).y
        )


def test_propensities_undo_a_biased_assignment() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(200_000)
    p1 = 0.1 + 0.8 * x  # those who would buy anyway are treated more often
    t = (rng.random(len(x)) < p1).astype(int)
    y = 2 * x + t * 0.2 * x + rng.normal(0, 0.1, len(x))
    p = np.where(t == 1, p1, 1 - p1)
    truth = 0.1 * (1 - 1 / 3)  # of the integral of 0.1 (1 - (1 - phi)^2)
    assert auuc(y, x, t, propensity=p) == pytest.approx(truth, abs=0.005)
    assert abs(auuc(y, x, t) - truth) > 0.05


def test_a_perfect_score_has_normalized_area_1() -> None:
    rng = np.random.default_rng(1)
    t, y = rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    assert qini(y, y * (2 * t - 1), t, normalize="perfect") == pytest.approx(1)
    responders, refusers = ((t == 0) & (y == 1)).sum(), ((t == 1) & (y == 0)).sum()
    best = 2 * (y == t) + (y if responders > refusers else t)
    assert auuc(y, best, t, normalize="perfect") == pytest.approx(1)


def test_lift_is_the_difference_of_means_at_the_top() -> None:
    y = np.array([5, 1, 4, 2, 9, 9, 9, 9, 9, 9.0])
    t = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 0])
    score = np.arange(10)[::-1]
    assert lift_at(y, score, t, h=0.4) == 4.5 - 1.5
    assert lift_at(y, score, t, h=0.2) == 4.0
    assert np.isnan(lift_at(y, score, t, h=0.1))  # one treated row alone
    assert lift_at(y, score, t, h=0.2, by_group=True) == 4.0
    assert lift_at(y, score, t, h=0.39) == lift_at(y, score, t, h=0.3)  # whole rows


def test_lift_inside_a_tie_is_that_of_the_average_order() -> None:
    y = np.array([4, 0, 2, 0, 8, 6.0])
    t = np.array([1, 0, 1, 0, 1, 0])
    score = [2, 2, 1, 1, 1, 1]
    # The top half: the first pair, and a quarter of the tie of two pairs: (4 + 5/2) / 1.5 - 3/2 / 1.5.
    assert lift_at(y, score, t, h=0.5) == pytest.approx((4 + 5 / 2) / 1.5 - (0 + 3 / 2) / 1.5)


@pytest.mark.parametrize("h", [0, -0.1, 1.1, float("nan")])
def test_lift_refuses_a_depth_that_is_none(h: float) -> None:
    with pytest.raises(DataError, match="isn't a share"):
        lift_at([1, 0], [1, 0], [1, 0], h=h)


def test_cost_curve_of_value_and_cost_known_to_be_proportional_to_the_score() -> None:
    rng = np.random.default_rng(2)
    x = rng.random(100_000)
    t = rng.integers(0, 2, len(x))
    value = t * x + rng.normal(0, 0.05, len(x))
    # Equal costs: y = 1 - (1 - x)^2, so the area is 2/3. Costs like the values: the diagonal.
    assert aucc(value, x, t) == pytest.approx(2 / 3, abs=0.005)
    assert aucc(value, x, t, cost=0.3 * t) == pytest.approx(2 / 3, abs=0.005)
    assert aucc(value, x, t, cost=t * x) == pytest.approx(0.5, abs=0.005)
    curve = cost_curve(value, x, t, cost=t * x)
    assert (curve.x[0], curve.y[0]) == (0, 0)
    assert (curve.x[-1], curve.y[-1]) == pytest.approx((1, 1))


def test_nothing_to_share_is_nan_not_a_number_made_up() -> None:
    y, t, score = np.array([0, 1, 0, 1.0]), np.array([1, 0, 1, 0]), np.arange(4)
    assert np.isnan(aucc(y, score, t))  # treatment destroys value
    assert np.isnan(aucc(1 - y, score, t, cost=np.zeros(4)))
    assert np.isnan(qini(y, score, t, normalize="perfect", negative_effect=False))


def test_options_are_checked() -> None:
    with pytest.raises(DataError, match="normalize='best' isn't known"):
        qini([1, 0], [1, 0], [1, 0], normalize="best")
    with pytest.raises(DataError, match="needs outcomes of 0 and 1"):
        auuc([1.5, 0], [1, 0], [1, 0], normalize="perfect")


@pytest.mark.parametrize("likely", [0.2, 0.8])
def test_perfect_areas_are_those_of_the_best_order(likely: float) -> None:
    rng = np.random.default_rng(4)
    p1 = rng.uniform(0.2, 0.8, 400)
    t = (rng.random(400) < p1).astype(int)
    y, score = (rng.random(400) < likely).astype(int), rng.random(400)
    extras = {"propensity": np.where(t == 1, p1, 1 - p1), "weight": rng.random(400)}

    best = np.where(t == 1, y, -y)
    assert qini(y, score, t, normalize="perfect", **extras) == pytest.approx(
        qini(y, score, t, **extras) / qini(y, best, t, **extras)
    )
    responders, refusers = (extras["weight"][(t == a) & (y == 1 - a)].sum() for a in (0, 1))
    best = 2 * (y == t) + (y if responders > refusers else t)
    half = ate(y, t, **extras) / 2
    assert auuc(y, score, t, normalize="perfect", **extras) == pytest.approx(
        (auuc(y, score, t, **extras) - half) / (auuc(y, best, t, **extras) - half)
    )
