"""An experiment from the registry to the verdict: models by version and alias, recorded, answered, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from campaigns.worlds import world
from models.catalog import build, build_learner
from models.dataset import prepare
from models.registry import Registry
from models.uplift_model import UpliftModel
from pipelines.cli import run
from serving.events import EventStore
from serving.records import OutcomeRecord

pytestmark = pytest.mark.slow  # MLflow takes seconds to import and to make its database

FILE = Path(__file__).resolve().parents[2] / "campaigns" / "game_bonus.yaml"
GAME, WORLD, UNITS = load_campaign(FILE), world("game_bonus"), 8000
VARIANTS = """\
name: models
start: 2026-01-01
variants:
  random: {share: 0.25, policy: random}
  nobody: {share: 0.25, policy: nobody}
  boosted: {share: 0.25, policy: model, model: 1}
  efin: {share: 0.25, policy: model, model: challenger}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a learner that was fit, and a net that wasn't."""
    place = tmp_path_factory.mktemp("home")
    frame = decision_frame(WORLD.log(12_000, seed=5), GAME, "world")
    prepared = prepare(frame, GAME, seed=0)
    recipe = prepared.recipe
    learner = build_learner("t_boost", recipe.shape, {})
    learner.fit(prepared.train, validation=prepared.validation, seed=0)
    net = build("efin", recipe.shape, {}, seed=1).eval()
    for name, made in (("t_boost", learner), ("efin", net)):
        model = UpliftModel(name, {}, recipe.shape, recipe.encoder, recipe.scaler, made, GAME)
        model.save(place / name)
        Registry(Settings(home=place)).register(model, place / name, {})
    return place


def told(arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    command, *rest = arguments.split()
    assert run(["experiment", command, str(FILE), "it.yaml", *rest, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_models_of_the_registry_are_compared(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UPDRAFT_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    Path("it.yaml").write_text(VARIANTS)
    units = WORLD.units(UNITS, seed=9)
    units.to_parquet("units.parquet")
    found = told("assign --units units.parquet --out made.parquet --budget 1000 --record", capsys)
    by = {row["variant"]: row for row in found["variants"]}
    assert by["boosted"]["decides"] == "t_boost, version 1"
    assert by["efin"]["decides"] == "efin, version 2"
    assert sum(row["cost"] for row in by.values()) <= 350 * (1 + 1e-9)  # the day's budget

    made = pd.read_parquet("made.parquet")
    versions = made.groupby("variant")["model_version"].unique()
    assert (list(versions["boosted"]), list(versions["efin"])) == (["1"], ["2"])
    chosen = units.set_index("player_id").loc[made["unit_id"]].reset_index()
    drawn = WORLD.respond(chosen, made["arm"].to_numpy(), seed=3)
    store = EventStore(Settings().event_store_url)
    store.record_outcomes(
        [
            OutcomeRecord(one, name, float(drawn[row, WORLD.outcomes.index(name)]))
            for row, one in enumerate(made["decision_id"])
            for name in GAME.outcomes
        ]
    )
    store.close()

    read = told("read --html page.html", capsys)
    assert read["sound"]
    assert read["units"] == len(made)
    truth = WORLD.truth(chosen)[:, :, [WORLD.outcomes.index(name) for name in GAME.outcomes]]
    net = truth @ GAME.values - GAME.arm_table.costs
    variant, rows = made["variant"].to_numpy(), np.arange(len(made))
    given = net[rows, made["arm"]]
    for name in ("nobody", "boosted", "efin"):
        row = read["outcomes"]["net value"][name]["effect"]["difference"]
        expected = given[variant == name].mean() - given[variant == "random"].mean()
        half = (row["high"] - row["low"]) / 2
        assert abs(row["estimate"] - expected) < 2 * half  # four standard errors
    assert "boosted" in Path("page.html").read_text()

    Path("it.yaml").write_text(VARIANTS.replace("model: 1", "model: 9"))
    command = ["experiment", "assign", str(FILE), "it.yaml", "--units", "units.parquet"]
    assert run([*command, "--out", "made.parquet"]) == 2
    problem = capsys.readouterr().err
    assert "it.yaml: variants.boosted.model: game_bonus: there is no model version '9'" in problem
    assert "challenger" in problem
