"""The flywheel: budgets are kept, sums add up, nobody beats the oracle, and a seed gives its numbers again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks.flywheel import (
    GATED,
    LOOP,
    POLICIES,
    TRIAL_DAYS,
    Setting,
    contest,
    loop_decisions,
    run,
)
from benchmarks.flywheel_report import figure, series, show, totals
from benchmarks.flywheel_world import account, best_possible, by_lot, logged, players
from benchmarks.models.decisions import fit_model
from campaigns.frame import decision_frame
from campaigns.spec import Campaign
from campaigns.worlds import World, world

SMALL = Setting(cycles=2, units=1000, trial=1500, epsilon=0.2, explore_spend=0.5)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weeks() -> list[dict]:
    return run(SMALL, 3)


@pytest.fixture
def campaign() -> Campaign:
    return SMALL.campaign()


@pytest.fixture
def drifting() -> World:
    return world("game_bonus", effect_drift=0.02)


def test_no_policy_spends_more_than_the_budget(weeks):
    for week in weeks:
        assert set(week["policies"]) == set(POLICIES)
        for name, found in week["policies"].items():
            assert found["budget"] == pytest.approx(SMALL.units * 350 * 28 / 120_000)
            assert found["cost"] <= found["budget"] * (1 + 1e-9), name
        for name, told in week["loops"].items():
            assert 0 < told["explored_cost"] <= week["policies"][name]["cost"], name


def test_nobody_beats_the_oracle_in_expectation(weeks):
    for week in weeks:
        best = week["policies"]["oracle"]["net"]
        dearest = 0.55  # what an allocation may lose: less than one step of one unit
        for name, found in week["policies"].items():
            assert found["net"] <= best + 3 * dearest, name
        assert week["policies"]["random"]["net"] < best


def test_the_oracle_is_the_best_of_all_allocations(drifting, campaign):
    """Of five players: every one of the 3^5 ways to treat them."""
    week = players(drifting, campaign, 5, 60, 1)
    ways = np.stack(np.meshgrid(*[range(3)] * 5), axis=-1).reshape(-1, 5)
    found = [account(way, week) for way in ways]
    best = max(one["net"] for one in found if one["cost"] <= week.budget)
    assert account(best_possible(week, campaign), week)["net"] == pytest.approx(best)


def test_accounts_are_the_truth_of_the_arms_that_were_given(drifting, campaign):
    week = players(drifting, campaign, SMALL.units, 50, 2)
    arm = by_lot(np.full(3, 1 / 3), week, 2)
    truth = drifting.truth(week.units, day=50)
    value = sum(
        1.0 * (truth[i, a, 0] - truth[i, 0, 0]) + 2.0 * (truth[i, a, 1] - truth[i, 0, 1])
        for i, a in enumerate(arm)
    )
    cost = sum((0.0, 0.30, 0.55)[a] for a in arm)
    assert account(arm, week) == pytest.approx(
        {"value": value, "cost": cost, "net": value - cost, "budget": week.budget}
    )


def test_the_log_has_the_propensities_and_outcomes_of_what_was_decided(drifting, campaign):
    setting = Setting(units=6000, epsilon=0.2, explore_spend=1.0)
    week = players(drifting, setting.campaign(), setting.units, TRIAL_DAYS, 4)
    drawn = loop_decisions(None, week, setting.campaign())
    frame = decision_frame(logged(drawn, week, drifting, 4), campaign, "the log")
    explored, held = frame["explored"].to_numpy(), frame["holdout"].to_numpy()
    assert explored.mean() == pytest.approx(0.2, abs=0.02)
    assert held.mean() == pytest.approx(0.01, abs=0.005)
    assert (frame["arm"][held] == 0).all()
    assert not (explored & held).any()
    # without a champion the greedy arm is control: 1 - eps + eps / 3, and eps / 3 for the others
    told = np.where(frame["arm"] == 0, 0.8 + 0.2 / 3, 0.2 / 3)
    assert frame["propensity"][~held].to_numpy() == pytest.approx(told[~held])
    assert (frame["explored_propensity"][explored] == 1 / 3).all()
    truth = drifting.truth(week.units, day=TRIAL_DAYS)[np.arange(6000), drawn.arm]
    outcomes = frame[list(campaign.outcomes)].to_numpy()
    assert outcomes.mean(axis=0) == pytest.approx(truth[:, :2].mean(axis=0), abs=0.03)


def test_a_challenger_that_shows_no_gain_does_not_decide(drifting, campaign):
    frame = decision_frame(drifting.log(1500, seed=5), campaign, "the trial")
    model = fit_model(frame, campaign, SMALL.model, seed=0)
    promote, reason = contest(model, model, frame, campaign, 1)
    assert not promote
    assert "just what the champion earns" in reason
    harmless = campaign.gate.model_copy(update={"min_gain": -10.0})
    promote, reason = contest(model, None, frame, campaign.model_copy(update={"gate": harmless}), 1)
    assert promote
    assert "treating nobody" in reason


def test_only_the_gated_loop_asks_the_gate(weeks):
    for week in weeks:
        assert week["loops"][LOOP]["promoted"]
        assert (
            "held-out" in week["loops"][GATED]["reason"] or "gain" in week["loops"][GATED]["reason"]
        )
    # until a model has been replaced both loops are one
    assert weeks[0]["policies"][LOOP] == weeks[0]["policies"][GATED]


def test_the_same_seed_gives_the_same_numbers(weeks):
    assert run(replace(SMALL, cycles=1), 3) == weeks[:1]


def test_totals_add_up_and_are_shown(weeks, tmp_path):
    report = {
        "machine": "here",
        "setting": {"cycles": 2, "units": 1000},
        "results": [{"seed": 3, "weeks": weeks}] * 2,
    }
    for name in POLICIES:
        found = totals(report, name)
        net = sum(week["policies"][name]["net"] for week in weeks)
        best = sum(week["policies"]["oracle"]["net"] for week in weeks)
        assert found["net"] == pytest.approx([net, net])
        assert found["regret"] == pytest.approx([best - net] * 2)
        assert found["share"] == pytest.approx([net / best] * 2)
        assert (found["used"] <= 1 + 1e-9).all()
        value, cost = (series(report, name, each) for each in ("value", "cost"))
        assert series(report, name, "net") == pytest.approx(value - cost)
    console = Console(file=io.StringIO(), width=120)
    show(report, console)
    assert "trained once" in console.file.getvalue()
    figure(report, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size < 150_000
