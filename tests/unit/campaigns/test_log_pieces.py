"""A log that comes in pieces is the same log, and what is wrong with it is told likewise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import DataError
from campaigns.frame import arm_shares, decision_frame, decision_frames
from campaigns.loading import parse_campaign
from campaigns.sources import Log
from campaigns.spec import Campaign


def campaign(path: Path, propensity: str = "p") -> Campaign:
    return parse_campaign(
        f"""
name: bonus
unit: player
source: {{kind: parquet, path: {path}}}
timestamp: at
features: {{numeric: [games], categorical: [device]}}
treatments: {{bonus: {{column: bonus, control: none, levels: {{none: {{}}, coins: {{cost: 0.3}}}}}}}}
propensity: {propensity}
outcomes: {{login: {{kind: binary, value: 1.0}}}}
budget: {{per: day, amount: 10}}
"""
    )


def table(rows: int = 1000, **changes: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    columns = {
        "player": np.arange(rows),
        "at": pd.date_range("2026-01-01", periods=rows, freq="min", tz="UTC"),
        "games": np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows)),
        "device": rng.choice(["ios", "web", None], rows),
        "bonus": np.where(rng.random(rows) < 0.7, "coins", "none"),
        "p": 0.5,
        "login": rng.integers(0, 2, rows),
    }
    return pd.DataFrame({**columns, **changes})


def pieces(folder: Path, log: pd.DataFrame, rows: int = 300, **options: Any) -> list[pd.DataFrame]:
    log.to_parquet(folder / "log.parquet", index=False)
    spec = campaign(folder / "log.parquet", **options)
    read = Log(spec, rows)
    shares = arm_shares(read.pieces(["bonus"]), spec)
    return list(decision_frames(read.pieces(), spec, "log", shares))


@pytest.mark.parametrize("propensity", ["p", "estimate"])
def test_pieces_make_the_same_frame(tmp_path: Path, propensity: str) -> None:
    found = pieces(tmp_path, table(), propensity=propensity)
    whole = decision_frame(table(), campaign(tmp_path, propensity), "log")
    assert len(found) == 4
    pd.testing.assert_frame_equal(pd.concat(found, ignore_index=True), whole)


def test_units_stored_as_fractions_are_read_whole(tmp_path: Path) -> None:
    units = np.arange(1000.0)
    units[700] = 0.5  # "3.0" here, and "3" in a piece without it
    (found,) = pieces(tmp_path, table(player=units))
    assert found["unit_id"][3] == "3.0"


def test_a_row_is_told_by_its_place_in_the_whole(tmp_path: Path) -> None:
    chance = np.full(1000, 0.5)
    chance[777] = 1.5
    with pytest.raises(DataError, match="1 rows lie outside .* such as 1.5 in row 777"):
        pieces(tmp_path, table(p=chance))


def test_what_only_the_whole_shows_is_told_at_its_end(tmp_path: Path) -> None:
    late = np.r_[np.zeros(999), 1.0]
    assert len(pieces(tmp_path, table(login=late))) == 4
    with pytest.raises(DataError, match="every row is 0; an outcome that never changes"):
        pieces(tmp_path, table(login=np.zeros(1000)))
    with pytest.raises(DataError, match="every row was given arm 'coins'"):
        pieces(tmp_path, table(bonus="coins"))
