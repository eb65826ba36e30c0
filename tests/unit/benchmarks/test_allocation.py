"""The allocation benchmark: its solvers solve the same problem, and a broken claim is seen."""

from __future__ import annotations

import pytest

from benchmarks import allocation


@pytest.mark.parametrize("make", [allocation.world, allocation.with_more])
def test_the_solvers_agree_and_ours_lies_just_below(make):
    value, limits = make(2000, seed=3)
    best = allocation.highs(value, limits)["value"]
    found = allocation.portions(value, limits)
    assert found["value"] <= best + 1e-6
    assert found["value"] == pytest.approx(best, rel=2e-3)
    assert found["bound"] == pytest.approx(best, rel=1e-6)
    assert found["over"] <= 1e-9
    assert allocation.bare(value, limits)["value"] > best


def test_or_tools_solves_the_same_programme():
    pytest.importorskip("ortools", reason="OR-tools isn't installed")
    value, limits = allocation.with_more(200, seed=3)
    found = allocation.or_tools(value, limits)
    assert found["value"] == pytest.approx(allocation.highs(value, limits)["value"], rel=1e-6)


def test_a_broken_claim_is_seen():
    solver = {"method": "HiGHS", "value": 100.0}
    ours = {"method": "in portions", "value": 99.999, "gap": 1e-5, "over": 0.0}
    assert allocation.holds({"": [ours, solver]})
    for broken in ({"gap": 2e-4}, {"over": 0.1}, {"value": 99.9}):
        assert not allocation.holds({"": [ours | broken, solver]})
