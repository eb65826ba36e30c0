"""From a user's table to the decision frame, or to everything that is wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import DataError
from campaigns.frame import DECISION_COLUMNS, decision_frame, expand_features
from campaigns.loading import parse_campaign
from campaigns.settings import Settings
from campaigns.sources import located, read_file, read_table
from campaigns.spec import Campaign

CAMPAIGN = parse_campaign(
    """
name: bonus
unit: player_id
source: {kind: csv, path: log.csv}
timestamp: at
features: {numeric: [games], categorical: [device]}
treatments: {bonus: {column: bonus, control: none, levels: {none: {}, coins: {cost: 0.3}}}}
propensity: p
outcomes: {login: {kind: binary, value: 1.0}}
budget: {per: day, amount: 10}
"""
)


def table(**changes: Any) -> pd.DataFrame:
    columns = {
        "player_id": [1, 2, 3, 4],
        "at": pd.date_range("2026-01-01", periods=4, freq="h", tz="UTC"),
        "games": [1.0, np.nan, 3.0, 4.0],
        "device": ["ios", "web", None, "ios"],
        "bonus": ["none", "coins", "none", "coins"],
        "p": [0.5, 0.5, 0.5, 0.5],
        "login": [0, 1, 0, 1],
    }
    return pd.DataFrame({**columns, **changes})


def problem(**changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        decision_frame(table(**changes), CAMPAIGN, "log.csv")
    return str(caught.value)


def test_a_good_table_becomes_the_frame() -> None:
    frame = decision_frame(table(), CAMPAIGN, "log.csv")
    assert list(frame.columns) == [*DECISION_COLUMNS, "bonus", "games", "device", "login"]
    assert str(frame["decided_at"].dtype) == "datetime64[us, UTC]"
    assert frame["arm"].tolist() == [0, 1, 0, 1]
    assert frame["unit_id"].tolist() == ["1", "2", "3", "4"]
    assert frame["explored"].all()
    assert frame["device"].tolist() == ["ios", "web", None, "ios"]
    assert np.isnan(frame["games"][1])
    assert frame["decision_id"].is_unique


def test_holdout_rows_are_not_explored() -> None:
    frame = decision_frame(table(holdout=[True, False, False, False]), CAMPAIGN, "log.csv")
    assert frame["explored"].tolist() == [False, True, True, True]
    assert frame["explored_propensity"].isna().tolist() == [True, False, False, False]


def test_unknown_propensities_can_be_uniform_or_estimated() -> None:
    arms = ["none", "none", "none", "coins"]
    for word, expected in (("uniform", [0.5] * 4), ("estimate", [0.75, 0.75, 0.75, 0.25])):
        spec = CAMPAIGN.model_copy(update={"propensity": word})
        frame = decision_frame(table(bonus=arms), spec, "log.csv")
        assert frame["propensity"].tolist() == expected


def test_a_star_means_every_column_not_named_elsewhere() -> None:
    spec = CAMPAIGN.model_copy(
        update={
            "features": CAMPAIGN.features.model_copy(
                update={"numeric": ["*"], "categorical": ["*"]}
            )
        }
    )
    expanded = expand_features(spec, table(vip=[True, False, True, False]))
    assert expanded.features.numeric == ["games"]
    assert expanded.features.categorical == ["device", "vip"]


DISCOUNT = {"column": "off", "dose": {"min": 0, "max": 30, "steps": 4}}
DOSED = Campaign.model_validate(
    {
        **CAMPAIGN.model_dump(),
        "treatments": {"bonus": DISCOUNT},
        "propensity": "estimate",
    }
)


def test_a_dose_is_kept_as_it_was_and_counts_as_the_nearest_arm() -> None:
    given = [0, 4.9, 5.1, 30]
    frame = decision_frame(table(off=given), DOSED, "log.csv")
    assert frame["bonus"].tolist() == given
    assert frame["arm"].tolist() == [0, 0, 1, 3]
    assert frame["propensity"].tolist() == [0.5, 0.5, 0.25, 0.25]
    words = decision_frame(table(off=["0", "4.9", "5.1", "30"]), DOSED, "log.csv")
    pd.testing.assert_frame_equal(words, frame)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([0, 31, -2, 30], "2 rows lie outside the dose's 0 to 30, such as 31; widen dose.min"),
        ([0, np.nan, 10, 30], "1 rows have no dose; control is 0"),
        ([0, "much", 10, 30], "column 'off', row 1: 'much' is no number; a dose is a number"),
        ([0, 1, 2, 3], "every row was given arm '0'"),
    ],
)
def test_a_dose_that_cannot_be_gets_its_sentence(given: list[Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        decision_frame(table(off=given), DOSED, "log.csv")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"bonus": ["none", "gold", "none", "coins"]},
            "'gold' in 1 rows is no level; the levels are 'none' or 'coins'",
        ),
        ({"bonus": ["coins"] * 4}, "every row was given arm 'coins'"),
        ({"p": [0.5, 0.0, 0.5, 1.5]}, "2 rows lie outside (0, 1], such as 0.0 in row 1"),
        ({"p": [0.5, np.nan, 0.5, 0.5]}, "1 rows lie outside (0, 1]"),
        ({"login": [1, 1, 1, 1]}, "column 'login' (outcomes.login): every row is 1"),
        ({"login": [0, 1, 2, 1]}, "holds 2; a binary outcome is 0 or 1"),
        ({"login": [np.nan] * 4}, "no row has a value"),
        ({"games": [1.0, np.inf, 2.0, -np.inf]}, "column 'games': 2 infinite values"),
        ({"games": ["a", "2", "3", "4"]}, "column 'games', row 0: 'a' is no number"),
        ({"decision_id": ["a", "a", "b", "c"]}, "1 rows repeat an id, such as 'a'"),
        (
            {"at": pd.date_range("2026-01-01", periods=4, freq="h")},
            "times such as 2026-01-01 00:00:00 have no zone",
        ),
        ({"at": ["2026-01-01T00:00:00"] * 4}, "have no zone"),
        ({"at": ["yesterday"] * 4}, "'yesterday' is no time"),
        ({"player_id": [1, None, 3, 4]}, "1 rows have no unit"),
    ],
)
def test_each_mistake_gets_its_sentence(changes: dict[str, Any], told: str) -> None:
    message = problem(**changes)
    assert told in message
    assert message.startswith("log.csv: ")


def test_all_mistakes_are_told_at_once() -> None:
    message = problem(p=[2, 2, 2, 2], login=[1, 1, 1, 1], games=[np.inf, 1, 2, 3])
    assert len(message.splitlines()) == 3


def test_a_missing_column_names_the_nearest() -> None:
    with pytest.raises(DataError, match="column 'games' .* is missing; did you mean 'game'?"):
        decision_frame(table().rename(columns={"games": "game"}), CAMPAIGN, "log.csv")


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="has no rows"):
        decision_frame(table().iloc[:0], CAMPAIGN, "log.csv")


def test_zoned_text_timestamps_become_utc() -> None:
    frame = decision_frame(table(at=["2026-01-01T02:00:00+02:00"] * 4), CAMPAIGN, "log.csv")
    assert frame["decided_at"].iloc[0] == pd.Timestamp("2026-01-01T00:00:00Z")


class TestSources:
    def test_csv_round_trip(self, tmp_path: Any) -> None:
        path = tmp_path / "log.csv"
        table().to_csv(path, index=False)
        spec = located(CAMPAIGN, tmp_path, Settings(home=tmp_path / "home"))
        frame = decision_frame(read_table(spec), spec, str(path))
        assert frame["unit_id"].tolist() == ["1", "2", "3", "4"]

    def test_a_path_is_found_in_the_home_too(self, tmp_path: Any) -> None:
        (tmp_path / "home" / "data").mkdir(parents=True)
        table().to_csv(tmp_path / "home" / "data" / "log.csv", index=False)
        spec: Campaign = located(CAMPAIGN, tmp_path, Settings(home=tmp_path / "home"))
        assert spec.source.path.endswith("home/data/log.csv")  # type: ignore[union-attr]

    def test_a_missing_file_names_where_it_was_looked_for(self, tmp_path: Any) -> None:
        with pytest.raises(DataError, match="is neither .*log.csv nor .*home/data/log.csv"):
            located(CAMPAIGN, tmp_path, Settings(home=tmp_path / "home"))

    @pytest.mark.parametrize(
        ("name", "text"), [("e.csv", ""), ("e.parquet", ""), ("e.parquet", "text")]
    )
    def test_a_broken_file_is_named(self, tmp_path: Any, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            read_file(str(tmp_path / name))
