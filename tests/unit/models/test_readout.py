"""Read-outs of experiments: planted effects are found, none is found where there is none, leaks are caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from campaigns.errors import DataError
from campaigns.experiment import parse_experiment
from campaigns.loading import load_campaign
from models.metrics.experiments import compare_variants, cuped_effect, effect_sequence
from models.metrics.experiments.readout import forecasts
from models.readout import COST, NET_VALUE, ExperimentLog, ReadOut, read_out

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
UNITS = 6000
FILE = f"""\
name: policies
start: 2026-12-01
units: {UNITS}
variants:
  random: {{share: 0.5, policy: random}}
  nobody: {{share: 0.25, policy: nobody}}
  coins: {{share: 0.25, policy: arm, arm: coins}}
"""
EXPERIMENT = parse_experiment(FILE, GAME, "it")
SHARES = EXPERIMENT.shares


def drawn(units: int, seed: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, variant and covariates; the last variant has the effect."""
    rng = np.random.default_rng(seed)
    variant = rng.choice(3, units, p=SHARES)
    x = rng.normal(size=(units, 3))
    return x.sum(axis=1) + rng.normal(size=units) + effect * (variant == 2), variant, x


def log_of(variant: np.ndarray, seed: int = 0, lift: float = 0.0, **changes) -> ExperimentLog:
    rng, units = np.random.default_rng([seed, 1]), len(variant)
    login = (rng.random(units) < 0.4 + lift * (variant == 2)).astype(float)
    plays = (rng.random(units) < 0.3).astype(float)
    values = {
        "variant": variant,
        "when": np.datetime64("2026-12-01T00:00:00", "us") + np.arange(units),
        "outcomes": {"login_next_day": login, "plays_more_7d": plays},
        "worth": login + 2 * plays,
        "cost": np.where(variant == 2, 0.3, 0.0),
        "covariates": rng.normal(size=(units, 2)),
        "decisions": units,
    }
    return ExperimentLog(**values | changes)


def verdicts(found: ReadOut, outcome: str) -> list[str]:
    return [row.verdict for row in found.outcomes[outcome].values()]


def test_a_planted_effect_is_found_and_nothing_else() -> None:
    y, variant, x = drawn(20_000, 1, effect=0.1)
    reference, nothing, planted = compare_variants(y, variant, SHARES, covariates=x, planned=20_000)
    assert reference.difference is None
    assert 0.1 in planted.difference
    assert 0.1 in planted.always_valid
    assert planted.difference.low > 0
    assert 0 in nothing.difference
    assert planted.variance_reduction == pytest.approx(0.75, abs=0.02)  # x explains 3 of 4
    both = variant != 1
    own = cuped_effect(y[both], variant[both] == 2, x[both])
    assert planted.difference == own.interval
    assert planted.unadjusted == own.unadjusted


def test_equal_policies_differ_in_about_one_test_of_twenty() -> None:
    wrong = looks = ever = 0
    for seed in range(300):
        y, variant, x = drawn(1200, seed)
        for one in compare_variants(y, variant, SHARES, covariates=x, planned=1200)[1:]:
            wrong += 0 not in one.difference
            ever += 0 not in one.always_valid
            looks += 1
    assert 0.03 < wrong / looks < 0.075  # 600 tests, those of one seed share the reference
    assert ever / looks < 0.02


def test_who_looks_all_the_time_errs_seldom_by_the_always_valid_interval() -> None:
    ever = 0
    for seed in range(100):
        y, variant, x = drawn(2000, seed)
        both = variant != 1
        share = SHARES[2] / (SHARES[0] + SHARES[2])
        treated = (variant[both] == 2).astype(int)
        sequence = effect_sequence(
            y[both],
            treated,
            np.where(treated == 1, share, 1 - share),
            best_at=1500,
            prediction=forecasts(y[both], x[both]),
        )
        ever += sequence.first_without(0.0) is not None
    assert ever <= 8


def test_a_forecast_knows_nothing_of_what_comes() -> None:
    y, _, x = drawn(3000, 2)
    full = forecasts(y, x)
    cut = forecasts(y[:1000], x[:1000])
    assert np.array_equal(full[:1000], cut)
    assert np.var(y[200:] - full[200:]) < 0.35 * np.var(y[200:])
    flat = forecasts(y, x[:, :0])
    assert flat[1000] == pytest.approx(y[:1000].mean())


def test_units_without_the_outcome_are_left_out() -> None:
    y, variant, x = drawn(3000, 3)
    some = y.copy()
    some[::3] = np.nan
    kept = np.arange(3000) % 3 != 0
    with_gaps = compare_variants(some, variant, SHARES, covariates=x)
    assert with_gaps == compare_variants(y[kept], variant[kept], SHARES, covariates=x[kept])


def test_few_units_get_wide_intervals_or_none() -> None:
    y, variant = np.arange(10.0), np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 0])
    found = compare_variants(y, variant, SHARES, covariates=np.ones((10, 40)), planned=10)
    assert found[1].difference == found[1].unadjusted  # no slope from three units
    assert found[1].difference.high - found[1].difference.low > 2
    assert np.isnan(found[2].difference.estimate)
    assert found[2].mean == 7.5
    assert found[1].always_valid is None
    nobody = compare_variants(np.full(10, np.nan), variant, SHARES)
    assert [one.units for one in nobody] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": ["a"] * 4}, "isn't a number"),
        ({"y": [1.0, 2.0, np.inf, 0.0]}, "infinite"),
        ({"variant": [0, 1, 2, 3]}, "must hold whole arm numbers from 0"),
        ({"reference": 3}, "reference=3 is none of 3 variants"),
        ({"covariates": np.full((4, 1), np.nan)}, "NaN"),
    ],
)
def test_nonsense_is_refused(change: dict, words: str) -> None:
    given = {"y": [1.0, 2.0, 3.0, 4.0], "variant": [0, 1, 2, 0], "shares": SHARES} | change
    with pytest.raises(DataError, match=words):
        compare_variants(**given)


