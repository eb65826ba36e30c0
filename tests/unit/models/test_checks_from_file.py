"""Checks that read a frame's features only where they need them find what they find in the frame."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from campaigns.frame import decision_frame
from campaigns.frame_file import FrameFile
from campaigns.loading import load_campaign
from campaigns.worlds import world
from models.checks import covariates
from models.checks.drift import _sample
from models.checks.periods import earlier_and_recent
from serving.evaluation import held_out

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
FRAME = decision_frame(world("game_bonus").log(3000, seed=1), GAME, "log")


@pytest.fixture
def file(tmp_path: Path) -> FrameFile:
    FRAME.to_parquet(tmp_path / "frame.parquet", index=False, row_group_size=700)
    return FrameFile(tmp_path / "frame.parquet", GAME)


def test_covariates(file: FrameFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covariates, "MAX_ROWS", 500)
    found = covariates.check_covariates(file.without_features(), GAME, file)
    assert found == covariates.check_covariates(FRAME, GAME)
    assert found.rows == 500


def test_the_rows_that_drift_is_looked_for_in(file: FrameFile) -> None:
    whole = earlier_and_recent(FRAME, None)
    slim = earlier_and_recent(file.without_features(), None)
    for one, other in zip(whole, slim):
        expected = _sample(one, GAME, "reference", 300, 7, None)
        pd.testing.assert_frame_equal(_sample(other, GAME, "reference", 300, 7, file), expected)


def test_held_out_rows(file: FrameFile) -> None:
    one, other = held_out(FRAME, GAME), held_out(file.without_features(), GAME, features=file)
    assert one.budget == other.budget
    assert (one.q_hat == other.q_hat).all()
    names = [*GAME.features.names, "arm", "explored_propensity", *GAME.outcomes]
    pd.testing.assert_frame_equal(one.rows[names], other.rows[names])
