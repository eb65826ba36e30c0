"""The table of arms x outcomes x metrics."""

import numpy as np
import pytest

from campaigns.errors import DataError
from models.metrics import evaluate, uplift_table

ARMS, OUTCOMES = ["none", "coins", "skin"], ["login", "spend"]


@pytest.fixture
def world():
    """Arm 1 works for those with high x, arm 2 harms everyone; given with unequal propensities."""
    rng = np.random.default_rng(0)
    rows = 6000
    x = rng.random(rows)
    chance = np.stack([0.2 + 0.3 * x, 0.5 - 0.2 * x, 0.3 - 0.1 * x], axis=1)
    arm = (rng.random((rows, 1)) > chance.cumsum(axis=1)).sum(axis=1)
    rate = np.stack([0.3 + 0 * x, 0.3 + 0.4 * x, 0.2 + 0 * x], axis=1)
    login = rng.random(rows) < rate[np.arange(rows), arm]
    spend = rng.exponential(1 + rate[np.arange(rows), arm])
    outcomes = np.stack([rate, 1 + rate], axis=2)
    return outcomes, np.stack([login, spend], axis=1), arm, chance[np.arange(rows), arm]


def test_one_row_for_each_arm_outcome_and_metric(world) -> None:
    table = uplift_table(
        *world,
        arm_names=ARMS,
        outcome_names=OUTCOMES,
        metrics=["ate", "auuc", "lift@30"],
        replicates=100,
    )
    assert len(table) == 2 * 2 * 3
    by = {(row.arm, row.outcome, row.metric): row for row in table}
    assert 0.2 in by["coins", "login", "ate"].interval
    assert -0.1 in by["skin", "login", "ate"].interval
    assert 0.34 in by["coins", "login", "lift@30"].interval  # 0.4 times the mean of x above 0.7
    assert by["skin", "login", "auuc"].interval.high < 0
    assert all(row.interval.low < row.interval.estimate < row.interval.high for row in table)
    assert by["coins", "spend", "ate"].treated == (world[2] == 1).sum()
    assert by["coins", "spend", "ate"].convention == "mean treated - mean control"


def test_a_cell_is_the_metric_on_the_rows_of_that_arm_and_control(world) -> None:
    outcomes, y, arm, propensity = world
    y = y.astype(float)
    y[::3, 1] = np.nan
    table = uplift_table(
        outcomes, y, arm, propensity, arm_names=ARMS, outcome_names=OUTCOMES, replicates=0
    )
    used = (arm != 1) & ~np.isnan(y[:, 1])
    expected = evaluate(
        ["auuc"],
        y[used, 1],
        (outcomes[:, 2, 1] - outcomes[:, 0, 1])[used],
        arm[used] == 2,
        propensity=propensity[used],
    )["auuc"]
    row = next(r for r in table if (r.arm, r.outcome, r.metric) == ("skin", "spend", "auuc"))
    assert row.interval.estimate == pytest.approx(expected)
    assert np.isnan(row.interval.low)
    assert row.treated + row.control == used.sum()


def test_what_cannot_be_said_is_noted_and_the_rest_is_there(world) -> None:
    outcomes, y, arm, propensity = world
    arm = np.where(arm == 2, 1, arm)
    table = uplift_table(
        outcomes,
        y,
        arm,
        propensity,
        arm_names=ARMS,
        outcome_names=OUTCOMES,
        metrics=["auuc_perfect", "auuc"],
        replicates=20,
    )
    notes = {(row.arm, row.outcome, row.metric): row.note for row in table}
    assert notes["coins", "login", "auuc_perfect"] == ""
    assert notes["coins", "spend", "auuc_perfect"] == "needs outcomes of 0 and 1"
    assert notes["coins", "spend", "auuc"] == ""
    assert "0 treated" in notes["skin", "login", "auuc"]


def test_shapes_are_checked(world) -> None:
    outcomes, y, arm, propensity = world
    names = {"arm_names": ARMS, "outcome_names": OUTCOMES}
    with pytest.raises(DataError, match=r"outcomes has shape .* it must be \[at least 1, 3, 2\]"):
        uplift_table(outcomes[:, :2], y, arm, propensity, **names)
    with pytest.raises(DataError, match="arm runs from 3 to 5"):
        uplift_table(outcomes, y, arm + 3, propensity, **names)
    with pytest.raises(DataError, match=r"y has shape"):
        uplift_table(outcomes, y[:, 0], arm, propensity, **names)
