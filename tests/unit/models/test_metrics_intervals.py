"""Intervals: same seed, same interval; the right width; paired ones narrower."""

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics import (
    METRICS,
    bootstrap_draws,
    evaluate,
    metric_difference,
    metric_interval,
    metric_intervals,
    normal_interval,
    uplift_table,
)


def draw(rows: int, seed: int):
    """Effect 0.2 x at score x: AUUC 0.2/3, ATE 0.1, and a Qini coefficient of rows / 2 / 60."""
    rng = np.random.default_rng(seed)
    x = rng.random(rows)
    t = rng.integers(0, 2, rows)
    return x * 0.5 + t * 0.2 * x + rng.normal(0, 0.3, rows), x, t


def test_coverage_of_the_95_percent_interval() -> None:
    truth = {"auuc": 0.2 / 3, "ate": 0.1, "qini": 500 / 2 / 60, "lift@50": 0.15}
    inside: dict[str, list[bool]] = {name: [] for name in truth}
    for seed in range(300):
        y, x, t = draw(500, seed)
        outcomes = np.stack([np.zeros(500), x], axis=1)[:, :, None]
        for row in uplift_table(
            outcomes,
            y[:, None],
            t,
            arm_names=["none", "mail"],
            outcome_names=["spend"],
            metrics=list(truth),
            replicates=150,
            seed=seed,
        ):
            inside[row.metric].append(truth[row.metric] in row.interval)
    for metric, hits in inside.items():
        assert 0.90 <= np.mean(hits) <= 0.99, metric


@pytest.mark.parametrize("metric", [*METRICS, "lift@30"])
def test_every_metric_has_an_interval_and_a_seed_fixes_it(metric: str) -> None:
    rng = np.random.default_rng(0)
    t, x = rng.integers(0, 2, 800), rng.random(800)
    y = rng.random(800) < 0.2 + 0.4 * t * x
    first, again, other = (metric_interval(metric, y, x, t, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first.low < first.estimate < first.high
    assert first.estimate == evaluate([metric], y, x, t)[metric]


def test_several_at_once_are_the_same_intervals() -> None:
    y, x, t = draw(300, 4)
    names = ["auuc", "lift@30", "autoc"]
    together = metric_intervals(names, y, x, t, replicates=50, seed=2)
    assert together == {n: metric_interval(n, y, x, t, replicates=50, seed=2) for n in names}


def test_interval_narrows_with_the_rows_and_widens_with_confidence() -> None:
    small, large = (metric_interval("auuc", *draw(n, 0)) for n in (500, 50_000))
    assert (small.high - small.low) / (large.high - large.low) == pytest.approx(10, rel=0.4)
    wide = metric_interval("auuc", *draw(500, 0), confidence=0.99)
    assert wide.low < small.low < small.high < wide.high


def test_paired_difference_is_narrower_than_two_intervals() -> None:
    y, x, t = draw(4000, 1)
    near = x + np.random.default_rng(2).normal(0, 0.1, len(x))
    paired = metric_difference("auuc", y, x, near, t)
    alone = metric_interval("auuc", y, x, t)
    assert paired.estimate == pytest.approx(alone.estimate - evaluate(["auuc"], y, near, t)["auuc"])
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)
    assert metric_difference("auuc", y, x, -x, t).low > 0
    same = metric_difference("auuc", y, x, 2 * x, t)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_replicates_are_poisson_and_taken_in_bounded_pieces() -> None:
    sizes = []

    def count(weight):
        sizes.append(weight.size)
        return np.stack([weight.mean(axis=1), weight.var(axis=1)], axis=1)

    draws = bootstrap_draws(count, np.full(50_000, 2.0), replicates=40, seed=3)
    assert draws.shape == (40, 2)
    assert max(sizes) <= 2**18
    assert draws.mean(axis=0) == pytest.approx([2.0, 4.0], rel=0.01)


def test_a_group_that_often_is_not_drawn_leaves_no_interval() -> None:
    y, t = np.arange(20.0), np.arange(20) == 0
    found = metric_interval("ate", y, y, t)
    assert found.estimate == -10
    assert np.isnan(found.low)


def test_numbers_that_make_no_interval() -> None:
    y, x, t = draw(50, 0)
    with pytest.raises(DataError, match="replicates=1"):
        metric_interval("auuc", y, x, t, replicates=1)
    for confidence in (0, 1, 95):
        with pytest.raises(DataError, match="isn't a share"):
            metric_interval("auuc", y, x, t, confidence=confidence)


def test_normal_interval_and_how_it_reads() -> None:
    found = normal_interval(1.0, 0.5)
    assert (found.low, found.high) == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-3)
    assert str(found) == "1 [0.020018, 1.97998] (95%)"
    assert 0.5 in found
    assert 2 not in found
