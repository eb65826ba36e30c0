"""The table of metrics as other libraries compute them."""

from __future__ import annotations

import numpy as np
import pytest

from campaigns.errors import DataError
from models.convention_table import (
    LIBRARIES,
    convention_rows,
    default_metrics,
    require_metrics,
)
from models.metrics import CONVENTIONS, DEFAULT_METRICS, in_convention

ARMS, OUTCOMES = ("none", "mail", "call"), ("visit", "spend")


def trial(rows: int = 600, seed: int = 0):
    """Predictions [N, 3, 2], outcomes (one 0 or 1, one a number) [N, 2], arms and propensities."""
    rng = np.random.default_rng(seed)
    predicted = rng.random((rows, 3, 2)) * 0.5
    shares = np.array([0.5, 0.3, 0.2])
    arm = rng.choice(3, rows, p=shares)
    expected = 0.2 + predicted[np.arange(rows), arm]
    y = np.column_stack([rng.random(rows) < expected[:, 0], 3 + rng.normal(expected[:, 1])])
    return predicted, y.astype(float), arm, shares[arm]


def rows_of(convention: str, metrics: tuple[str, ...], log, confidence: float = 0.95):
    return convention_rows(
        convention, *log, arm_names=ARMS, outcome_names=OUTCOMES, metrics=metrics,
        confidence=confidence, seed=3,
    )  # fmt: skip


@pytest.mark.parametrize("convention", LIBRARIES)
def test_each_row_is_the_library_s_number_on_its_contrast(convention: str) -> None:
    predicted, y, arm, _ = log = trial()
    table = rows_of(convention, default_metrics(convention), log)
    assert len(table) == 2 * 2 * len(default_metrics(convention))
    for row in table:
        a, k = ARMS.index(row.arm), OUTCOMES.index(row.outcome)
        used = (arm == a) | (arm == 0)
        if np.isnan(row.interval.estimate):
            assert (convention, row.metric, row.outcome) == ("sklift", "auuc", "spend")
            assert row.note == "needs outcomes of 0 and 1"
            continue
        extra = {}
        if convention == "econml":  # 0.3 of 0.5 + 0.3, and so on
            pair = {0: 0.5, a: {1: 0.3, 2: 0.2}[a]}
            extra["propensity"] = np.array([pair[g] / sum(pair.values()) for g in arm[used]])
            extra["q_hat"] = np.full((used.sum(), 2), y[used, k].mean())
        score = predicted[used, a, k] - predicted[used, 0, k]
        wanted = in_convention(
            convention, row.metric, y[used, k], score, (arm[used] == a).astype(int), **extra
        )
        assert row.interval.estimate == pytest.approx(wanted, rel=1e-12)
        assert row.interval.low < row.interval.estimate < row.interval.high
        assert row.convention == f"{LIBRARIES[convention][0]} {row.metric}"
        assert (row.treated, row.control) == ((arm == a).sum(), (arm == 0).sum())
    assert rows_of(convention, default_metrics(convention), log) == table  # same seed


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """A score without any say in the outcome has a Qini of 0."""
    inside = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        arm = rng.integers(0, 2, 300)
        log = rng.random((300, 2, 1)), rng.normal(size=(300, 1)), arm, np.full(300, 0.5)
        (row,) = convention_rows(
            "upliftml", *log, arm_names=ARMS[:2], outcome_names=["y"], metrics=["qini"],
            confidence=0.9, seed=seed,
        )  # fmt: skip
        inside += row.interval.low <= 0 <= row.interval.high
    assert 31 <= inside <= 40  # of 36; four standard errors are 7.6


def test_varying_propensities_are_said() -> None:
    predicted, y, arm, _ = trial()
    varying = np.random.default_rng(1).uniform(0.2, 0.5, len(arm))
    (first, *_) = rows_of("causalml", ("qini",), (predicted, y, arm, varying))
    assert first.note == "knows no propensities, and they vary here"
    (first, *_) = rows_of("econml", ("qini",), (predicted, y, arm, varying))
    assert np.isnan(first.interval.estimate)
    assert "needs the probability of both arms" in first.note


def test_an_arm_that_nobody_got_is_undefined() -> None:
    predicted, y, arm, propensity = trial()
    table = rows_of("sklift", ("qini",), (predicted, y, np.minimum(arm, 1), propensity))
    assert [np.isnan(row.interval.estimate) for row in table] == [False, False, True, True]
    assert "0 of" in table[-1].note


def test_names_are_known_before_any_work() -> None:
    assert default_metrics("updraft") == DEFAULT_METRICS
    for convention in CONVENTIONS:
        require_metrics(convention, default_metrics(convention))
    with pytest.raises(DataError, match="no convention 'mine'"):
        require_metrics("mine", ())
    with pytest.raises(DataError, match="has no 'autoc'"):
        require_metrics("upliftml", ["autoc"])
    with pytest.raises(DataError, match="no metric 'gini'"):
        require_metrics("updraft", ["gini"])
