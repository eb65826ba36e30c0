"""Effects over time: a fading effect is seen, a steady one isn't, repeated units are counted once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from campaigns.errors import DataError
from models.metrics.experiments import effect_over_time


def panel(rng: np.random.Generator, units: int, days: int, slope: float = 0.0, own: float = 1.0):
    """Every unit on every day; its own level stays, and the effect is 1 + slope * day."""
    unit = np.repeat(np.arange(units), days)
    day = np.tile(np.arange(days), units)
    treated = rng.integers(0, 2, units)[unit]
    drift = rng.normal(0, own, units)[unit] * day / days  # units move apart, each its own way
    y = rng.normal(0, own, units)[unit] + drift + rng.normal(size=len(unit))
    return y + treated * (1 + slope * day), treated, day, unit


def test_p_values_of_steady_effects_are_uniform_where_units_are_told_apart() -> None:
    with_units, without = [], []
    for seed in range(400):
        y, treated, day, unit = panel(np.random.default_rng(seed), 200, 7, own=3.0)
        with_units.append(effect_over_time(y, treated, day, unit=unit).p_value)
        without.append(effect_over_time(y, treated, day).p_value)
    assert stats.kstest(with_units, "uniform").pvalue > 0.01
    assert stats.kstest(without, "uniform").pvalue < 0.001


def test_fading_and_growing_are_told() -> None:
    for slope, word in ((-0.1, "fades: -0."), (0.1, "grows: +0.")):
        y, treated, day, unit = panel(np.random.default_rng(1), 3000, 7, slope=slope)
        found = effect_over_time(y, treated, day, unit=unit)
        assert slope in found.slope
        assert word in found.summary
        for k, effect in enumerate(found.effects):
            assert abs(effect.estimate - 1 - slope * k) < effect.high - effect.low
        turned = effect_over_time(-y, treated, day, unit=unit)
        assert turned.summary.split(":")[0] == found.summary.split(":")[0]
    y, treated, day, unit = panel(np.random.default_rng(2), 3000, 7)
    assert effect_over_time(y, treated, day, unit=unit).summary.startswith("no trend")


def test_effects_are_differences_of_means_and_the_line_is_least_squares() -> None:
    rng = np.random.default_rng(3)
    y, treated, day, _ = panel(rng, 90, 4)
    chance = rng.uniform(0.3, 0.7, len(y))
    found = effect_over_time(y, treated, day, propensity=chance)
    errors = []
    for k, effect in enumerate(found.effects):
        means = [
            np.average(y[rows], weights=1 / chance[rows])
            for rows in ((day == k) & (treated == 1), (day == k) & (treated == 0))
        ]
        assert effect.estimate == pytest.approx(means[0] - means[1])
        errors.append((effect.high - effect.low) / 2 / 1.959964)
    line = np.polyfit(np.arange(4), [e.estimate for e in found.effects], 1, w=1 / np.array(errors))
    assert found.slope.estimate == pytest.approx(line[0])
    plain = effect_over_time(y, treated, day)
    rows = day == 0
    ends = stats.ttest_ind(y[rows & (treated == 1)], y[rows & (treated == 0)], equal_var=False)
    error = (plain.effects[0].high - plain.effects[0].low) / 2 / 1.959964
    assert plain.effects[0].estimate / error == pytest.approx(ends.statistic, rel=1e-6)


def test_periods_without_both_arms_are_left_out() -> None:
    y, treated, day, unit = panel(np.random.default_rng(4), 60, 5)
    treated = np.where(day == 3, 1, treated)
    found = effect_over_time(y, treated, day, unit=unit)
    assert found.periods.tolist() == [0, 1, 2, 4]
    assert found.left_out.tolist() == [3]
    again = effect_over_time(y, treated, day * 2.0 + 1, unit=[f"u{u}" for u in unit])
    assert again.slope.estimate == pytest.approx(found.slope.estimate / 2)


def test_a_constant_outcome_has_no_trend_and_ten_units_an_answer() -> None:
    flat = effect_over_time(np.ones(40), [0, 1] * 20, np.repeat([0, 1], 20))
    assert (flat.slope.estimate, flat.p_value) == (0.0, 1.0)
    rng = np.random.default_rng(5)
    ten = effect_over_time(rng.normal(size=10), [0, 1] * 5, [0] * 4 + [1] * 6)
    assert np.isfinite(ten.slope.low)


def test_bad_input_is_refused() -> None:
    y, treated, day, unit = panel(np.random.default_rng(6), 20, 3)
    for change, said in (
        ({"treatment": np.zeros(60)}, "0 of 3 periods"),
        ({"treatment": np.ones(60)}, "0 of 3 periods"),
        ({"period": np.zeros(60)}, "1 of 1 periods"),
        ({"period": np.full(60, np.nan)}, "period has 60 NaN"),
        ({"unit": unit[:10]}, "unit has shape"),
        ({"y": np.append(y[:-1], np.inf)}, "y has 1 infinite"),
    ):
        with pytest.raises(DataError, match=said):
            effect_over_time(**{"y": y, "treatment": treated, "period": day, **change})
