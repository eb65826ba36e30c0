"""Sensitivity to hidden confounding: exact bounds, and worlds where the confounder is known."""

from itertools import pairwise, product

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics.sensitivity import e_value, effect_bounds, sensitivity


def rows(count: int, seed: int, arms: int = 2):
    """Outcomes with ties, arms and propensities that differ from row to row."""
    rng = np.random.default_rng(seed)
    arm = np.arange(count) % arms
    outcome = np.round(rng.normal(0, 1, count) + 0.5 * (arm == 1), 1)
    return outcome, arm, rng.uniform(0.1, 0.9, count), rng.uniform(0.5, 2, count)


def hidden(count: int, seed: int, strength: float = 0.7):
    """A confounder u that isn't logged: outcome, arm, what the log states, largest odds ratio.

    True effect 1; u moves the outcome by 2 and the log odds of treatment by +-strength.
    """
    rng = np.random.default_rng(seed)
    x, u = rng.uniform(-1, 1, count), rng.random(count) < 0.5

    def chance(u):
        return 1 / (1 + np.exp(-x - strength * (2 * u - 1)))

    stated = (chance(1) + chance(0)) / 2
    odds = stated / (1 - stated)
    true = chance(u) / (1 - chance(u))
    arm = (rng.random(count) < chance(u)).astype(int)
    outcome = x + 2 * u + arm + rng.normal(0, 0.5, count)
    propensity = np.where(arm == 1, stated, 1 - stated)
    return outcome, arm, propensity, float(np.maximum(true / odds, odds / true).max())


def hajek(outcome, arm, propensity, weight, which):
    given = arm == which
    return np.average(outcome[given], weights=weight[given] / propensity[given])


@pytest.mark.parametrize("odds_ratio", [1.0, 1.3, 2.0, 10.0])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_are_the_extremes_over_all_weights(odds_ratio: float, seed: int) -> None:
    outcome, arm, propensity, weight = rows(15, seed)
    found = effect_bounds(
        outcome, arm, propensity, odds_ratio=odds_ratio, weight=weight, replicates=0
    )
    for which, bounds in ((1, found.treated), (0, found.control)):
        given = arm == which
        corners = np.array(list(product([1 / odds_ratio, odds_ratio], repeat=int(given.sum()))))
        mass = weight[given] * (1 + corners * (1 / propensity[given] - 1))
        means = mass @ outcome[given] / mass.sum(axis=1)
        assert bounds == pytest.approx((means.min(), means.max()), rel=1e-12)
    expected = found.treated[0] - found.control[1], found.treated[1] - found.control[0]
    assert found.effect == pytest.approx(expected)


def test_no_weights_inside_the_box_go_beyond() -> None:
    outcome, arm, propensity, weight = rows(40, 5)
    found = effect_bounds(outcome, arm, propensity, odds_ratio=2, weight=weight, replicates=0)
    rng = np.random.default_rng(0)
    given = arm == 1
    factor = np.exp(rng.uniform(-np.log(2), np.log(2), (20_000, int(given.sum()))))
    mass = weight[given] * (1 + factor * (1 / propensity[given] - 1))
    means = mass @ outcome[given] / mass.sum(axis=1)
    assert found.treated[0] <= means.min() < means.max() <= found.treated[1]


def test_an_odds_ratio_of_one_is_the_usual_estimate() -> None:
    outcome, arm, propensity, weight = rows(300, 1)
    found = effect_bounds(outcome, arm, propensity, odds_ratio=1, weight=weight)
    means = [hajek(outcome, arm, propensity, weight, which) for which in (0, 1)]
    assert found.control == pytest.approx((means[0], means[0]), rel=1e-12)
    assert found.treated == pytest.approx((means[1], means[1]), rel=1e-12)
    assert found.effect == (found.interval.estimate,) * 2
    assert found.interval.estimate == pytest.approx(means[1] - means[0], rel=1e-12)
    assert found.interval == sensitivity(outcome, arm, propensity, weight=weight).effect


def test_bounds_and_intervals_only_widen() -> None:
    outcome, arm, propensity, weight = rows(200, 2)
    found = [
        effect_bounds(outcome, arm, propensity, odds_ratio=each, weight=weight)
        for each in (1, 1.01, 1.5, 3, 100)
    ]
    for one, two in pairwise(found):
        assert two.effect[0] < one.effect[0] <= one.effect[1] < two.effect[1]
        assert two.interval.low < one.interval.low <= one.interval.high < two.interval.high
        assert one.interval.low < one.effect[0]
        assert one.effect[1] < one.interval.high


