"""``updraft experiment``: planned, assigned and read on a world whose truth is known."""

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
from models.uplift_model import UpliftModel
from pipelines.cli import run

FILE = Path(__file__).resolve().parents[3] / "campaigns" / "game_bonus.yaml"
WORLD, UNITS = world("game_bonus"), 6000
VARIANTS = """\
name: policies
start: 2026-01-01
units: 6000
reference: nobody
variants:
  nobody: {share: 0.3, policy: nobody}
  random: {share: 0.2, policy: random}
  best: {share: 0.3, policy: best_arm}
  net: {share: 0.2, policy: model, model: ./model}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign on a log, a unit table, a net that learned nothing, and an experiment."""
    place = tmp_path_factory.mktemp("experiment")
    text = FILE.read_text()
    source = "source: {kind: simulator, world: game_bonus, rows: 120000, days: 28, seed: 7}"
    assert source in text
    (place / "mine.yaml").write_text(
        text.replace(source, "source: {kind: parquet, path: log.parquet}")
    )
    campaign, log = load_campaign(FILE), WORLD.log(3000, seed=5)
    log.to_parquet(place / "log.parquet")
    recipe = fit_recipe(decision_frame(log, campaign, "log"), campaign)
    net = build("s_learner", recipe.shape, {}, seed=1).eval()
    UpliftModel(
        "s_learner", {}, recipe.shape, recipe.encoder, recipe.scaler, net, campaign
    ).save(place / "model")  # fmt: skip
    WORLD.units(UNITS, seed=9).to_parquet(place / "units.parquet")
    (place / "it.yaml").write_text(VARIANTS)
    return place


@pytest.fixture(autouse=True)
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPDRAFT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)


