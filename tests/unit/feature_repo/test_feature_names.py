"""Names of features inside Feast."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.names import field_names


@pytest.mark.parametrize("name", ["games_7d", "Age", "select", "order", "f0", "history_segment"])
def test_plain_names_stay(name: str) -> None:
    assert field_names([name]) == {name: name}


@pytest.mark.parametrize(
    "name",
    [
        "Win rate (7d)",
        "7d_games",
        "points_y",
        "unit_id",
        "RN",
        "größe",
        "a:b",
        "x__ts",
        " ",
        '"; DROP',
    ],
)
def test_names_that_a_store_would_trip_over_become_plain(name: str) -> None:
    field = field_names([name])[name]
    assert field != name
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*_[0-9a-f]{6}", field)


def test_names_that_differ_by_case_are_told_apart_in_either_order() -> None:
    one, other = field_names(["Age", "age"]), field_names(["age", "Age"])
    assert one == {"Age": other["Age"], "age": other["age"]}
    assert one["Age"].lower() != one["age"].lower()


@given(st.lists(st.text(max_size=12), unique=True, max_size=8))
def test_fields_are_unique_whatever_the_names(names: list[str]) -> None:
    fields = [field.lower() for field in field_names(names).values()]
    assert len(set(fields)) == len(names)
