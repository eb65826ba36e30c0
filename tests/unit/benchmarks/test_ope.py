"""The benchmark of off-policy values: its policies are policies, and real logs agree with each other."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from benchmarks.ope import PAIRS, BanditLog, mean_policy, measure, read, show
from campaigns.errors import EnvironmentProblem
from models.metrics.ope_estimators import ESTIMATORS


def shop(rows: int, bts: bool, seed: int) -> BanditLog:
    """Four items that are clicked 10, 20, 30 and 40 times in 100; bts shows the last most."""
    rng = np.random.default_rng(seed)
    chance = np.array([0.1, 0.1, 0.2, 0.6]) if bts else np.full(4, 0.25)
    item = rng.choice(4, rows, p=chance)
    position = rng.integers(0, 3, rows)
    click = (rng.random(rows) < 0.1 * (1 + item)).astype(float)
    return BanditLog(click, item, chance[item], position, np.eye(3)[position])


def test_each_log_tells_what_the_other_earned():
    logs = {"random": shop(6000, False, 1), "bts": shop(6000, True, 2)}
    results = [measure(policy, source, logs, 0) for policy, source in PAIRS]
    for result, truth in zip(results, (0.33, 0.25)):
        assert result["own_mean"]["estimate"] == pytest.approx(truth, abs=0.02)
        assert set(result["estimates"]) == set(ESTIMATORS)
        for found in result["estimates"].values():
            assert found["estimate"] == pytest.approx(truth, abs=0.03)
            assert abs(found["errors_apart"]) < 3
    chosen = mean_policy("bts", logs, logs["random"].position)
    assert chosen == pytest.approx(np.tile([0.1, 0.1, 0.2, 0.6], (6000, 1)), abs=0.04)
    assert chosen.sum(axis=1) == pytest.approx(1.0)
    console = Console(file=io.StringIO(), width=120)
    show({"machine": "here", "results": results}, console)
    assert console.file.getvalue().count("switch_dr") == 2


def test_a_missing_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("UPDRAFT_SHARED_DATA", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="UPDRAFT_SHARED_DATA"):
        read("bts")


@pytest.mark.slow
def test_open_bandit_each_policy_s_log_tells_what_the_other_earned(shared_data, monkeypatch):
    """The estimate and the own mean differ by no more than their errors allow, for all but the model."""
    if not (shared_data / "obd").is_dir():
        pytest.skip("no folder obd among the real datasets")
    monkeypatch.setenv("UPDRAFT_SHARED_DATA", str(shared_data))
    logs = {name: read(name) for name in ("random", "bts")}
    assert (logs["random"].click.mean(), logs["bts"].click.mean()) == (0.0046, 0.0069)
    for policy, source in PAIRS:
        found = measure(policy, source, logs, 0)["estimates"]
        for name in ESTIMATORS:
            if name != "dm":
                assert abs(found[name]["errors_apart"]) < 2, (policy, name)
                assert found[name]["warning"] is None
            assert found[name]["effective_rows"] > 500
        assert "interval leaves out" in found["dm"]["warning"]
        assert found["dr"]["high"] - found["dr"]["low"] < 0.006
