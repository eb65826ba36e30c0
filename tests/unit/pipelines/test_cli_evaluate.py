"""``updraft evaluate``: what scores and saved models are worth on a log whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.worlds import world
from models.catalog import build
from models.dataset import fit_recipe
from models.metrics.ope_estimators import ESTIMATORS
from models.split import TEST, folds
from models.uplift_model import UpliftModel
from pipelines.cli import run

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "campaigns" / "game_bonus.yaml"
GAME = load_campaign(FILE)
WORLD = world("game_bonus")
ROWS = 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, the true values as scores, and the folder of a net that learned nothing."""
    place = tmp_path_factory.mktemp("evaluate")
    log = WORLD.log(ROWS, seed=4)
    log.to_parquet(place / "log.parquet")
    scores = pd.DataFrame({"decision_id": log["decision_id"], **true_values(log)})
    scores.sample(frac=1, random_state=0).to_parquet(place / "scores.parquet")
    frame = decision_frame(log, GAME, "log")
    recipe = fit_recipe(frame, GAME)
    config = {"width": 8}
    net = build("mtmt", recipe.shape, config, seed=1).eval()
    UpliftModel(
        "mtmt", config, recipe.shape, recipe.encoder, recipe.scaler, net, GAME
    ).save(place / "model")  # fmt: skip
    return place


def true_values(log: pd.DataFrame) -> dict[str, np.ndarray]:
    """Of each arm, net of its cost, in the budget's unit."""
    found = WORLD.truth(log)[:, :, [WORLD.outcomes.index(name) for name in GAME.outcomes]]
    value = (found - found[:, :1]) @ GAME.values - GAME.arm_table.costs
    return dict(zip(GAME.arm_table.names[1:], value.T[1:]))


@pytest.fixture(autouse=True)
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPDRAFT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)


def told(arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["evaluate", str(FILE), "--frame", "log.parquet", *arguments.split(), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def row(found: dict[str, Any], metric: str, arm: str, outcome: str) -> dict[str, Any]:
    (one,) = [
        each
        for each in found["metrics"]
        if (each["metric"], each["arm"], each["outcome"]) == (metric, arm, outcome)
    ]
    return one


def test_true_scores_are_seen_to_be_good(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "made" / "page.html"
    found = told(f"--scores scores.parquet --html {page}", capsys)
    assert (found["rows"], found["held_out"]) == (ROWS, False)
    assert "all 2,000 randomized rows" in found["notes"][0]
    for arm in ("coins", "skin"):
        assert row(found, "qini_perfect", arm, "plays_more_7d")["interval"]["low"] > 0
    assert found["policy_curve"]["aucc"]["low"] > 0.5
    assert len(found["calibration"]) == 4

    nobody, best, _, mine = found["policies"]
    assert mine["gain"]["low"] > 0
    assert mine["cost"] <= found["budget_per_unit"] + 1e-9
    assert "flatters" in best["warning"]
    assert nobody["gain"] is None
    by = {each["name"]: each for each in found["estimators"]}
    assert set(by) == set(ESTIMATORS)
    assert by["dr"]["value"] == mine["value"]
    assert "As far as the log can tell" in by["dm"]["warning"]

    html = page.read_text()
    assert "the scores rank" in html
    assert "held-out" not in html
    assert "MCMV-AUCC" in html
    assert "By other estimators" in html


def test_a_model_is_judged_on_units_that_it_never_saw(capsys: pytest.CaptureFixture[str]) -> None:
    found = told("--model model --metric autoc --metric lift@10", capsys)
    test = folds(pd.read_parquet("log.parquet")["player_id"], "game_bonus") == TEST
    assert (found["rows"], found["held_out"]) == (test.sum(), True)
    assert "units that no model of this campaign was trained on" in found["notes"][0]
    assert {each["metric"] for each in found["metrics"]} == {
        "autoc",
        "lift@10",
        "calibration_error",
    }
    assert found["judged"] == "mtmt in model"


def changed(name: str, change: Any) -> None:
    change(pd.read_parquet(name)).to_parquet(f"bad_{name}")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("scores", lambda t: t.drop(columns="skin"), "column 'skin' is missing"),
        ("scores", lambda t: t.assign(coins=np.nan), "'coins': 2000 of 2000 scores are no finite"),
        ("scores", lambda t: t.assign(coins="x"), "'coins': 2000 of 2000 scores are no finite"),
        ("scores", lambda t: t.assign(coins=1.0, skin=1.0), "a constant ranks nobody"),
        ("scores", lambda t: t[:10], "has no score for 1990 of 2000 decisions"),
        ("scores", lambda t: pd.concat([t, t[:1]]), "comes twice; score each once"),
        ("scores", lambda t: t[["coins", "skin"]][:10], "has 10 rows for 2000 decisions"),
        ("log", lambda t: t.drop(columns="games_7d"), "column 'games_7d' (features.numeric)"),
        ("log", lambda t: t[:10], "10 explored rows with complete outcomes"),
        ("log", lambda t: t[t["bonus"] == "none"], "every row was given arm 'none'"),
        ("log", lambda t: t.assign(propensity=0.0), "it is the probability of the arm"),
        ("log", lambda t: t[:0], "has no rows"),
    ],
)
def test_bad_tables_are_one_sentence(
    name: str, change: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(f"{name}.parquet", change)
    tables = {"log": "log.parquet", "scores": "scores.parquet"} | {name: f"bad_{name}.parquet"}
    command = ["evaluate", str(FILE), "--frame", tables["log"], "--scores", tables["scores"]]
    assert run(command) == 3
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--scores scores.parquet --model model", 2, "--scores, --model: name one of the two"),
        ("--model ./model --worth", 2, "--worth: says what scores are"),
        ("--scores scores.parquet --metric gini", 3, "there is no metric 'gini'"),
        ("--scores scores.parquet --convention mine", 3, "there is no convention 'mine'"),
        ("--scores scores.parquet --convention econml --metric auuc", 3, "has no 'auuc'"),
        ("--model ./nowhere", 3, "./nowhere: is no folder of a saved model"),
        ("--model ./log.parquet", 3, "is no folder of a saved model"),
        ("--scores nowhere.parquet", 3, "nowhere.parquet: is missing"),
        ("--frame nowhere.parquet --scores scores.parquet", 3, "nowhere.parquet: is missing"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(FILE), "--frame", "log.parquet", *arguments.split()]
    assert run(command) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.splitlines()) == 1


def test_a_model_of_another_campaign_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(
        FILE.read_text().replace("name: game_bonus", "name: mine", 1)
    )
    command = [
        "evaluate",
        str(tmp_path / "mine.yaml"),
        "--frame",
        "log.parquet",
        "--model",
        "model",
    ]
    assert run(command) == 3
    assert "was trained for campaign game_bonus" in capsys.readouterr().err


def test_people_get_tables_and_a_budget_of_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FILE.read_text()
    amount = f"amount: {GAME.budget.amount}"
    assert amount in text
    (tmp_path / "poor.yaml").write_text(text.replace(amount, "amount: 0"))
    command = ["evaluate", str(tmp_path / "poor.yaml"), "--frame", "log.parquet"]
    assert run([*command, "--scores", "scores.parquet", "--convention", "sklift"]) == 0
    shown = capsys.readouterr().out
    for words in ("qini", "treat nobody", "switch_dr", "within 0.000 per unit", "The budget is 0"):
        assert words in shown
