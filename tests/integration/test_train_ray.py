"""Ray Train: one worker or two, killed or not, in memory or streamed: the same model."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from campaigns.errors import CampaignError, EnvironmentProblem
from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.worlds import world
from models.capacity import require
from models.dataset import fit_recipe, load
from models.distributed import Trained, train
from models.streaming import StreamedBatches, stream
from tests.integration.bonus import bonus_text

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

CAMPAIGN = parse_campaign(bonus_text("{name: s_learner, search: false}"))
TRAINING = {"epochs": 6, "batch_size": 512, "seed": 3}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frame") / "frame.parquet"
    table = world("game_bonus").log(24_000, seed=1)
    decision_frame(table, CAMPAIGN, "log").to_parquet(path, row_group_size=4_000)
    return path


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def undisturbed(frame: Path, storage: Path) -> Trained:
    return train(frame, CAMPAIGN, training=TRAINING, storage=storage, run="undisturbed")


def uplift_errors(trained: Trained) -> tuple[float, float]:
    """Mean squared error of the uplifts, and that of giving everyone the average uplift."""
    log = world("game_bonus").log(20_000, seed=99)
    truth = world("game_bonus").truth(log)[:, :, :2]
    predicted = trained.model.predict(log)
    true, guess = truth[:, 1:] - truth[:, :1], predicted[:, 1:] - predicted[:, :1]
    return float(((guess - true) ** 2).mean()), float(((true - true.mean(0)) ** 2).mean())


def test_it_learns_whom_a_bonus_moves(undisturbed: Trained) -> None:
    error, of_averages = uplift_errors(undisturbed)
    assert error < 0.8 * of_averages
    assert len(undisturbed.history) == TRAINING["epochs"]
    assert set(undisturbed.history[0]["validation"]) == {"loss", "effects", "score"}
    assert undisturbed.model.meta["campaign_hash"] == CAMPAIGN.hash


def test_two_workers_compute_what_one_does(
    frame: Path, undisturbed: Trained, tmp_path: Path
) -> None:
    both = train(frame, CAMPAIGN, training=TRAINING, workers=2, storage=tmp_path)
    for one, two in zip(undisturbed.history, both.history):
        assert two["validation"]["loss"] == pytest.approx(one["validation"]["loss"], abs=2e-3)
    assert both.history[0]["train"]["loss"] == pytest.approx(
        undisturbed.history[0]["train"]["loss"], rel=0.05
    )
    log = world("game_bonus").log(2_000, seed=5)
    difference = both.model.predict(log) - undisturbed.model.predict(log)
    assert float(np.abs(difference).mean()) < 5e-3


def test_trees_are_fit_beside_the_net_and_have_their_share_of_the_answer(
    frame: Path, undisturbed: Trained, storage: Path
) -> None:
    said: list[str] = []
    both = train(
        frame, CAMPAIGN, config={"trees": 2}, training=TRAINING, storage=storage, say=said.append
    )
    assert any("bag 2 of 2" in sentence for sentence in said)
    log = world("game_bonus").log(2_000, seed=5)
    trees = replace(both.model, net=both.model.trees, trees=None)
    mixed = undisturbed.model.predict(log) / 3 + trees.predict(log) * 2 / 3
    assert both.model.predict(log) == pytest.approx(mixed, abs=1e-6)
    error, of_averages = uplift_errors(both)
    assert error < min(0.8 * of_averages, 1.05 * uplift_errors(undisturbed)[0])
    intervals = both.model.intervals(log)
    assert intervals is not None
    assert (intervals.lower <= intervals.upper).all()


def test_a_killed_worker_is_replaced_and_goes_on_from_its_last_epoch(
    frame: Path, undisturbed: Trained, tmp_path: Path
) -> None:
    told: list[str] = []
    killed: list[int] = []

    def kill_after_the_second_epoch(sentence: str) -> None:
        told.append(sentence)
        if sentence.startswith("epoch 2 ") and not killed:
            killed.extend(training_processes())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    trained = train(
        frame, CAMPAIGN, training=TRAINING, storage=tmp_path, say=kill_after_the_second_epoch
    )
    assert len(killed) == 1
    assert sum(sentence.startswith("epoch 1 ") for sentence in told) == 1  # not from scratch
    assert [entry["epoch"] for entry in trained.history] == list(range(TRAINING["epochs"]))
    assert trained.history == undisturbed.history
    for name, weight in undisturbed.model.net.state_dict().items():
        assert torch.equal(weight, trained.model.net.state_dict()[name]), name


def test_a_worker_that_dies_too_often_is_said_plainly(frame: Path, tmp_path: Path) -> None:
    def kill(sentence: str) -> None:
        for process in training_processes():
            os.kill(process, signal.SIGKILL)

    long = {**TRAINING, "epochs": 1000, "patience": 1000}
    with pytest.raises(EnvironmentProblem, match="worker's process died, 1 time"):
        train(frame, CAMPAIGN, training=long, storage=tmp_path, max_failures=0, say=kill)


def test_ctrl_c_interrupts(frame: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    pressed: list[str] = []

    def press_once(sentence: str) -> None:
        if not pressed:
            pressed.append(sentence)
            os.kill(os.getpid(), signal.SIGINT)

    long = {**TRAINING, "epochs": 1000, "patience": 1000}
    with pytest.raises(KeyboardInterrupt):
        train(frame, CAMPAIGN, training=long, storage=tmp_path, say=press_once)
    assert signal.getsignal(signal.SIGINT) is before
    require(4, "the next run", patience=30)  # what it held is free again


def test_a_run_that_ended_is_taken_up_where_it_ended(
    frame: Path, undisturbed: Trained, storage: Path
) -> None:
    told: list[str] = []
    again = train(
        frame,
        CAMPAIGN,
        training=TRAINING,
        storage=storage,
        run="undisturbed",
        say=told.append,
    )
    assert told == []
    assert again.history == undisturbed.history


def training_processes() -> list[int]:
    """The Ray Train workers that descend from this process."""

    def parent(process: int) -> int:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])

    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if b"RayTrainWorker" in (place / "cmdline").read_bytes():
                process = int(place.name)
                if parent(parent(process)) == os.getpid():  # worker, raylet, this process
                    found.append(process)
        except OSError:  # it has just ended
            continue
    return found


def test_a_stream_gives_the_same_rows_as_memory(frame: Path) -> None:
    recipe = fit_recipe(frame, CAMPAIGN)
    in_memory = load(frame, recipe).train
    batches = list(StreamedBatches(stream(frame, recipe), 1_000)(0))
    assert len(batches) == -(-len(in_memory) // 1_000)

    def rows(parts: list) -> np.ndarray:
        tables = [
            np.column_stack([np.asarray(value, np.float64) for value in vars(part).values()])
            for part in parts
        ]
        table = np.concatenate(tables)
        return table[np.lexsort(table.T)]

    np.testing.assert_array_equal(rows(batches), rows([in_memory]))


def test_streamed_rows_train_on_two_workers(frame: Path, tmp_path: Path) -> None:
    schedule = {**TRAINING, "epochs": 3, "batch_size": 256}
    trained = train(frame, CAMPAIGN, training=schedule, workers=2, streamed=True, storage=tmp_path)
    error, of_averages = uplift_errors(trained)
    assert error < of_averages
    assert len(trained.history) == 3


def test_what_cannot_be_trained_is_refused_before_a_worker_starts(
    frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.capacity.PATIENCE", 0.0)
    with pytest.raises(EnvironmentProblem, match=r"5 .*needs 5 logical CPUs, .* of 4"):
        train(frame, CAMPAIGN, workers=5, storage=tmp_path)
    with pytest.raises(EnvironmentProblem, match="needs 1 logical GPU"):
        train(frame, CAMPAIGN, gpu=True, storage=tmp_path)
    with pytest.raises(CampaignError, match="unknown key 'epoch'"):
        train(frame, CAMPAIGN, training={"epoch": 3}, storage=tmp_path)
    with pytest.raises(CampaignError, match="unknown key 'wide'"):
        train(frame, CAMPAIGN, config={"wide": 3}, storage=tmp_path)


def test_what_a_worker_refuses_is_said_in_its_own_words(tmp_path: Path, frame: Path) -> None:
    few = tmp_path / "few.parquet"
    pd.read_parquet(frame).head(40).to_parquet(few)
    with pytest.raises(
        CampaignError, match="validation measures no 'effects'; give 'loss' or 'score'"
    ):
        train(
            few,
            CAMPAIGN,
            training={"metric": "effects", "mode": "max"},
            storage=tmp_path,
            max_failures=0,
        )
