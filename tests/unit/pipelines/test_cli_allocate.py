"""``updraft allocate``: decisions on a unit table within a budget and other limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import value_and_cost
from campaigns.settings import Settings
from campaigns.worlds import world
from models.catalog import build
from models.dataset import fit_recipe
from models.uplift_model import UpliftModel
from pipelines.cli import run
from serving.events import EventStore
from serving.policy.allocation import allocate
from serving.policy.exploration import held_out

FILE = Path(__file__).resolve().parents[3] / "campaigns" / "game_bonus.yaml"
UNITS = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A unit table, a net, and a campaign whose outcomes are worth more than when it was made."""
    place = tmp_path_factory.mktemp("allocate")
    trained = load_campaign(FILE)
    frame = decision_frame(world("game_bonus").log(500, seed=5), trained, "log")
    recipe = fit_recipe(frame, trained)
    net = build("s_learner", recipe.shape, {}, seed=1).eval()
    UpliftModel(
        "s_learner", {}, recipe.shape, recipe.encoder, recipe.scaler, net, trained
    ).save(place / "model")  # fmt: skip
    world("game_bonus").units(UNITS, seed=9).to_parquet(place / "units.parquet")
    text = FILE.read_text().replace("value: 1.0", "value: 100").replace("value: 2.0", "value: 200")
    (place / "rich.yaml").write_text(text)
    return place


@pytest.fixture(autouse=True)
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPDRAFT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)


def command(arguments: str = "", out: str = "decisions.parquet") -> list[str]:
    words = f"allocate rich.yaml --units units.parquet --model ./model --out {out} {arguments}"
    return words.split()


