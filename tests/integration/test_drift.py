"""Drift: found where there is some, not where there is none, whatever the columns hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import DataError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.spec import Campaign
from campaigns.worlds import world
from models.checks.drift import compare, drift_report

pytestmark = pytest.mark.slow  # Evidently takes seconds to import

GAME = load_campaign(Path(__file__).parents[2] / "campaigns" / "game_bonus.yaml")


def game(day: int, drift: float = 0.02, rows: int = 5000, seed: int = 1) -> pd.DataFrame:
    log = world("game_bonus", covariate_drift=drift).log(rows, seed=seed, days=7, first_day=day)
    return decision_frame(log, GAME, "world")


def small(method: str = "psi") -> Campaign:
    return Campaign.model_validate(
        {
            "name": "small",
            "unit": "user",
            "source": {"kind": "events"},
            "timestamp": "at",
            "features": {"numeric": ["x"], "categorical": ["c"]},
            "treatments": {"mail": {"column": "m", "control": "no", "levels": ["no", "yes"]}},
            "outcomes": {"visit": {"kind": "binary", "value": 1.0}},
            "budget": {"amount": 10.0},
            "drift": {"features": method, "threshold": 0.2 if method != "ks" else 0.001},
        }
    )


def table(x: object, c: object) -> pd.DataFrame:
    frame = pd.DataFrame({"x": x, "c": c})
    frame["decided_at"] = pd.date_range("2026-01-01", periods=len(frame), freq="min", tz="UTC")
    return frame.assign(visit=1.0)


def scores(reference: pd.DataFrame, current: pd.DataFrame, method: str = "psi") -> dict:
    return asdict(compare(reference, current, small(method))[1])


def test_the_world_drifts_only_when_it_does(tmp_path: Path) -> None:
    still = drift_report(game(0, 0.0), game(28, 0.0, seed=2), GAME, tmp_path / "still.html")
    moved = drift_report(game(0), game(60, seed=2), GAME, tmp_path / "deep" / "moved.html")
    assert (still.drifted, still.drifted_features) == (False, [])
    assert moved.drifted
    assert {"games_7d", "device"} <= set(moved.drifted_features)
    assert "region" not in moved.drifted_features
    assert "the data has drifted" in moved.summary
    assert moved.outcomes["login_next_day"][1] < moved.outcomes["login_next_day"][0]
    assert json.loads(json.dumps(asdict(moved)))["columns"]["device"] == moved.columns["device"]
    html = (tmp_path / "deep" / "moved.html").read_text()
    assert "games_7d" in html
    assert len(html) < 8_000_000


def test_the_same_seed_draws_the_same_rows() -> None:
    one, other = (compare(game(0), game(60), GAME, max_rows=500, seed=3)[1] for _ in range(2))
    assert one.rows == (500, 500)
    assert one.columns == other.columns


@pytest.mark.parametrize("method", ["psi", "wasserstein", "ks", "jensenshannon", "kl_div"])
def test_every_method_takes_numbers_and_categories(method: str) -> None:
    rng = np.random.default_rng(0)
    base = table(rng.normal(size=900), rng.choice(list("abc"), 900))
    same = table(rng.normal(size=900), rng.choice(list("abc"), 900))
    other = table(rng.normal(1, 1, 900), rng.choice(list("acc"), 900))
    assert scores(base, same, method)["drifted_features"] == []
    assert scores(base, other, method)["drifted_features"] == ["x", "c"]


@pytest.mark.parametrize("method", ["psi", "ks"])
def test_columns_without_variation_or_values(method: str) -> None:
    base = table([1.0] * 300, ["a"] * 300)
    assert scores(base, base, method)["drifted_features"] == []
    empty = table([np.nan] * 300, [None] * 300)
    assert scores(empty, empty, method)["drifted_features"] == []
    gone = scores(base, empty, method)
    assert gone["drifted_features"] == ["x", "c"]
    assert "x is missing" in gone["columns"]
    assert "x" not in gone["columns"]


def test_more_missing_numbers_are_drift() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=900)
    often = np.where(rng.random(900) < 0.4, np.nan, x)
    verdict = scores(table(x, "a"), table(often, "a"))
    assert verdict["drifted_features"] == ["x"]
    assert verdict["columns"]["x"] < 0.2 < verdict["columns"]["x is missing"]


def test_a_new_category_is_drift() -> None:
    x = np.linspace(0, 1, 400)
    verdict = scores(table(x, ["a", "b"] * 200), table(x, ["a", "new"] * 200))
    assert verdict["drifted_features"] == ["c"]
    assert verdict["drifted"]  # half of the features


def test_a_handful_of_rows_never_says_drift() -> None:
    base = table(np.linspace(0, 1, 400), ["a", "b"] * 200)
    verdict = compare(base, base.iloc[-1:], small())[1]
    assert not verdict.drifted
    assert "only 1 rows" in verdict.summary
    with pytest.raises(DataError, match="current frame has no rows"):
        compare(base, base.iloc[:0], small())
    with pytest.raises(DataError, match="no column 'c'"):
        compare(base, base.drop(columns="c"), small())


def test_runs_gather_in_the_workspace_that_evidently_ui_shows(tmp_path: Path) -> None:
    for day in (7, 60):
        drift_report(game(0), game(day), GAME, tmp_path / "d.html", workspace=tmp_path / "ui")
    from evidently.ui.workspace import Workspace

    workspace = Workspace.create(str(tmp_path / "ui"))
    (project,) = workspace.list_projects()
    assert project.name == "game_bonus"
    assert len(workspace.list_runs(project.id)) == 2
    assert len(project.dashboard.model().panels) == 2
