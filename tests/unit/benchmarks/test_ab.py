"""The A/B benchmark: buckets by hash, budgets kept in each, and a read-out that agrees with the truth."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from benchmarks.ab import (
    CAMPAIGN,
    POLICIES,
    RANDOM,
    TERMS,
    by_lot,
    by_model,
    players,
    read_out,
    show,
)
from campaigns.loading import load_campaign
from campaigns.worlds import world

UNITS, BUDGET = 20_000, 0.08
WORLD, CAMPAIGN_OF = world("game_bonus"), load_campaign(CAMPAIGN)


class Knowing:
    """A model that answers the truth."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth

    def predict(self, units: object) -> np.ndarray:
        return self.truth


@pytest.fixture(scope="module")
def trial():
    return players(WORLD, CAMPAIGN_OF, UNITS, BUDGET, 1)


@pytest.fixture(scope="module")
def found(trial):
    best = by_model(Knowing(trial.truth), trial, CAMPAIGN_OF)
    nobody = np.zeros(UNITS, dtype=np.int64)
    arms = dict(zip(POLICIES, (by_lot(trial, CAMPAIGN_OF, 1), nobody, best, best)))
    return read_out(trial, arms, WORLD, CAMPAIGN_OF, 1)


def test_a_player_s_bucket_depends_on_the_player_alone(trial):
    fewer = players(WORLD, CAMPAIGN_OF, 500, BUDGET, 1)
    assert (fewer.bucket == trial.bucket[:500]).all()
    assert np.bincount(trial.bucket) == pytest.approx([UNITS / 4] * 4, rel=0.05)
    assert np.isfinite(trial.covariates).all()


def test_no_bucket_spends_more_than_its_budget(trial):
    costs = CAMPAIGN_OF.arm_table.costs
    for arms in (
        by_lot(trial, CAMPAIGN_OF, 1),
        by_model(Knowing(trial.truth), trial, CAMPAIGN_OF),
    ):
        spent = np.bincount(trial.bucket, costs[arms])
        assert (spent <= BUDGET * np.bincount(trial.bucket) * (1 + 1e-9)).all()
        assert (spent > 0.98 * BUDGET * np.bincount(trial.bucket)).all()


def test_the_read_out_holds_the_truth(found):
    assert found["sample_ratio"] > 0.001
    _, nobody, best, same = (found["read_out"][name] for name in POLICIES)
    for outcome in TERMS:
        assert best[outcome]["truth"] == same[outcome]["truth"] > 0 > nobody[outcome]["truth"]
        for one in (nobody, best, same):
            told = one[outcome]
            half = (told["high"] - told["low"]) / 2
            assert told["low"] < told["estimate"] < told["high"]
            assert abs(told["estimate"] - told["truth"]) < 2 * half  # four standard errors
    assert nobody["cost"] == 0.0
    assert best["cost"] <= BUDGET


def test_the_table_counts_the_tests_that_show_a_gain(found):
    console = Console(file=io.StringIO(), width=140)
    report = {"machine": "here", "units": UNITS, "results": [{"seed": 1, **found}] * 2}
    show(report, console)
    lines = {
        line.split("│")[1].strip(): line
        for line in console.file.getvalue().splitlines()
        if "│" in line
    }
    assert set(lines) == set(POLICIES)
    assert "0 of 2" in lines[POLICIES[1]]
    assert "2 of 2" in lines[POLICIES[2]]
    assert RANDOM in lines