def told(arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    command, *rest = arguments.split()
    assert run(["experiment", command, "mine.yaml", "it.yaml", *rest, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def decided(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Decisions for a rich budget, and what came of them; coins do more than in the world."""
    found = told("assign --units units.parquet --out decisions.parquet --budget 1500", capsys)
    made = pd.read_parquet("decisions.parquet")
    drawn = WORLD.respond(pd.read_parquet("units.parquet"), made["arm"].to_numpy(), seed=2)
    outcomes = {
        name: drawn[:, WORLD.outcomes.index(name)] for name in ("login_next_day", "plays_more_7d")
    }
    pd.DataFrame({"decision_id": made["decision_id"], **outcomes}).to_parquet("outcomes.parquet")
    return found


READ = "read --decisions decisions.parquet --outcomes outcomes.parquet"


def test_assigned_and_read_from_tables(
    decided: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    by = {row["variant"]: row for row in decided["variants"]}
    assert decided["units"] + decided["held_out"] == UNITS
    assert by["nobody"]["arms"] == {"none": by["nobody"]["units"]}
    assert by["best"]["decides"].startswith("best arm: ")
    assert by["net"]["decides"] == "s_learner in ./model"
    assert sum(row["cost"] for row in decided["variants"]) <= 1500
    page = tmp_path / "pages" / "page.html"
    found = told(f"{READ} --html {page}", capsys)
    assert found["sound"]
    assert found["units"] == decided["units"]
    best = found["outcomes"]["login_next_day"]["best"]
    assert best["verdict"] == "higher"
    made, units = pd.read_parquet("decisions.parquet"), pd.read_parquet("units.parquet")
    expected = WORLD.truth(units)[np.arange(UNITS), made["arm"], 0]
    mine = (made["variant"] == "best").to_numpy()
    truth = (expected - WORLD.truth(units)[:, 0, 0])[mine].mean()
    interval = best["effect"]["difference"]
    assert interval["low"] < truth < interval["high"]
    assert best["effect"]["variance_reduction"] > 0.02
    assert found["outcomes"]["cost of arms"]["nobody"]["effect"]["mean"] == 0
    html = page.read_text()
    for words in ("policies", "net value", "as designed", "at every look", "<svg"):
        assert words in html.lower()
    assert "http://" not in html.replace("http://www.w3.org", "")


def test_people_get_tables_with_verdicts(
    decided: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["experiment", *READ.replace("read ", "read mine.yaml it.yaml ").split()]) == 0
    shown = capsys.readouterr().out
    for words in ("against nobody", "login_next_day", "higher", "at every look", "as designed"):
        assert words in shown
    command = "plan mine.yaml it.yaml --effect 0.02"
    assert run(["experiment", *command.split()]) == 0
    assert "units of all variants that show 2.0% of the mean" in capsys.readouterr().out


def test_a_leak_ends_with_a_failed_check_and_no_praise(
    decided: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = pd.read_parquet("decisions.parquet")
    lost = (made["variant"] == "best") & (np.random.default_rng(0).random(UNITS) < 0.3)
    made[~lost].to_parquet("decisions.parquet")
    page = tmp_path / "page.html"
    found = told(f"{READ} --html {page}", capsys, code=4)
    assert not found["sound"]
    verdicts = {row["verdict"] for rows in found["outcomes"].values() for row in rows.values()}
    assert verdicts == {"", "invalid"}
    assert "the split isn&#39;t sound" in page.read_text() or "isn't sound" in page.read_text()
    assert run(["experiment", *READ.replace("read ", "read mine.yaml it.yaml ").split()]) == 4
    captured = capsys.readouterr()
    assert "sample ratio mismatch" in captured.out
    assert "higher" not in captured.out
    assert captured.err.startswith("updraft: policies: the split isn't sound")


def test_what_is_recorded_waits_for_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    found = told("assign --units units.parquet --out made.csv --budget 60 --record", capsys)
    assert found["recorded"]
    assert found["units"] == len(pd.read_csv("made.csv"))
    assert run(["experiment", "read", "mine.yaml", "it.yaml"]) == 3
    assert "no decision of it whose outcomes are complete" in capsys.readouterr().err
    from campaigns.settings import Settings
    from serving.events import EventStore
    from serving.records import OutcomeRecord

    store = EventStore(Settings().event_store_url)
    ids = pd.read_csv("made.csv")["decision_id"]
    store.record_outcomes(
        [
            OutcomeRecord(one, name, float(row % 2))
            for row, one in enumerate(ids)
            for name in ("login_next_day", "plays_more_7d")
        ]
    )
    store.close()
    read = told("read", capsys)
    assert read["units"] == len(ids)
    assert read["outcomes"]["cost of arms"]["net"]["effect"]["mean"] <= 60 / len(ids) * 1.2


def test_a_plan_says_what_can_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    found = told("plan --effect 0.05", capsys)
    assert found["units"] == 6000
    rows = {(row["outcome"], row["variant"]): row for row in found["effects"]}
    assert set(rows) == {
        (outcome, variant)
        for outcome in ("login_next_day", "plays_more_7d", "net value")
        for variant in ("random", "best", "net")
    }
    login = rows["login_next_day", "best"]
    log = pd.read_parquet("log.parquet")["login_next_day"]
    by_hand = 2.8016 * np.sqrt(log.var() * (2 / 1800))  # z of 0.975 and of 0.8
    assert login["unadjusted"] == pytest.approx(by_hand, rel=0.001)
    assert login["detectable"] < login["unadjusted"]
    assert rows["login_next_day", "net"]["detectable"] > login["detectable"]  # a smaller share
    twice = told(f"plan --units {int(login['needed'])}", capsys)
    again = next(
        row
        for row in twice["effects"]
        if (row["outcome"], row["variant"]) == ("login_next_day", "best")
    )
    assert again["relative"] == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("share: 0.3", "share: 0.4", 2, "it.yaml: variants: the shares sum to 1.1"),
        ("./model", "./nowhere", 3, "it.yaml: variants.net.model: ./nowhere: is no folder"),
        ("policy: random", "policy: lucky", 2, "'lucky' is no policy"),
        (
            "name: policies",
            "name: policies\nsalt: game_bonus_2026",
            2,
            "key of the campaign's expl",
        ),
        ("random:", "nobody:", 2, "key 'nobody' is given twice"),
    ],
)
def test_mistakes_in_the_file_are_one_sentence(
    old: str, new: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text(VARIANTS.replace(old, new, 1))
    command = "assign mine.yaml it.yaml --units units.parquet --out made.parquet"
    command = command.replace("it.yaml", "bad.yaml")
    assert run(["experiment", *command.split()]) == code
    shown = capsys.readouterr().err
    assert words.replace("it.yaml", "bad.yaml") in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("assign {} --units units.parquet --out made", 2, "--out: 'made' is no table"),
        ("assign {} --units no.csv --out made.csv", 3, "no.csv: is missing"),
        ("assign {} --units units.parquet --out made.csv --budget 0", 2, "budget: is 0"),
        ("assign {} --units units.parquet --out made.csv --request a", 2, "--request: names what"),
        ("read {} --outcomes outcomes.parquet", 2, "--outcomes: are those of decisions"),
        ("read {} --decisions no.parquet", 3, "no.parquet: is missing"),
        ("read {} --confidence 95", 2, "--confidence: is 95; give a share"),
        ("plan {} --power 2", 3, "power must be between 0 and 1"),
        ("plan mine.yaml no.yaml", 2, "no.yaml: can't be read"),
        ("read {}", 3, "the event store has no decision of it"),
    ],
)
def test_mistakes_of_a_command_are_one_sentence(
    command: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["experiment", *command.format("mine.yaml it.yaml").split()]) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("budget", ["-1", "nan", "much"])
def test_a_budget_is_a_number_from_0(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = "assign mine.yaml it.yaml --units units.parquet --out made.csv --budget"
    assert run(["experiment", *command.split(), budget]) == 2
    assert "Invalid value for '--budget'" in capsys.readouterr().err


def test_where_everybody_got_control_there_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    idle = "name: idle\nstart: 2026-01-01\nvariants:\n"
    idle += "  a: {share: 0.5, policy: nobody}\n  b: {share: 0.5, policy: nobody}\n"
    Path("idle.yaml").write_text(idle)
    files = ["mine.yaml", "idle.yaml"]
    command = "--units units.parquet --out idle.parquet --budget 10"
    assert run(["experiment", "assign", *files, *command.split()]) == 0
    made = pd.read_parquet("idle.parquet")
    drawn = WORLD.respond(pd.read_parquet("units.parquet"), made["arm"].to_numpy(), seed=3)
    names = {name: drawn[:, k] for k, name in enumerate(WORLD.outcomes)}
    made.assign(**names).to_parquet("idle.parquet")
    capsys.readouterr()
    command = "--decisions idle.parquet --json"
    assert run(["experiment", "read", *files, *command.split()]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sound"]
    assert found["outcomes"]["cost of arms"]["b"]["verdict"] == "never varies"
    assert abs(found["outcomes"]["login_next_day"]["b"]["relative"]["estimate"]) < 0.1


def test_a_plan_needs_a_number_of_units(capsys: pytest.CaptureFixture[str]) -> None:
    Path("open.yaml").write_text(VARIANTS.replace("units: 6000\n", ""))
    assert run(["experiment", "plan", "mine.yaml", "open.yaml"]) == 2
    assert "open.yaml: says no 'units'" in capsys.readouterr().err


def test_ten_units_are_read_with_open_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    pd.read_parquet("units.parquet")[:10].to_parquet("ten.parquet")
    told("assign --units ten.parquet --out ten_made.parquet --budget 3", capsys)
    made = pd.read_parquet("ten_made.parquet")
    made.assign(login_next_day=1.0, plays_more_7d=0.0).to_parquet("ten_made.parquet")
    found = told("read --decisions ten_made.parquet", capsys)
    assert found["units"] == (~made["holdout"]).sum()
    rows = found["outcomes"]["login_next_day"]
    assert {row["verdict"] for row in rows.values()} <= {"", "never varies", "too few units"}
