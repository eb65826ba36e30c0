"""A saved model answers as it did before, from JSON and plain tensors alone, and fast."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from campaigns.errors import DataError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.worlds import world
from models.catalog import build
from models.dataset import fit_recipe
from models.uplift_model import UpliftModel

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return decision_frame(world("game_bonus").log(3000, seed=5), GAME, "world")


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> UpliftModel:
    recipe = fit_recipe(frame, GAME)
    return UpliftModel(
        name="mtmt",
        config={"width": 8, "experts": 2},
        shape=recipe.shape,
        encoder=recipe.encoder,
        scaler=recipe.scaler,
        net=build("mtmt", recipe.shape, {"width": 8, "experts": 2}, seed=3).eval(),
        campaign=GAME,
        price=0.25,
        meta={"data_hash": "abc"},
    )


def test_predicts_every_arm_and_outcome_in_their_own_units(model, frame) -> None:
    outcomes = model.predict(frame)
    assert outcomes.shape == (len(frame), 3, len(GAME.outcomes))
    assert outcomes.dtype == np.float64
    assert np.isfinite(outcomes).all()


def test_batches_and_kinds_of_tables_make_no_difference(model, frame) -> None:
    whole = model.predict(frame)
    columns = {name: frame[name].to_numpy() for name in GAME.features.names}
    assert model.predict(columns, batch_size=700) == pytest.approx(whole, abs=1e-6)
    assert model.predict(frame.iloc[7:8])[0] == pytest.approx(whole[7], abs=1e-5)
    one = {name: values[7] for name, values in columns.items()}  # bare values are one unit
    assert model.predict(one)[0] == pytest.approx(whole[7], abs=1e-5)
    assert model.predict(frame.iloc[:0]).shape == (0, 3, len(GAME.outcomes))


def test_a_loaded_model_is_the_same_model(model, frame, tmp_path: Path) -> None:
    model.save(tmp_path / "new" / "model")
    loaded = UpliftModel.load(tmp_path / "new" / "model")
    assert np.array_equal(loaded.predict(frame), model.predict(frame))
    assert loaded.campaign == model.campaign
    assert (loaded.name, loaded.config, loaded.price, loaded.meta) == (
        model.name, model.config, model.price, model.meta,
    )  # fmt: skip
    assert loaded.shape == model.shape
    assert not loaded.net.training


def test_nothing_in_the_folder_is_pickled(model, tmp_path: Path) -> None:
    model.save(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"campaign.json", "encoder.json", "model.json", "net.pt"}
    torch.load(tmp_path / "net.pt", weights_only=True)
    for name in files - {"net.pt"}:
        json.loads((tmp_path / name).read_text())


def test_a_folder_that_holds_no_model_is_refused_clearly(model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no saved model \(.*model.json is missing\)"):
        UpliftModel.load(tmp_path)
    model.save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**about, "format": 3}))
    with pytest.raises(DataError, match="has model format 3, this release reads 2"):
        UpliftModel.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**about, "config": {"width": 16}}))
    with pytest.raises(DataError, match="holds a model that can't be read"):
        UpliftModel.load(tmp_path)
    (tmp_path / "net.pt").write_bytes(b"not weights")
    with pytest.raises(DataError, match="holds a model that can't be read"):
        UpliftModel.load(tmp_path)


def test_weights_that_hide_code_are_not_run(model, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    model.save(tmp_path)
    torch.save({"trap": Trap()}, tmp_path / "net.pt")
    with pytest.raises(DataError, match="can't be read"):
        UpliftModel.load(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_missing_feature_is_named(model, frame) -> None:
    with pytest.raises(DataError, match="feature 'games_7d' is missing"):
        model.predict(frame.drop(columns="games_7d"))


def test_one_row_takes_milliseconds(model, frame) -> None:
    columns = {name: frame[name].to_numpy()[:1] for name in GAME.features.names}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a server does
    try:
        took = []
        for _ in range(50):
            begin = time.thread_time()  # this core's work, whatever else the machine does
            model.predict(columns)
            took.append(time.thread_time() - begin)
    finally:
        torch.set_num_threads(threads)
    assert np.median(took) < 0.006  # 1.5 ms on an idle core