def told(arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run([*command(arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def limits(text: str) -> None:
    Path("limits.yaml").write_text(f"limits:\n  - {text}\n")


def test_a_page_shows_arms_and_limits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    limits("{kind: stock, arm: coins, at_most: 40}")
    found = told(f"--budget 60 --limits limits.yaml --html {page}", capsys)
    text = page.read_text()
    assert found["html"] == str(page)
    for arm, count in found["arms"].items():
        share = 100 * count / UNITS
        assert f'<td>{arm}</td><td class="n">{count:,}</td><td class="n">{share:.1f}</td>' in text
    for name, each in found["limits"].items():
        assert f"<td>{name}</td>" in text
        assert f"{each['price']:.4f}" in text
    assert "nothing is logged" in text
    assert "http" not in text  # it fetches nothing


def test_a_page_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command("--budget 60 --html units.parquet/plan.html")) == 5
    assert "units.parquet" in capsys.readouterr().err


def test_a_plan_is_the_best_within_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    found = told("--budget 60", capsys)
    units, made = pd.read_parquet("units.parquet"), pd.read_parquet("decisions.parquet")
    campaign = load_campaign("rich.yaml")
    value, cost = value_and_cost(UpliftModel.load(Path("model")).predict(units), campaign)
    rules = campaign.exploration
    held = held_out(units["player_id"], salt=rules.salt, holdout=rules.holdout)
    eligible = ~held[:, None] | (np.arange(3) == 0)
    best = allocate(value, cost, 60.0, min_return=1.0, eligible=eligible)

    assert list(made["unit_id"]) == list(units["player_id"])
    rows = np.arange(UNITS), made["arm"]
    assert made["value"].to_numpy() == pytest.approx(value[rows])
    assert made["cost"].to_numpy() == pytest.approx(cost[rows])
    assert (made["arm"][held] == 0).all()
    assert found["held_out"] == held.sum() == made["holdout"].sum() > 0
    assert found["cost"] == pytest.approx(made["cost"].sum())
    assert found["cost"] <= 60 + 1e-9
    assert found["value"] == pytest.approx(made["value"].sum())
    assert found["objective"] == pytest.approx(found["value"] - found["cost"])
    assert 0 <= found["gap"] < 0.01  # about one unit of 200
    assert found["objective"] >= best.value * (1 - 1e-9)
    assert found["upper_bound"] <= best.upper_bound * (1 + 1e-6)
    assert found["limits"]["budget"]["price"] == pytest.approx(best.price - 1.0, rel=1e-3)
    assert sum(found["arms"].values()) == UNITS
    assert not found["recorded"]
    assert not Path(Settings().root / "events").exists()


def test_the_price_is_what_one_more_unit_of_budget_brings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    less, more = (told(f"--budget {amount}", capsys) for amount in (60, 63))
    gained = (more["upper_bound"] - less["upper_bound"]) / 3  # where units may be split
    prices = [found["limits"]["budget"]["price"] for found in (less, more)]
    assert prices[1] * (1 - 1e-6) <= gained <= prices[0] * (1 + 1e-6)


def test_every_kind_of_limit_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("limits.yaml").write_text(
        "limits:\n"
        "  - {kind: stock, arm: coins, at_most: 40}\n"
        "  - {kind: budget, name: pcs, amount: 3, where: {device: pc}}\n"
        "  - {kind: share, at_least: 0.4, where: {region: [asia, latam]}}\n"
        "  - {kind: guardrail, outcome: plays_more_7d, at_most: 0}\n"
    )
    free = told("--budget 60", capsys)
    found = told("--budget 60 --limits limits.yaml", capsys)
    units, made = pd.read_parquet("units.parquet"), pd.read_parquet("decisions.parquet")
    assert (made["arm_name"] == "coins").sum() <= 40
    assert made["cost"][units["device"] == "pc"].sum() <= 3 + 1e-9
    eastern = units["region"].isin(["asia", "latam"])
    assert (made["arm"][eastern] > 0).mean() >= 0.4
    assert list(found["limits"])[:3] == ["budget", "stock of coins", "pcs"]
    assert found["limits"]["pcs"]["at_most"] == 3
    assert found["objective"] <= free["objective"] + 1e-6


def test_people_get_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command("--budget 60", out="made/decisions.csv")) == 0
    shown = capsys.readouterr().out
    assert "400 units" in shown
    assert "budget: " in shown
    assert "of at most 60.00; one more would bring" in shown
    assert len(pd.read_csv("made/decisions.csv")) == UNITS


def test_what_is_recorded_is_logged_and_charged_once(capsys: pytest.CaptureFixture[str]) -> None:
    first = told("--record --request monday --budget 60", capsys)
    made = pd.read_parquet("decisions.parquet")
    assert first["recorded"]
    assert first["cost"] == pytest.approx(made["cost"].sum())
    assert first["cost"] <= 60 + 1e-9
    assert first["explored"] == made["explored"].sum() > 0
    assert made["propensity"].between(0, 1, inclusive="right").all()
    assert first["value"] == pytest.approx(made["value"].sum())
    again = told("--record --request monday --budget 60", capsys)
    assert again["repeated"]
    assert again["value"] is None  # no NaN in JSON
    assert list(pd.read_parquet("decisions.parquet")["decision_id"]) == list(made["decision_id"])
    store = EventStore(Settings().event_store_url)
    (period,) = store.summary("game_bonus")
    store.close()
    assert period.decisions == UNITS
    assert period.spend == pytest.approx(first["cost"])


def test_ten_units_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    pd.read_parquet("units.parquet")[:10].to_parquet("ten.parquet")
    words = [each.replace("units.parquet", "ten.parquet") for each in command("--budget 1")]
    assert run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["units"] == 10
    assert found["cost"] <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="games_7d"), "unit table: 'games_7d' missing"),
        (lambda t: t.drop(columns="player_id"), "unit table: 'player_id' missing"),
        (lambda t: t.assign(games_7d="many"), "column 'games_7d' holds no numbers"),
        (lambda t: pd.concat([t, t[:1]]), "comes twice"),
        (lambda t: t.assign(player_id=None), "400 rows have no player_id"),
        (lambda t: t[:0], "has no rows"),
    ],
)
def test_bad_tables_are_one_sentence(
    change: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(pd.read_parquet("units.parquet")).to_parquet("bad.parquet")
    assert run([each.replace("units.parquet", "bad.parquet") for each in command()]) == 3
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--budget 0", 2, "budget: is 0, and every arm costs something"),
        ("--units nowhere.csv", 3, "nowhere.csv: is missing"),
        ("--model ./nowhere", 3, "./nowhere: is no folder of a saved model"),
        ("--limits nowhere.yaml", 2, "nowhere.yaml: can't be read"),
        ("--request monday", 2, "--request: names what is recorded"),
        ("--out decisions", 2, "--out: 'decisions' is no table"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(arguments)) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (
            "{kind: stock, arm: gold, at_most: 1}",
            2,
            "limits.0.arm: 'gold' is no treated arm; choose from 'coins' or 'skin'",
        ),
        ("{kind: stock, arm: coins}", 2, "limits.0.at_most: is missing"),
        ("{kind: stock, arm: coins, most: 1, at_most: 1}", 2, "limits.0.most: unknown key"),
        ("{kind: stack, arm: coins}", 2, "limits.0.kind: 'stack' is not allowed"),
        ("{kind: share, at_least: 2}", 2, "limits.0.at_least: input should be less than or equal"),
        (
            "{kind: guardrail, outcome: x, at_most: 1}",
            2,
            "'x' is no outcome; choose from 'login_next",
        ),
        ("{kind: budget, name: a, amount: 1, where: {land: x}}", 2, "has no column 'land'"),
        (
            "{kind: budget, name: a, amount: 1, where: {region: x}}",
            2,
            "limits.0.where: fits none of 400",
        ),
        ("{kind: budget, name: budget, amount: 1, where: {}}", 2, "'budget' comes twice"),
        ("{kind: share, at_least: 1}", 2, "1 can't be: a holdout of 0.01 leaves 0.99"),
        ("kind: [", 2, "is not valid YAML"),
    ],
)
def test_bad_limits_are_one_sentence(
    text: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    limits(text)
    assert run(command("--limits limits.yaml")) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.splitlines()) == 1