def test_bounds_stay_among_the_outcomes_and_reach_them() -> None:
    outcome, arm, propensity, _ = rows(50, 3)
    found = effect_bounds(outcome, arm, propensity, odds_ratio=1e9, replicates=0)
    given = outcome[arm == 1]
    assert found.treated == pytest.approx((given.min(), given.max()), abs=1e-6)


def test_arms_that_were_certain_cannot_be_confounded() -> None:
    outcome, arm, _, _ = rows(50, 4)
    found = effect_bounds(outcome, arm, np.ones(50), odds_ratio=50, replicates=0)
    assert found.effect == pytest.approx((found.interval.estimate,) * 2)


@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_the_truth_where_the_confounder_is_that_strong(seed: int) -> None:
    outcome, arm, propensity, odds_ratio = hidden(8000, seed)
    usual = effect_bounds(outcome, arm, propensity, odds_ratio=1)
    assert usual.interval.low > 1.2  # confidently wrong
    found = effect_bounds(outcome, arm, propensity, odds_ratio=odds_ratio)
    assert found.effect[0] <= 1 <= found.effect[1]
    assert 1 in found.interval


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Without confounding, at Lambda = 1, it is an ordinary interval of the effect."""
    inside = []
    for seed in range(150):
        outcome, arm, propensity, _ = hidden(400, seed, strength=0.0)
        inside.append(1 in effect_bounds(outcome, arm, propensity, odds_ratio=1).interval)
    assert 0.89 <= np.mean(inside) <= 0.99


def test_results_are_the_same_for_every_order_of_the_rows_and_every_seed_repeats() -> None:
    columns = rows(120, 6)
    shuffled = [each[np.random.default_rng(0).permutation(120)] for each in columns]

    def found(columns, seed):
        outcome, arm, propensity, weight = columns
        return sensitivity(outcome, arm, propensity, weight=weight, seed=seed)

    assert found(shuffled, 0) == found(columns, 0)
    assert found(columns, 1).effect.low != found(columns, 0).effect.low


def test_a_weight_is_a_repetition() -> None:
    outcome, arm, propensity, _ = rows(60, 7)
    times = np.random.default_rng(1).integers(0, 4, 60)
    weighted = effect_bounds(
        outcome, arm, propensity, odds_ratio=2, weight=times.astype(float), replicates=0
    )
    repeated = effect_bounds(
        *(np.repeat(each, times) for each in (outcome, arm, propensity)), odds_ratio=2, replicates=0
    )
    assert weighted.effect == pytest.approx(repeated.effect, rel=1e-12)
    assert weighted.treated == pytest.approx(repeated.treated, rel=1e-12)


def test_bounds_shift_scale_and_turn_with_the_outcome() -> None:
    outcome, arm, propensity, _ = rows(80, 8)

    def bounds(outcome, **arms):
        return effect_bounds(outcome, arm, propensity, odds_ratio=2, replicates=0, **arms).effect

    low, high = bounds(outcome)
    assert bounds(3 * outcome + 10) == pytest.approx((3 * low, 3 * high))
    assert bounds(-outcome) == pytest.approx((-high, -low))
    assert bounds(outcome, treated=0, control=1) == pytest.approx((-high, -low))


def test_other_arms_do_not_count() -> None:
    outcome, arm, propensity, _ = rows(90, 9, arms=3)
    two = arm != 1
    found = sensitivity(outcome, arm, propensity, treated=2)
    assert found == sensitivity(outcome[two], arm[two], propensity[two], treated=2)
    assert found.arm == 2


@pytest.mark.parametrize("sign", [1, -1])
def test_the_breakdown_value_is_where_bounds_first_include_0(sign: int) -> None:
    outcome, arm, propensity, _ = hidden(800, 10)
    found = sensitivity(sign * outcome, arm, propensity)
    assert 1 < found.breakdown_interval < found.breakdown < 1000

    def at(odds_ratio):
        return effect_bounds(sign * outcome, arm, propensity, odds_ratio=odds_ratio)

    def includes(bounds):
        return bounds[0] <= 0 <= bounds[1]

    assert includes(at(found.breakdown).effect)
    assert not includes(at(found.breakdown / 1.0002).effect)
    assert 0 in at(found.breakdown_interval).interval
    assert 0 not in at(found.breakdown_interval / 1.0002).interval


def test_the_breakdown_value_of_a_symmetric_trial_in_closed_form() -> None:
    """Shares 3/4 and 1/4 of ones at propensity 1/2: 3 / (3 + L) meets L / (L + 3) at L = 3."""
    outcome = np.array([1.0] * 30 + [0.0] * 10 + [1.0] * 10 + [0.0] * 30)
    arm = np.repeat([1, 0], 40)
    found = sensitivity(outcome, arm, np.full(80, 0.5), replicates=0)
    assert found.breakdown == pytest.approx(3, rel=2e-4)
    assert np.isnan(found.breakdown_interval)
    assert found.e_value is not None
    assert found.e_value.risk_ratio.estimate == pytest.approx(3)
    assert found.e_value.estimate == pytest.approx(3 + np.sqrt(6))


def test_what_no_confounder_explains_and_what_needs_none() -> None:
    arm = np.repeat([1, 0], 50)
    apart = sensitivity(np.where(arm == 1, 5.0, 1.0) + np.tile([0, 1], 50), arm, np.full(100, 0.5))
    assert apart.breakdown == apart.breakdown_interval == np.inf
    assert "no hidden confounder" in apart.summary
    nothing = sensitivity(np.tile([0.0, 1.0], 50), arm, np.full(100, 0.5))
    assert nothing.breakdown == nothing.breakdown_interval == 1
    assert "includes 0 without any" in nothing.summary


def test_the_summary_is_one_sentence_with_the_numbers() -> None:
    rng = np.random.default_rng(0)
    arm = np.repeat([1, 0], 1000)
    outcome = (rng.random(2000) < np.where(arm == 1, 0.3, 0.2)).astype(float)
    found = sensitivity(outcome, arm, np.full(2000, 0.5))
    assert found.e_value is not None
    numbers = (found.breakdown, found.breakdown_interval, found.e_value.estimate)
    assert 1 < found.breakdown_interval < found.breakdown < 3
    assert 1 < found.e_value.limit < found.e_value.estimate
    for number in numbers:
        assert f"{number:.2f}" in found.summary
    assert found.summary.startswith("Arm 1 against control: ")
    assert found.summary.endswith(").")


def test_e_values_of_the_paper_and_of_reversed_ratios() -> None:
    """Breastfeeding and death from respiratory infection: 3.9 (1.8 to 8.7) gives 7.26 and 3.0."""
    found, reverse = e_value(3.9, 1.8, 8.7), e_value(1 / 3.9, 1 / 8.7, 1 / 1.8)
    assert (found.estimate, found.limit) == pytest.approx((7.26, 3.0), abs=0.01)
    assert (reverse.estimate, reverse.limit) == pytest.approx((found.estimate, found.limit))
    assert e_value(1.0).estimate == 1
    assert e_value(1.4, 0.9, 2.0).limit == e_value(0.8, 0.6, 1.1).limit == 1
    assert np.isnan(e_value(2.0).limit)


def test_e_value_is_the_equal_strength_that_the_bias_bound_needs() -> None:
    """The most that a confounder of strengths a and b explains is a b / (a + b - 1)."""
    for ratio in (1.1, 2.0, 7.0):
        strength = e_value(ratio).estimate
        assert strength**2 / (2 * strength - 1) == pytest.approx(ratio)


def test_e_value_only_for_ratios_that_exist() -> None:
    outcome, arm, propensity, _ = rows(60, 11)
    assert sensitivity(outcome, arm, propensity, replicates=0).e_value is None
    never = np.where(arm == 0, 0.0, np.arange(60) % 3 == 0)
    assert sensitivity(never, arm, propensity, replicates=0).e_value is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"odds_ratio": 0.9}, "odds_ratio=0.9"),
        ({"odds_ratio": np.inf}, "odds_ratio=inf"),
        ({"odds_ratio": np.nan}, "odds_ratio=nan"),
        ({"treated": 0}, "both 0"),
        ({"treated": 2}, "0 treated"),
        ({"propensity": [0.0, 0.5, 0.5]}, "propensity runs from 0"),
        ({"propensity": None}, "propensity is missing"),
        ({"outcome": [1.0, np.nan, 2.0]}, "outcome has 1 NaN"),
        ({"arm": [0, 1]}, "arm has shape"),
        ({"weight": [-1.0, 1.0, 1.0]}, "weight runs from -1"),
        ({"replicates": 1}, "replicates=1"),
        ({"confidence": 95}, "confidence=95"),
    ],
)
def test_bad_input_is_refused(change: dict, said: str) -> None:
    good = {"outcome": [1.0, 2.0, 3.0], "arm": [0, 1, 1], "propensity": [0.5] * 3, "odds_ratio": 2}
    with pytest.raises(DataError, match=said):
        effect_bounds(**(good | change))


@pytest.mark.parametrize("ratios", [(0.0,), (-1.0,), (np.nan,), (2.0, 2.5, 3.0), (2.0, 1.0, None)])
def test_ratios_that_are_none_are_refused(ratios: tuple) -> None:
    with pytest.raises(DataError):
        e_value(*ratios)
