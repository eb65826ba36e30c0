"""A training frame's file gives the columns and rows that are asked for, whatever its row groups are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.frame import decision_frame
from campaigns.frame_file import FrameFile
from campaigns.loading import load_campaign
from campaigns.worlds import world

GAME = load_campaign(Path(__file__).parents[3] / "campaigns" / "game_bonus.yaml")
FRAME = decision_frame(world("game_bonus").log(3000, seed=1), GAME, "log")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameFile:
    monkeypatch.setattr("campaigns.frame_file.piece_rows", lambda columns: 1000)
    FRAME.to_parquet(tmp_path / "frame.parquet", index=False, row_group_size=700)
    return FrameFile(tmp_path / "frame.parquet", GAME)


def test_rows_come_in_the_order_asked_for(file: FrameFile) -> None:
    rows, names = np.array([2999, 3, 2000, 1, 3]), GAME.features.names
    pd.testing.assert_frame_equal(file.take(rows, names), FRAME.iloc[rows][names])
    assert file.take(np.array([], int), names).empty


def test_rows_are_chosen_by_some_columns(file: FrameFile) -> None:
    found = file.where(lambda part: (part["arm"] == 2).to_numpy(), ["arm"])
    pd.testing.assert_frame_equal(found, FRAME[FRAME["arm"] == 2])


def test_without_features_every_row_is_there(file: FrameFile) -> None:
    found = file.without_features()
    assert len(file) == len(found) == len(FRAME)
    assert not set(found) & set(GAME.features.names)
    assert {"unit_id", "decided_at", "arm", "explored_propensity", *GAME.outcomes} <= set(found)
    for name in found:
        assert found[name].tolist() == FRAME[name].tolist()


def test_pieces_are_the_frame(file: FrameFile) -> None:
    pieces = list(file.pieces())
    assert len(pieces) == 3
    pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), FRAME)
