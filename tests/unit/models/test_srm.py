"""Sample ratio: p-values are uniform when the log is sound, and tiny when rows were lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from campaigns.errors import CheckFailed, DataError
from campaigns.spec import Campaign
from models.checks.srm import require_sample_ratio, sample_ratio

CAMPAIGN = {
    "name": "mail",
    "unit": "user",
    "source": {"kind": "events"},
    "timestamp": "at",
    "features": {"numeric": ["recency"]},
    "treatments": {
        "mail": {"column": "segment", "control": "none", "levels": ["none", "mens", "womens"]}
    },
    "outcomes": {"visit": {"kind": "binary", "value": 1.0}},
    "budget": {"amount": 10.0},
}
MAIL = Campaign.model_validate(CAMPAIGN)


def frame(arm: np.ndarray, p: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": arm,
            "explored": True,
            "holdout": False,
            "explored_propensity": p[np.arange(len(arm)), arm],
        }
    )


def drawn(rng: np.random.Generator, p: np.ndarray) -> pd.DataFrame:
    """Arms drawn with row-wise probabilities [N, 3]."""
    arm = (rng.random(len(p))[:, None] > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
    return frame(arm, p)


def constant(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.tile([0.5, 0.3, 0.2], (n, 1))


def stratified(rng: np.random.Generator, n: int) -> np.ndarray:
    strata = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    return strata[rng.integers(0, 2, n)]


def continuous(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.1 + 0.7 * rng.dirichlet([1, 1, 1], n)


def eligible(rng: np.random.Generator, n: int) -> np.ndarray:
    """Uniform over the arms that each unit may get; control always."""
    may = np.column_stack([np.ones(n), rng.random((n, 2)) < 0.7])
    return may / may.sum(axis=1, keepdims=True)


DESIGNS = {
    "constant": (constant, "chi-square"),
    "stratified": (stratified, "inverse propensity"),
    "continuous": (continuous, "inverse propensity"),
    "eligible": (eligible, "inverse propensity"),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_p_values_of_sound_logs_are_uniform(design: str) -> None:
    make, method = DESIGNS[design]
    p_values = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        result = sample_ratio(drawn(rng, make(rng, 3000)), MAIL)
        assert result.method == method
        p_values.append(result.p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.035)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_tenth_of_one_arm_lost_is_found(design: str, lost: int) -> None:
    rng = np.random.default_rng(3)
    log = drawn(rng, DESIGNS[design][0](rng, 60_000))
    kept = log[(log["arm"] != lost) | (rng.random(len(log)) > 0.1)]
    assert not sample_ratio(kept, MAIL).ok


def test_an_arm_that_was_lost_wholly_is_found() -> None:
    rng = np.random.default_rng(0)
    for make in (constant, stratified):
        log = drawn(rng, make(rng, 3000))
        assert not sample_ratio(log[log["arm"] != 2], MAIL).ok


def test_an_arm_that_the_trial_left_out_is_no_mismatch() -> None:
    rng = np.random.default_rng(0)
    assert sample_ratio(drawn(rng, np.tile([0.6, 0.4, 0.0], (3000, 1))), MAIL).ok


def test_known_value() -> None:
    """821,588 against 815,482 at an even split: the example of Fabijan et al., p = 1.8e-6."""
    arm = np.repeat([0, 1], [821_588, 815_482])
    result = sample_ratio(frame(arm, np.full((len(arm), 2), 0.5)), MAIL)
    assert result.p_value == pytest.approx(stats.chisquare([821_588, 815_482]).pvalue)
    assert result.p_value == pytest.approx(1.8e-6, rel=0.05)
    assert result.counts == {"none": 821_588, "mens": 815_482, "womens": 0}
    assert result.expected == {"none": 818_535.0, "mens": 818_535.0, "womens": 0.0}


def test_only_the_trial_is_looked_at() -> None:
    rng = np.random.default_rng(1)
    log = drawn(rng, constant(rng, 900))
    chosen = log.assign(arm=2, explored=False, explored_propensity=np.nan)
    held = log.assign(arm=0, holdout=True, explored_propensity=np.nan)
    assert sample_ratio(pd.concat([log, chosen, held]), MAIL) == sample_ratio(log, MAIL)


def test_a_mismatch_stops_the_run_with_its_numbers() -> None:
    arm = np.repeat([0, 1, 2], [1000, 1000, 1200])
    log = frame(arm, np.full((len(arm), 3), 1 / 3))
    with pytest.raises(
        CheckFailed, match=r"p = \S+e-06.*none 1,000 \(expected 1,067\).*womens 1,200"
    ):
        require_sample_ratio(log, MAIL)
    assert require_sample_ratio(log.iloc[:-170], MAIL).ok


def test_propensities_taken_from_the_counts_are_not_tested() -> None:
    estimated = Campaign.model_validate({**CAMPAIGN, "propensity": "estimate"})
    result = sample_ratio(
        frame(np.repeat([0, 1, 2], [5, 10, 20]), np.tile([1 / 7, 2 / 7, 4 / 7], (35, 1))), estimated
    )
    assert (result.ok, result.method) == (True, "none")


def test_no_trial_rows_or_no_propensity_is_a_clear_error() -> None:
    log = frame(np.array([0, 1]), np.full((2, 3), 1 / 3))
    with pytest.raises(DataError, match="none of 2 rows was drawn at random"):
        sample_ratio(log.assign(explored=False), MAIL)
    with pytest.raises(DataError, match="1 of 2 explored rows have no explored_propensity"):
        sample_ratio(log.assign(explored_propensity=[np.nan, 0.5]), MAIL)


def timed(log: pd.DataFrame) -> pd.DataFrame:
    start = pd.Timestamp("2026-01-01", tz="UTC")
    return log.assign(decided_at=start + pd.to_timedelta(np.arange(len(log)), unit="min"))


def test_a_log_that_is_looked_at_again_and_again_is_judged_over_time() -> None:
    rng = np.random.default_rng(0)
    sound = timed(drawn(rng, constant(rng, 40_000)))
    result = sample_ratio(sound, MAIL)
    assert (result.sequential_p > 0.05, result.broken_since) == (True, None)
    shuffled = sound.sample(frac=1.0, random_state=0)
    assert sample_ratio(shuffled, MAIL).sequential_p == result.sequential_p

    lost = (sound["arm"] == 1) & (np.arange(40_000) > 20_000) & (rng.random(40_000) < 0.2)
    with pytest.raises(CheckFailed, match=r"mismatch \(since 2026-01-[12]\d"):
        require_sample_ratio(sound[~lost], MAIL)
    broken = sample_ratio(sound[~lost], MAIL)
    assert broken.sequential_p < 0.001
    assert pd.Timestamp(broken.broken_since) > sound["decided_at"][20_000]
    assert sample_ratio(timed(drawn(rng, stratified(rng, 3000))), MAIL).sequential_p is None