def test_the_read_out_tells_what_a_variant_gained_and_cost() -> None:
    variant = np.random.default_rng(0).choice(3, UNITS, p=SHARES)
    found = read_out(log_of(variant, lift=0.1), EXPERIMENT, GAME)
    assert found.sound
    assert verdicts(found, "login_next_day") == ["", "unclear", "higher"]
    assert verdicts(found, COST) == ["", "unclear", "higher"]
    assert verdicts(found, "plays_more_7d")[1:] == ["unclear", "unclear"]
    row = found.outcomes["login_next_day"]["coins"]
    assert 0.1 in row.effect.difference
    assert row.relative.estimate == pytest.approx(0.1 / 0.4, abs=0.08)
    net = found.outcomes[NET_VALUE]["coins"].effect.difference
    assert 0.1 - 0.3 in net  # min_return is 1: a gain of 0.1 for 0.3
    assert found.outcomes[COST]["coins"].effect.mean == pytest.approx(0.3)


def test_a_leak_makes_every_verdict_invalid() -> None:
    rng = np.random.default_rng(1)
    variant = rng.choice(3, UNITS, p=SHARES)
    variant = variant[(variant != 2) | (rng.random(UNITS) < 0.8)]
    found = read_out(log_of(variant, lift=0.2), EXPERIMENT, GAME)
    assert not found.sound
    assert found.sample_ratio.p_value < 0.001
    assert found.sample_ratio.sequential_p < 0.001
    assert found.problems[0].startswith("units: sample ratio mismatch since 2026-12-01")
    for outcome in found.outcomes:
        assert verdicts(found, outcome) == ["", "invalid", "invalid"]


def test_outcomes_that_are_lost_in_one_variant_are_invalid_alone() -> None:
    rng = np.random.default_rng(2)
    variant = rng.choice(3, UNITS, p=SHARES)
    whole = log_of(variant, lift=0.2)
    plays = np.where((variant == 2) & (rng.random(UNITS) < 0.2), np.nan, 1.0)
    plays *= whole.outcomes["plays_more_7d"]
    lost = log_of(variant, lift=0.2, outcomes=whole.outcomes | {"plays_more_7d": plays})
    found = read_out(lost, EXPERIMENT, GAME)
    assert not found.sound
    assert found.sample_ratio.ok
    assert verdicts(found, "login_next_day")[2] == "higher"
    assert verdicts(found, "plays_more_7d") == ["", "invalid", "invalid"]


def test_other_units_in_a_variant_are_noticed_though_the_counts_agree() -> None:
    variant = np.random.default_rng(3).choice(3, UNITS, p=SHARES)
    log = log_of(variant)
    log.covariates[variant == 1, 0] += 0.3
    found = read_out(log, EXPERIMENT, GAME)
    assert found.sample_ratio.ok
    assert found.balance_p < 0.001
    assert "differ more than a random draw allows" in found.problems[0]


def test_until_the_planned_units_have_come_the_always_valid_interval_decides() -> None:
    variant = np.random.default_rng(4).choice(3, 1500, p=SHARES)
    found = read_out(log_of(variant, seed=4, lift=0.08), EXPERIMENT, GAME)
    row = found.outcomes["login_next_day"]["coins"]
    assert row.effect.difference.low > 0 > row.effect.always_valid.low
    assert row.verdict == "unclear"
    assert any("verdicts are by the intervals at every look" in note for note in found.notes)


def test_constant_and_missing_outcomes_are_said_to_be_so() -> None:
    variant = np.random.default_rng(5).choice(3, UNITS, p=SHARES)
    log = log_of(
        variant,
        outcomes={"login_next_day": np.ones(UNITS), "plays_more_7d": np.full(UNITS, np.nan)},
    )
    found = read_out(log, EXPERIMENT, GAME)
    assert verdicts(found, "login_next_day") == ["", "never varies", "never varies"]
    assert verdicts(found, "plays_more_7d") == ["", "too few units", "too few units"]
    assert found.outcomes["login_next_day"]["coins"].effect.difference.estimate == (
        pytest.approx(0.0, abs=1e-12)
    )


def test_ten_units_have_an_answer() -> None:
    variant = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    found = read_out(log_of(variant), EXPERIMENT, GAME)
    assert found.sound
    assert verdicts(found, "login_next_day")[2] == "too few units"
    assert found.to_dict()["units"] == 10


def test_one_test_in_a_thousand_calls_a_sound_split_broken() -> None:
    from models.checks.srm import split_ratio

    rng = np.random.default_rng(6)
    found = [split_ratio(rng.choice(3, 500, p=SHARES), SHARES, "abc") for _ in range(1000)]
    p = np.array([one.p_value for one in found])
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert sum(not one.ok for one in found) <= 5
    assert sum(one.sequential_p < 0.001 for one in found) <= 5


def test_the_page_shows_any_name_and_what_is_missing(tmp_path: Path) -> None:
    from models.report.experiment import render_experiment

    name = "a" * 63
    renamed = parse_experiment(FILE.replace("coins:", f"{name}:"), GAME, "it")
    variant = np.random.default_rng(7).choice(3, UNITS, p=SHARES)
    log = log_of(variant)
    log.outcomes["plays_more_7d"][variant == 1] = np.nan
    page = tmp_path / "page.html"
    render_experiment(read_out(log, renamed, GAME), GAME, page)
    html = page.read_text()
    assert f"<td>{name}</td>" in html
    assert "sample ratio mismatch" in html
    assert "nan" not in html
