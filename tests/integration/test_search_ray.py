"""Ray Tune: what a search tries, what it finds and what it refuses."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from campaigns.errors import EnvironmentProblem
from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.worlds import world
from models.capacity import require
from models.search import SearchResult, search
from models.training import TrainConfig
from tests.integration.bonus import bonus_text

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

CAMPAIGN = parse_campaign(
    bonus_text(
        "{name: s_learner, trials: 3, training: {weight_decay: 0.001}}",
        name="bonus_search",
        rows=12_000,
    )
)


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frame") / "frame.parquet"
    decision_frame(world("game_bonus").log(12_000, seed=1), CAMPAIGN, "log").to_parquet(path)
    return path


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def found(frame: Path, told: list[str], tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    storage = tmp_path_factory.mktemp("search")
    return search(frame, CAMPAIGN, epochs=2, seed=5, storage=storage, say=told.append)


def test_the_first_trial_is_the_default_and_the_result_is_no_worse(found: SearchResult) -> None:
    first = found.table.iloc[0]
    assert first["training.learning_rate"] == TrainConfig().learning_rate
    assert first["score"] == found.default_score
    assert found.score == found.table["score"].max() >= found.default_score


def test_the_table_tells_every_trial(found: SearchResult, told: list[str]) -> None:
    table = found.table
    assert len(table) == len(told) == CAMPAIGN.model.trials
    assert set(table["status"]) <= {"finished", "stopped"}
    assert (table["scores"].map(max) == table["score"]).all()
    assert table["epochs"].between(1, 2).all()
    assert (table["seconds"] > 0).all()
    assert len(table.drop_duplicates("training.learning_rate")) == len(table)


def test_what_the_campaign_fixes_is_kept(found: SearchResult) -> None:
    assert "training.weight_decay" not in found.table
    assert found.training["weight_decay"] == 0.001
    best = found.table.loc[found.table["score"].idxmax()]
    assert found.training["learning_rate"] == best["training.learning_rate"]
    assert set(found.training) == {"weight_decay", "learning_rate"}  # the final run's own schedule


def test_the_console_stays_silent(
    frame: Path, found: SearchResult, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = search(
        frame, CAMPAIGN, epochs=1, seed=5, concurrent=1, trials=2, storage=tmp_path, say=print
    )
    output = capfd.readouterr()
    assert [line.split(":")[0] for line in output.out.splitlines()] == [
        "trial 1 of 2",
        "trial 2 of 2",
    ]
    assert "study" not in output.err
    proposed = [name for name in again.table if name.startswith(("net.", "training."))]
    same = again.table[proposed] == found.table[proposed].head(2)  # the same seed proposes the same
    assert same.all(axis=None)


def test_trials_may_train_on_several_workers(frame: Path, tmp_path: Path) -> None:
    result = search(frame, CAMPAIGN, trials=1, epochs=1, workers=2, seed=5, storage=tmp_path)
    assert list(result.table["status"]) == ["finished"]
    assert result.score == result.default_score
    require(4, "the next search", patience=30)  # what the workers held is free again


def test_ctrl_c_interrupts(frame: Path, tmp_path: Path) -> None:
    pressed: list[str] = []

    def press_once(sentence: str) -> None:
        if not pressed:
            pressed.append(sentence)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        search(frame, CAMPAIGN, trials=20, epochs=1, storage=tmp_path, say=press_once)


def test_a_request_that_would_stall_is_refused_with_the_numbers(
    frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.capacity.PATIENCE", 0.5)
    with pytest.raises(EnvironmentProblem, match=r"5 trial.*needs 5 logical CPUs, .* of 4"):
        search(frame, CAMPAIGN, trials=8, concurrent=5, storage=tmp_path)
    with pytest.raises(EnvironmentProblem, match=r"2 trial.*2\.5 CPU.*needs 5 logical CPUs"):
        search(frame, CAMPAIGN, concurrent=2, workers=2, storage=tmp_path)
