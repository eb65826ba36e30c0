"""Learners through Ray: fit in a task of their own, searched, interrupted, killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from campaigns.errors import CampaignError, DataError, EnvironmentProblem
from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.worlds import world
from models.capacity import require
from models.distributed import Trained, train
from models.learners.x_boost import XBoost
from models.search import search
from models.uplift_model import UpliftModel
from tests.integration.bonus import bonus_text

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

CAMPAIGN = parse_campaign(
    bonus_text("{name: x_boost, trials: 2, config: {learning_rate: 0.1}}", name="bonus_learner")
)


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frame") / "frame.parquet"
    decision_frame(world("game_bonus").log(24_000, seed=1), CAMPAIGN, "log").to_parquet(path)
    return path


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def trained(frame: Path, told: list[str], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    storage = tmp_path_factory.mktemp("storage")
    training = {"seed": 3, "epochs": 5}
    return train(frame, CAMPAIGN, training=training, workers=2, storage=storage, say=told.append)


def test_it_learns_whom_a_bonus_moves(trained: Trained) -> None:
    log = world("game_bonus").log(20_000, seed=99)
    truth = world("game_bonus").truth(log)[:, :, :2]
    predicted = trained.model.predict(log)
    true, guess = truth[:, 1:] - truth[:, :1], predicted[:, 1:] - predicted[:, :1]
    assert ((guess - true) ** 2).mean() < 0.8 * ((true - true.mean(0)) ** 2).mean()
    assert isinstance(trained.model.net, XBoost)
    assert trained.model.meta["campaign_hash"] == CAMPAIGN.hash


def test_it_looks_like_a_training_of_one_epoch(trained: Trained) -> None:
    assert trained.best_epoch == 0
    assert [entry["epoch"] for entry in trained.history] == [0]
    assert set(trained.history[0]["validation"]) == {"loss", "effects", "score"}


def test_what_it_does_and_what_it_has_no_use_for_is_said(trained: Trained, told: list[str]) -> None:
    assert told[0] == "x_boost is fit in one process: 1 worker is used, not 2"
    assert told[1] == "x_boost has no epochs: model.training (epochs) has no part in it"
    models = told[2:]
    assert len(models) == 2 * (1 + 2 * 3)  # each outcome: control, and an arm's mean and effects
    assert models[0].startswith("outcome 1 of 2, control: ")


def test_the_same_seed_gives_the_same_model_and_it_is_saved(
    trained: Trained, frame: Path, tmp_path: Path
) -> None:
    again = train(frame, CAMPAIGN, training={"seed": 3}, storage=tmp_path / "storage")
    log = world("game_bonus").log(500, seed=9)
    np.testing.assert_array_equal(again.model.predict(log), trained.model.predict(log))
    again.model.save(tmp_path / "model")
    loaded = UpliftModel.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(log), again.model.predict(log))


def test_ctrl_c_interrupts_and_gives_back_what_it_held(frame: Path, tmp_path: Path) -> None:
    def press(sentence: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(frame, CAMPAIGN, storage=tmp_path, say=press)
    assert signal.getsignal(signal.SIGINT) is before
    require(4, "the next run", patience=30)


def test_a_process_that_dies_too_often_is_said_plainly(frame: Path, tmp_path: Path) -> None:
    def kill(sentence: str) -> None:
        for process in psutil.Process().children(recursive=True):
            if process.cmdline()[:1] == ["ray::_work"]:
                process.kill()

    with pytest.raises(EnvironmentProblem, match="fit x_boost died, 1 time"):
        train(frame, CAMPAIGN, storage=tmp_path, max_failures=0, say=kill)


def test_what_cannot_be_fit_is_refused(
    frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.capacity.PATIENCE", 0.0)
    with pytest.raises(EnvironmentProblem, match="fitting x_boost: needs 9 logical CPUs"):
        train(frame, CAMPAIGN, cpus_per_worker=9, storage=tmp_path)
    with pytest.raises(CampaignError, match="unknown key 'leafs'"):
        train(frame, CAMPAIGN, config={"leafs": 3}, storage=tmp_path)
    with pytest.raises(CampaignError, match="unknown key 'epoch'"):
        train(frame, CAMPAIGN, training={"epoch": 3}, storage=tmp_path)


def test_what_the_task_refuses_is_said_in_its_own_words(frame: Path, tmp_path: Path) -> None:
    import pandas as pd

    table = pd.read_parquet(frame)
    path = tmp_path / "treated.parquet"
    table[table["arm"] > 0].to_parquet(path)
    with pytest.raises(DataError, match="observed in no control row"):
        train(path, CAMPAIGN, storage=tmp_path)


def test_a_search_tries_settings_and_fits_each_once(frame: Path, tmp_path: Path) -> None:
    found = search(frame, CAMPAIGN, rows=6_000, epochs=3, seed=5, workers=2, storage=tmp_path)
    assert list(found.table["epochs"]) == [1, 1]
    assert set(found.table["status"]) == {"finished"}
    assert found.training == {}
    assert found.config["learning_rate"] == 0.1  # fixed by the campaign
    assert found.score == found.table["score"].max() >= found.default_score
    assert {name for name in found.table if name.startswith("net.")} == {
        "net.leaves", "net.leaf_rows", "net.effect_leaves", "net.effect_rows",
    }  # fmt: skip
