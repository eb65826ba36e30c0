"""Commands on what is registered, and on a real trial with numbers that others have published."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from campaigns.worlds import world
from models.catalog import build
from models.dataset import fit_recipe
from models.registry import CHAMPION, Registry
from models.uplift_model import UpliftModel
from pipelines.cli import run

pytestmark = pytest.mark.slow  # MLflow takes seconds to begin; Hillstrom has 64,000 rows

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UPDRAFT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_without_a_name_the_champion_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(CAMPAIGNS / "game_bonus.yaml")
    log = world("game_bonus").log(1500, seed=5)
    log.to_parquet("log.parquet")
    world("game_bonus").units(50, seed=1).to_parquet("units.parquet")
    assert run(["evaluate", file, "--frame", "log.parquet"]) == 2
    assert "there is no model version 'champion'" in capsys.readouterr().err

    campaign = load_campaign(file)
    recipe = fit_recipe(decision_frame(log, campaign, "log"), campaign)
    for seed, alias in ((1, CHAMPION), (2, "challenger")):
        net = build("s_learner", recipe.shape, {}, seed=seed).eval()
        model = UpliftModel(
            "s_learner", {}, recipe.shape, recipe.encoder, recipe.scaler, net, campaign
        )
        model.save(tmp_path / "model")
        Registry(Settings()).register(model, tmp_path / "model", {"gain": 0.0}, alias=alias)

    for given, version in (([], "1"), (["--model", "challenger"], "2"), (["--model", "1"], "1")):
        assert run(["evaluate", file, "--frame", "log.parquet", *given, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["judged"] == f"s_learner, version {version}"
        assert found["held_out"]
    words = ["allocate", file, "--units", "units.parquet", "--out", "decisions.parquet"]
    assert run([*words, "--record", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "s_learner, version 1"
    assert len(pd.read_parquet("decisions.parquet")) == 50


def test_hillstrom_has_scikit_uplift_s_numbers(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The golden values of docs/metrics.md, through the command: history as the score of either e-mail."""
    csv = str(shared_data / "hillstrom" / "hillstrom.csv")
    assert run(["data", "get", "hillstrom", "--from", csv]) == 0
    table = pd.read_parquet(Settings().root / "data" / "hillstrom.parquet")
    pd.DataFrame({"mens": table["history"], "womens": table["history"]}).to_csv("scores.csv")
    capsys.readouterr()
    words = ["evaluate", str(CAMPAIGNS / "hillstrom.yaml"), "--scores", "scores.csv", "--json"]
    words += ["--convention", "sklift"]
    words += [word for name in ("qini", "qini_positive", "auuc") for word in ("--metric", name)]
    assert run(words) == 0
    found = {
        row["metric"]: row["interval"]["estimate"]
        for row in json.loads(capsys.readouterr().out)["metrics"]
        if (row["arm"], row["outcome"]) == ("womens", "visit")
    }
    assert found["qini"] == pytest.approx(0.002622, abs=1e-6)
    assert found["qini_positive"] == pytest.approx(0.014259, abs=1e-6)
    assert found["auuc"] == pytest.approx(0.001048, abs=1e-6)
