"""TOC, AUTOC and RATE: against the paper's sums, known truth, and each other."""

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics import (
    evaluate,
    metric_difference,
    metric_interval,
    pseudo_effects,
    rate,
    rate_difference,
    toc_curve,
)

METRICS = {"autoc": "autoc", "qini": "rate_qini"}
both = pytest.mark.parametrize("weighting", ["autoc", "qini"])


def paper(score, effect, weighting: str) -> float:
    """Yadlowsky et al., equations 2.8 and 2.9: a mean over j of TOC(j / n), weighted."""
    gamma = effect[np.argsort(-score)]
    share = np.arange(1, len(gamma) + 1) / len(gamma)
    toc = [gamma[:j].mean() - gamma.mean() for j in range(1, len(gamma) + 1)]
    return float(np.mean(np.array(toc) * (1 if weighting == "autoc" else share)))


def draw(rows: int, seed: int, ties: bool = False):
    """Effect x^2 at score x, unequal propensities: AUTOC 5/18, and 1/12 weighted by q."""
    rng = np.random.default_rng(seed)
    x = rng.random(rows)
    p = 0.3 + 0.4 * x
    t = (rng.random(rows) < p).astype(int)
    y = x + t * x**2 + rng.normal(0, 0.4, rows)
    return y, np.floor(x * 20) if ties else x, t, np.where(t == 1, p, 1 - p)


TRUTH = {"autoc": 5 / 18, "qini": 1 / 12}


@both
def test_nearly_the_sum_of_the_paper(weighting) -> None:
    for rows in (50, 400, 3000):
        rng = np.random.default_rng(rows)
        score, effect = rng.random(rows), rng.normal(1, 1, rows)
        found = rate(score, effect, weighting=weighting).estimate
        assert found == pytest.approx(paper(score, effect, weighting), abs=6 * np.log(rows) / rows)


@both
def test_is_the_integral_of_the_curve(weighting) -> None:
    rng = np.random.default_rng(0)
    score, effect, weight = rng.integers(0, 9, 80), rng.normal(1, 1, 80), rng.random(80)
    curve = toc_curve(score, effect, weight=weight)
    end = np.average(effect, weights=weight)
    q = (np.arange(400_000) + 0.5) / 400_000
    toc = np.interp(q, curve.x, curve.x * (curve.y + end)) / q - end
    integral = (toc * (1 if weighting == "autoc" else q)).mean()
    assert rate(score, effect, weight=weight, weighting=weighting).estimate == pytest.approx(
        integral, abs=1e-6
    )


def test_toc_is_the_effect_among_the_top_over_the_average() -> None:
    score, effect = np.array([3, 3, 2, 1]), np.array([4.0, 2.0, 1.0, 1.0])
    curve = toc_curve(score, effect)
    assert curve.x.tolist() == [0, 0.5, 0.75, 1]
    assert curve.y == pytest.approx([1, 1, 7 / 3 - 2, 0])


@both
def test_known_truth(weighting) -> None:
    y, x, t, p = draw(300_000, 0)
    assert rate(x, x**2, weighting=weighting).estimate == pytest.approx(TRUTH[weighting], abs=0.003)
    name = METRICS[weighting]
    found = evaluate([name], y, x, t, propensity=p)[name]
    assert found == pytest.approx(TRUTH[weighting], abs=0.012)


@both
@pytest.mark.parametrize("ties", [False, True])
def test_the_metric_is_the_rate_of_the_trials_own_effects(weighting, ties: bool) -> None:
    y, score, t, p = draw(600, 1, ties)
    weight = np.random.default_rng(2).random(600)
    mass = weight / p
    shares = [mass[t == a].sum() / weight.sum() for a in (0, 1)]
    level = sum(np.average(y[t == a], weights=mass[t == a]) for a in (0, 1)) / 2
    effect = np.where(t == 1, 1, -1) / p / np.take(shares, t) * (y - level)
    name = METRICS[weighting]
    assert evaluate([name], y, score, t, propensity=p, weight=weight)[name] == pytest.approx(
        rate(score, effect, weighting=weighting, weight=weight).estimate
    )


@both
def test_a_weight_is_a_repetition_and_a_constant_score_worth_nothing(weighting) -> None:
    rng = np.random.default_rng(3)
    score, effect, weight = rng.random(60), rng.normal(size=60), rng.integers(0, 4, 60)
    repeated = rate(np.repeat(score, weight), np.repeat(effect, weight), weighting=weighting)
    assert rate(score, effect, weight=weight, weighting=weighting).estimate == pytest.approx(
        repeated.estimate
    )
    assert rate(np.zeros(60), effect, weighting=weighting).estimate == pytest.approx(0)


def test_outcome_models_narrow_the_interval() -> None:
    y, x, t, p = draw(4000, 4)
    y = y + 5 * x
    plain = pseudo_effects(y, t, p)
    robust = pseudo_effects(y, t, p, q_hat=np.column_stack([6 * x, 6 * x + x**2]))
    wide, narrow = rate(x, plain), rate(x, robust)
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    assert TRUTH["autoc"] in narrow


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("metric", ["ate", "auuc", "qini", "lift@30", "autoc", "rate_qini"])
def test_influence_and_bootstrap_agree(metric: str, ties: bool) -> None:
    y, x, t, p = draw(3000, 5, ties)
    weight = np.random.default_rng(6).integers(0, 3, 3000)
    known = {"propensity": p, "weight": weight}
    one, other = (
        metric_interval(metric, y, x, t, method=method, replicates=600, **known)
        for method in ("influence", "bootstrap")
    )
    assert one.estimate == other.estimate
    assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.15)

    near = x + np.random.default_rng(7).normal(0, 3 if ties else 0.15, 3000)
    one, other = (
        metric_difference(metric, y, x, near, t, method=method, replicates=600, **known)
        for method in ("influence", "bootstrap")
    )
    assert one.estimate == other.estimate
    assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.2, abs=1e-12)


@both
def test_paired_difference_of_given_effects(weighting) -> None:
    y, x, t, p = draw(4000, 8)
    effect = pseudo_effects(y, t, p)
    near = x + np.random.default_rng(9).normal(0, 0.1, 4000)
    paired = rate_difference(x, near, effect, weighting=weighting)
    alone = rate(x, effect, weighting=weighting)
    other = rate(near, effect, weighting=weighting)
    assert paired.estimate == pytest.approx(alone.estimate - other.estimate)
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)
    same = rate_difference(x, np.exp(x), effect, weighting=weighting)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_what_it_refuses() -> None:
    y, x, t, _ = draw(50, 0)
    with pytest.raises(DataError, match="weighting='toc' isn't known"):
        rate(x, y, weighting="toc")
    with pytest.raises(DataError, match=r"effect has shape \(50,\)"):
        rate_difference(x, x[:40], y)
    with pytest.raises(DataError, match="'aucc' isn't known; use 'ate', .*'rate_qini'"):
        metric_interval("aucc", y, x, t, method="influence")
    with pytest.raises(DataError, match="method='delta' isn't known"):
        metric_interval("ate", y, x, t, method="delta")
