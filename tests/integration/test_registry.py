"""The registry: versions, who decides, and the way back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import CampaignError, RemoteError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from campaigns.worlds import world
from models.catalog import build
from models.dataset import fit_recipe
from models.registry import CHAMPION, Registry, code_version
from models.uplift_model import UpliftModel

pytestmark = pytest.mark.slow  # MLflow takes seconds to import and to make its database

GAME = load_campaign(Path(__file__).parents[2] / "campaigns" / "game_bonus.yaml")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return decision_frame(world("game_bonus").log(1000, seed=5), GAME, "world")


@pytest.fixture(scope="module")
def models(frame: pd.DataFrame, tmp_path_factory) -> list[tuple[UpliftModel, Path]]:
    """Three models of one campaign, with their folders."""
    recipe = fit_recipe(frame, GAME)
    made = []
    for seed in range(3):
        net = build("mtmt", recipe.shape, {"width": 8}, seed=seed).eval()
        model = UpliftModel(
            "mtmt", {"width": 8}, recipe.shape, recipe.encoder, recipe.scaler, net, GAME,
            price=0.5, meta={"data_hash": "d1"},
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("model")
        model.save(folder)
        made.append((model, folder))
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A home whose database is made already."""
    home = tmp_path_factory.mktemp("template")
    assert Registry(Settings(home=home)).version_of("game_bonus", CHAMPION) is None
    return home


@pytest.fixture
def registry(template: Path, tmp_path: Path) -> Registry:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(
        (template / "mlflow" / "mlflow.db").read_bytes()
    )
    return Registry(Settings(home=tmp_path))


def test_a_version_answers_as_the_model_that_was_registered(registry, models, frame) -> None:
    (one, folder), (other, second) = models[:2]
    assert registry.register(one, folder, {}) == "1"
    assert registry.register(other, second, {}) == "2"
    for version, model in (("1", one), ("2", other), ("challenger", other)):
        loaded = registry.load("game_bonus", version)
        assert np.array_equal(loaded.predict(frame), model.predict(frame))
    assert loaded.meta == {"data_hash": "d1", "version": "2"}
    assert loaded.price == 0.5


def test_mlflow_itself_loads_a_version_with_the_same_numbers(registry, models, frame) -> None:
    model, folder = models[0]
    version = registry.register(model, folder, {})
    import mlflow

    loaded = mlflow.pyfunc.load_model(f"models:/updraft-game_bonus/{version}")
    table = loaded.predict(frame[GAME.features.names])
    assert list(table)[:3] == ["none:login_next_day", "none:plays_more_7d", "coins:login_next_day"]
    expected = model.predict(frame).reshape(len(frame), -1)
    assert table.to_numpy() == pytest.approx(expected)
    assert loaded.metadata.signature.outputs.input_names() == list(table)
    folder = registry.fetch("game_bonus", version)
    assert "torch==" in (folder.parents[1] / "requirements.txt").read_text()


def test_promotion_and_rollback_move_the_aliases(registry, models) -> None:
    for model, folder in models:
        registry.register(model, folder, {})
    registry.promote("game_bonus", "1")
    assert registry.version_of("game_bonus", "previous") is None
    registry.promote("game_bonus", "3")
    assert registry.version_of("game_bonus", "challenger") is None  # it decides now
    assert (champion(registry), previous(registry)) == ("3", "1")
    registry.promote("game_bonus", "3")  # again: nothing moves
    assert (champion(registry), previous(registry)) == ("3", "1")
    assert registry.rollback("game_bonus") == "1"
    assert (champion(registry), previous(registry)) == ("1", "3")
    assert registry.rollback("game_bonus") == "3"
    assert registry.load("game_bonus").meta["version"] == "3"


def champion(registry: Registry) -> str | None:
    return registry.version_of("game_bonus", "champion")


def previous(registry: Registry) -> str | None:
    return registry.version_of("game_bonus", "previous")


def test_what_is_not_there_is_refused_with_what_is(registry, models) -> None:
    with pytest.raises(CampaignError, match="no model version 'champion'; it has no model yet"):
        registry.load("game_bonus")
    with pytest.raises(CampaignError, match="nothing to roll back to, it has no champion"):
        registry.rollback("game_bonus")
    registry.register(*models[0], {})
    with pytest.raises(CampaignError, match="no model version '7'; give 'challenger' or '1'"):
        registry.promote("game_bonus", "7")
    registry.promote("game_bonus", "1")
    with pytest.raises(CampaignError, match="nothing to roll back to, only version 1 has decided"):
        registry.rollback("game_bonus")
    with pytest.raises(CampaignError, match="is no campaign's name"):
        registry.version_of("x' or '1'='1", "champion")
    assert registry.describe("other_campaign") == []


def test_describe_tells_where_each_version_comes_from(registry, models, tmp_path: Path) -> None:
    report = tmp_path / "artifact-without-suffix"
    report.write_text("<p>fine</p>")
    metrics = {"qini coins:visit": 0.25, "lift@30": 0.1, "policy_value": float("nan")}
    registry.register(*models[0], metrics, reports={"report.html": report})
    registry.register(*models[1], {}, reports=[report])
    registry.promote("game_bonus", "1")
    newest, oldest = registry.describe("game_bonus")
    assert (newest["version"], oldest["version"]) == ("2", "1")
    assert (newest["aliases"], oldest["aliases"]) == (["challenger"], ["champion"])
    assert oldest["metrics"]["qini coins:visit"] == 0.25
    assert oldest["metrics"]["lift_at_30"] == 0.1
    expected = {
        "campaign_hash": GAME.hash,
        "data_hash": "d1",
        "code_version": code_version(),
        "net": "mtmt",
        "price": "0.5",
    }
    assert expected.items() <= oldest.items()
    import mlflow

    uri = f"runs:/{oldest['run_id']}/reports/report.html"
    assert Path(mlflow.artifacts.download_artifacts(uri)).read_text() == "<p>fine</p>"


def test_two_campaigns_register_at_once(registry, models) -> None:
    model, folder = models[0]

    def register(name: str) -> str:
        campaign = GAME.model_copy(update={"name": name})
        other = UpliftModel(**{**vars(model), "campaign": campaign})
        return Registry(registry.settings).register(other, folder, {})

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(register, ["a", "b", "c", "d"])) == ["1"] * 4


def test_a_registry_that_cannot_be_reached_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"x" * 5000)
    broken = Registry(Settings(home=tmp_path, tracking_uri=f"sqlite:///{tmp_path}/bad.db"))
    with pytest.raises(RemoteError, match="MLflow at sqlite:.*file is not a database"):
        broken.version_of("game_bonus", "champion")


def test_nothing_is_said_on_the_way(registry, models, capfd, recwarn) -> None:
    registry.register(*models[0], {"a": 1.0})
    registry.promote("game_bonus", "1")
    registry.load("game_bonus")
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn if "mlflow" in str(w.filename)] == []


def test_the_code_version_names_release_and_commit() -> None:
    assert code_version().startswith("0.")
    assert "+" in code_version() or not (Path(__file__).parents[2] / ".git").exists()
