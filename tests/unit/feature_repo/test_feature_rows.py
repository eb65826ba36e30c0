"""Frames of features as rows of the log, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import DataError
from campaigns.loading import parse_campaign
from feature_repo.rows import feature_rows

CAMPAIGN = parse_campaign(
    """
name: demo
unit: player
source: {kind: events}
timestamp: at
features: {numeric: [games, Win rate], categorical: [device]}
treatments: {bonus: {column: bonus, control: none, levels: {none: {}, coins: {cost: 1}}}}
outcomes: {buys: {kind: binary, value: 1}}
budget: {amount: 10}
"""
)


def frame(**changes: object) -> pd.DataFrame:
    columns = {
        "unit_id": ["u1", "u2"],
        "decided_at": pd.to_datetime(["2026-01-01T10:00Z", "2026-01-02T10:00Z"], format="ISO8601"),
        "games": [1.0, np.nan],
        "Win rate": [3, 4],
        "device": ["ios", None],
        "bonus": ["none", "coins"],
    }
    return pd.DataFrame({**columns, **changes})


def test_values_types_and_missing_ones() -> None:
    table = feature_rows(frame(), "decided_at", CAMPAIGN, "frame")
    assert table.column_names[:3] == ["unit_id", "event_timestamp", "games"]
    assert "bonus" not in table.column_names
    assert [str(kind) for kind in table.schema.types] == [
        "string",
        "timestamp[us, tz=UTC]",
        "double",
        "double",
        "string",
    ]
    assert table["games"].to_pylist() == [1.0, None]
    assert table["device"].to_pylist() == ["ios", None]


def test_times_of_any_zone_and_resolution_become_utc_microseconds() -> None:
    local = pd.to_datetime(["2026-01-01T10:00", "2026-07-01T10:00"]).tz_localize("Europe/Berlin")
    table = feature_rows(frame(decided_at=local.as_unit("ns")), "decided_at", CAMPAIGN, "frame")
    assert [moment.hour for moment in table["event_timestamp"].to_pylist()] == [9, 8]


def test_whole_number_units_read_as_floats_are_the_same_units() -> None:
    table = feature_rows(frame(unit_id=[7.0, 8.0]), "decided_at", CAMPAIGN, "frame")
    assert table["unit_id"].to_pylist() == ["7", "8"]


def test_of_rows_with_one_unit_and_time_the_last_counts() -> None:
    twice = pd.concat([frame(), frame(games=[5.0, 6.0])], ignore_index=True)
    table = feature_rows(twice, "decided_at", CAMPAIGN, "frame")
    assert table["games"].to_pylist() == [5.0, 6.0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unit_id": ["u1", None]}, "frame: row 1 has no unit_id"),
        ({"decided_at": pd.to_datetime(["2026-01-01", "2026-01-02"])}, "times without a zone"),
        ({"decided_at": pd.to_datetime(["2026-01-01T00:00Z", None])}, "row 1 has no decided_at"),
        ({"games": ["1", "many"]}, "column 'games', row 1: 'many' is no number"),
        ({"games": [1.0, np.inf]}, "column 'games', row 1: is infinite"),
    ],
)
def test_what_is_wrong_gets_a_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        feature_rows(frame(**changes), "decided_at", CAMPAIGN, "frame")


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(
        DataError, match="column 'Win rate' is missing; it has 'unit_id', .*'bonus'"
    ):
        feature_rows(frame().drop(columns="Win rate"), "decided_at", CAMPAIGN, "frame")