def test_limits_that_the_budget_cannot_pay_are_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    limits("{kind: share, at_least: 0.9}")
    for how in ("", "--record"):
        assert run(command(f"--budget 10 --limits limits.yaml {how}")) == 3
        shown = capsys.readouterr().err
        assert "share of everybody with a treatment" in shown
        assert len(shown.splitlines()) == 1


def test_what_is_recorded_keeps_to_the_campaigns_limits(capsys: pytest.CaptureFixture[str]) -> None:
    rules = """
limits:
  - {kind: eligibility, arms: [skin], where: {device: [ios, android]}}
  - {kind: stock, arm: skin, at_most: 40, per: total}
  - {kind: budget, name: asians, amount: 9, where: {region: asia}}
  - {kind: share, at_least: 0.5, where: {region: latam}}
"""
    Path("limited.yaml").write_text(Path("rich.yaml").read_text() + rules)
    units = pd.read_parquet("units.parquet")
    words = [each.replace("rich.yaml", "limited.yaml") for each in command("--record --json")]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    made = pd.read_parquet("decisions.parquet")
    skins = made["arm_name"] == "skin"
    assert 0 < skins.sum() <= 40
    assert not skins[~units["device"].isin(["ios", "android"])].any()
    assert made["cost"][units["region"] == "asia"].sum() <= 9 + 1e-9
    assert (made["arm"][units["region"] == "latam"] > 0).mean() >= 0.5
    assert found["limits"]["stock of skin"]["uses"] == skins.sum()
    assert found["explored"] > 0
    # the next batch has what the first one left: none of a stock for ever
    assert run(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert skins.sum() + (pd.read_parquet("decisions.parquet")["arm_name"] == "skin").sum() <= 40
    assert again["limits"]["stock of skin"]["at_most"] == 40 - skins.sum()


def test_a_file_without_limits_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    Path("limits.yaml").write_text("- {kind: stock}\n")
    assert run(command("--limits limits.yaml")) == 2
    assert "starts with 'limits:'" in capsys.readouterr().err
