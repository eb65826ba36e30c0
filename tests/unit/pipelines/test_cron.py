"""Cron of six fields, as Kubeflow Pipelines reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.errors import CampaignError
from pipelines.cron import checked_cron


@pytest.mark.parametrize(
    "cron",
    [
        "0 0 3 * * *",
        "*/30 * * * * ?",
        "0 0,30 9-17/2 1-7 JAN-mar,dec MON-FRI",
        "59 59 23 31 12 6",
        "0 0 0 ? * sun",
    ],
)
def test_good_schedules_stay_as_they_are(cron: str) -> None:
    assert checked_cron(cron) == cron


def test_spaces_are_made_single() -> None:
    assert checked_cron("  0 0\t3  * * * ") == "0 0 3 * * *"


@pytest.mark.parametrize(
    ("cron", "told"),
    [
        ("0 3 * * *", "has five fields; KFP wants six, seconds first: write '0 0 3 * * *'"),
        ("*/15 * * * 1-5", "write '0 */15 * * * 1-5'"),
        ("@daily", "write '0 0 0 * * *'"),
        ("", "has 0 fields; KFP wants six: second, minute, hour"),
        ("0 0 3 * * * 2026", "has 7 fields"),
        ("0 0 24 * * *", "hour 24 is not within 0-23 ('0 0 3 * * *' is 3:00 every day)"),
        ("0 60 3 * * *", "minute 60 is not within 0-59"),
        ("0 0 3 0 * *", "day of month 0 is not within 1-31"),
        ("0 0 3 * 13 *", "month 13 is not within 1-12"),
        ("0 0 3 * * 7", "day of week 7 is not within 0-6; Sunday is 0"),
        ("0 0 3 * * FRI-MON", "day of week 'FRI-MON' runs backwards"),
        ("0 0 3 * * Monday", "day of week 'Monday' is no number, range or *"),
        ("0 0 3 */0 * *", "day of month '*/0' has no step after the slash"),
        ("0 0 3 */ * *", "has no step"),
        ("0 0 1-2-3 * * *", "hour '1-2-3' is no number"),
        ("0 0 3, * * *", "hour '' is no number"),
        ("0 0 -3 * * *", "hour '-3' is no number"),
        ("0 25 * * *", "hour 25 is not within 0-23"),  # the mended one would be wrong, too
    ],
)
def test_each_mistake_is_told_with_what_is_right(cron: str, told: str) -> None:
    with pytest.raises(CampaignError) as caught:
        checked_cron(cron)
    assert told in str(caught.value)
    assert repr(cron) in str(caught.value) or "0 0 25" in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_answered(text: str) -> None:
    try:
        fields = checked_cron(text).split()
    except CampaignError:
        return
    assert len(fields) == 6
