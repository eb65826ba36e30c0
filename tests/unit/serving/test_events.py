"""The event store, on SQLite and (where one runs) PostgreSQL."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from uuid6 import uuid7

from campaigns.errors import DataError, EnvironmentProblem
from campaigns.frame import DECISION_COLUMNS
from campaigns.loading import parse_campaign
from campaigns.spec import Campaign
from serving.events import EventStore
from serving.records import Decision, OutcomeRecord
from serving.transaction import RequestConflict

POSTGRES = "postgresql://postgres@127.0.0.1:5432/test"
NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
WINDOW = timedelta(days=7)

CAMPAIGN = parse_campaign(
    """
name: bonus
unit: player_id
source: {kind: events}
timestamp: at
features: {numeric: [games], categorical: [device]}
treatments:
  bonus: {column: bonus, control: none, levels: {none: {cost: 0.0}, coins: {cost: 0.3}, skin: {cost: 0.55}}}
outcomes:
  login: {kind: binary, value: 1.0}
  spend: {kind: continuous, role: cost}
budget: {per: day, amount: 100.0}
"""
)


def decision(**changes: Any) -> Decision:
    arm = int(changes.get("arm", 1))
    level = CAMPAIGN.arm_table.level_names[arm][0]
    values: dict[str, Any] = {
        "decision_id": str(uuid7()),
        "campaign": "bonus",
        "unit_id": "p1",
        "decided_at": NOW,
        "arm": arm,
        "arm_name": level,
        "levels": {"bonus": level},
        "propensity": 0.9,
        "explored": False,
        "explored_propensity": None,
        "holdout": False,
        "policy_version": "abc",
        "model_version": "3",
        "epsilon": 0.1,
        "features": {"games": 2.5, "device": "ios"},
        "cost": float(CAMPAIGN.arm_table.costs[arm]),
        "epoch": "2026-02-03",
        "period": "2026-02-03",
    }
    return Decision(**{**values, **changes})


def outcome(
    decision: Decision, value: float = 1.0, name: str = "login", **more: Any
) -> OutcomeRecord:
    return OutcomeRecord(decision.decision_id, name, value, **more)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'events' / 'events.db'}"
        return
    pytest.importorskip("psycopg", reason="PostgreSQL driver (psycopg) is not installed")
    schema = f"updraft_{uuid7().hex}"
    engine = create_engine(POSTGRES.replace("postgresql", "postgresql+psycopg"))
    try:
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
    except Exception as error:
        pytest.skip(f"no PostgreSQL at 127.0.0.1:5432, database 'test' ({type(error).__name__})")
    yield f"{POSTGRES}?options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    opened = EventStore(url)
    opened.register(CAMPAIGN)
    yield opened
    opened.close()


def frame(store: EventStore, campaign: Campaign = CAMPAIGN, **more: Any) -> pd.DataFrame:
    return store.decisions_frame(campaign, **{"now": NOW + WINDOW, **more})


DOSED = Campaign.model_validate(
    {
        **CAMPAIGN.model_dump(),
        "name": "discount",
        "treatments": {"discount": {"column": "off", "dose": {"min": 0, "max": 30, "steps": 4}}},
    }
)


def test_a_dose_comes_back_as_the_number_that_it_is(store: EventStore) -> None:
    store.register(DOSED)
    store.record_decisions(
        [decision(campaign="discount", arm_name="10", levels={"discount": "10"})]
    )
    made = frame(store, DOSED)
    assert (made["arm"][0], made["discount"][0]) == (1, 10.0)
    assert made["discount"].dtype == np.float64


def test_a_decision_comes_back_as_it_was_made(store: EventStore) -> None:
    made = decision(
        explored=True,
        explored_propensity=1 / 3,
        features={"games": None, "device": "ü\x00"},
        price=1.5,
    )
    store.record_decisions([made])
    assert store.decisions([made.decision_id, "unknown"]) == [made]


def test_the_same_request_id_returns_the_first_decisions(store: EventStore) -> None:
    first = [decision(unit_id=f"p{i}") for i in range(3)]
    assert store.record_decisions(first, request_id="r1") == first
    assert store.record_decisions([decision()], request_id="r1") == first
    assert store.ledger("bonus", "2026-02-03").decisions == 3


def test_a_request_id_with_another_body_is_a_conflict(store: EventStore) -> None:
    with store.transaction("bonus") as writer:
        writer.add([], "r1", "one body")
        assert writer.find("r1", "one body") == []
    with store.transaction("bonus") as writer:
        assert writer.find("r1", "one body") == []
        with pytest.raises(RequestConflict, match="r1"):
            writer.find("r1", "another body")


def test_a_decision_id_twice_stores_nothing(store: EventStore) -> None:
    twice = decision()
    store.record_decisions([twice])
    with pytest.raises(DataError, match="stored already"):
        store.record_decisions([decision(unit_id="other"), twice])
    assert store.ledger("bonus", "2026-02-03").decisions == 1


def test_a_campaign_must_be_registered(store: EventStore) -> None:
    with pytest.raises(DataError, match="'bonus'"):
        store.record_decisions([decision(campaign="other")])


def test_what_raises_in_a_transaction_leaves_nothing(store: EventStore) -> None:
    def fail_half_way() -> None:
        with store.transaction("bonus") as writer:
            writer.add([decision()])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert store.ledger("bonus", "2026-02-03").decisions == 0


def test_outcomes_are_refused_one_by_one(store: EventStore) -> None:
    made = decision()
    store.record_decisions([made])
    report = store.record_outcomes(
        [
            outcome(made),
            OutcomeRecord("no-such", "login", 1.0),
            outcome(made, name="logins"),
            outcome(made, 0.5),
            outcome(made, float("nan"), name="spend"),
            outcome(made, 0.25, name="spend"),
        ]
    )
    assert (report.stored, report.repeated) == (2, 0)
    assert [(p.index, p.field) for p in report.problems] == [
        (1, "decision_id"),
        (2, "outcome"),
        (3, "value"),
        (4, "value"),
    ]
    assert "'login' or 'spend'" in report.problems[1].message


def test_the_first_write_counts_unless_corrected(store: EventStore) -> None:
    made = decision()
    store.record_decisions([made])
    late = NOW + timedelta(days=400)
    values = [(0.0, False), (1.0, False), (1.0, True), (0.0, False)]
    expected = [0.0, 0.0, 1.0, 1.0]
    repeats = []
    for (value, correct), counts in zip(values, expected):
        report = store.record_outcomes([outcome(made, value, correct=correct, observed_at=late)])
        repeats.append(report.repeated)
        assert frame(store)["login"].tolist() == [counts]
    assert repeats == [0, 1, 0, 1]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    writes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8),
    one=st.booleans(),
)
def test_which_write_counts_is_the_rule_whatever_the_order(
    store: EventStore, writes: list[tuple[bool, bool]], one: bool
) -> None:
    made = decision()
    store.record_decisions([made])
    records = [outcome(made, float(value), correct=correct) for value, correct in writes]
    for batch in [records] if one else [[record] for record in records]:
        store.record_outcomes(batch)
    corrections = [float(value) for value, correct in writes if correct]
    counts = corrections[-1] if corrections else float(writes[0][0])
    seen = frame(store).set_index("decision_id")
    assert seen.loc[made.decision_id, "login"] == counts


def test_a_frame_holds_what_is_complete(store: EventStore) -> None:
    old = decision(decided_at=NOW - WINDOW, arm=2, unit_id="old")
    both = decision(unit_id="both", arm=0, explored=True, explored_propensity=1 / 3)
    half = decision(unit_id="half")
    future = decision(unit_id="future", decided_at=NOW + timedelta(hours=1))
    store.record_decisions([both, half, future, old])
    store.record_outcomes([outcome(both), outcome(both, 0.2, name="spend"), outcome(half)])

    now = frame(store, now=NOW)
    assert now["unit_id"].tolist() == ["old", "both"]
    assert now[["login", "spend"]].to_numpy().tolist() == [[0.0, 0.0], [1.0, 0.2]]
    assert [*now.columns] == [*DECISION_COLUMNS, "bonus", "games", "device", "login", "spend"]
    assert now["bonus"].tolist() == ["skin", "none"]
    assert now["arm"].tolist() == [2, 0]
    assert str(now["decided_at"].dtype) == "datetime64[us, UTC]"
    np.testing.assert_allclose(now["explored_propensity"], [np.nan, 1 / 3])

    unknown = CAMPAIGN.model_copy(
        update={"attribution": CAMPAIGN.attribution.model_copy(update={"absent": "unknown"})}
    )
    assert frame(store, unknown, now=NOW)["login"].isna().tolist() == [True, False]
    assert frame(store, now=NOW, since=NOW)["unit_id"].tolist() == ["both"]
    assert len(frame(store)) == 3  # all but the future one


def test_an_empty_frame_has_the_columns_and_types(store: EventStore) -> None:
    empty = frame(store)
    assert len(empty) == 0
    assert empty["games"].dtype == np.float64
    assert str(empty["decided_at"].dtype) == "datetime64[us, UTC]"


def test_arms_follow_their_levels_when_a_campaign_changes(store: EventStore) -> None:
    store.record_decisions([decision(arm=1, unit_id="coins"), decision(arm=2, unit_id="skin")])
    data = CAMPAIGN.model_dump(mode="json")
    levels = data["treatments"]["bonus"]["levels"]
    data["treatments"]["bonus"]["levels"] = {"none": {}, "gem": {"cost": 1}, "skin": levels["skin"]}
    changed = Campaign.model_validate(data)
    seen = frame(store, changed)
    assert seen[["unit_id", "arm"]].to_numpy().tolist() == [["skin", 2]]


def test_the_ledger_and_the_summary_agree(store: EventStore) -> None:
    made = [
        decision(arm=0, holdout=True, propensity=1.0),
        decision(arm=1),
        decision(arm=2, explored=True, explored_propensity=1 / 3),
        decision(arm=2, period="2026-02-04"),
    ]
    store.record_decisions(made)
    store.record_outcomes([outcome(made[0], 0.0), outcome(made[1], 1.0), outcome(made[1], 0.0)])
    first, second = store.summary("bonus")
    assert (first.period, first.decisions, first.explored, first.holdout) == ("2026-02-03", 3, 1, 1)
    assert first.by_arm == {"none": 1, "coins": 1, "skin": 1}
    assert first.outcomes == {"login": 0.5}
    assert first.observed == {"login": 2}
    assert second.by_arm == {"skin": 1}
    ledger = store.ledger("bonus", "2026-02-03")
    assert ledger.spend == pytest.approx(first.spend) == pytest.approx(0.85)
    assert ledger.exploration_spend == pytest.approx(first.exploration_spend) == pytest.approx(0.55)


def test_many_rows_are_written_in_seconds(store: EventStore) -> None:
    many = [decision(unit_id=f"p{i}", arm=i % 3) for i in range(20_000)]
    start = time.process_time()
    store.record_decisions(many)
    report = store.record_outcomes([outcome(d, i % 2) for i, d in enumerate(many)])
    elapsed = time.process_time() - start
    assert report.stored == 20_000
    assert elapsed < 5  # of CPU; about 2 s
    assert len(frame(store)) == 20_000


def _write(url: str, worker: int, start: Any) -> None:
    start.wait()
    store = EventStore(url)
    store.register(CAMPAIGN)
    for i in range(20):
        made = [decision(unit_id=f"{worker}-{i}-{j}") for j in range(3)]
        store.record_decisions(made, request_id=f"shared-{i}")
        store.record_outcomes([outcome(made[0])])


@pytest.mark.slow
def test_processes_write_at_once(url: str) -> None:
    """Four processes open the same new database and race for the same request ids."""
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    workers = [context.Process(target=_write, args=(url, n, start)) for n in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    store = EventStore(url)
    assert store.ledger("bonus", "2026-02-03").decisions == 20 * 3
    assert store.summary("bonus")[0].decisions == 20 * 3
    store.close()


def _hurry(url: str, start: Any, counts: Any) -> None:
    store = EventStore(url)
    store.register(CAMPAIGN)
    start.wait()
    written, end = 0, time.monotonic() + 3
    while time.monotonic() < end:
        store.record_decisions([decision() for _ in range(20)])
        written += 1
    counts.put(written)


@pytest.mark.slow
def test_a_busy_process_does_not_starve_another(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start, counts = context.Event(), context.Queue()
    workers = [context.Process(target=_hurry, args=(url, start, counts)) for _ in range(2)]
    for worker in workers:
        worker.start()
    time.sleep(3)
    start.set()
    written = [counts.get(timeout=60) for _ in workers]
    assert min(written) > max(written) / 8


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "no database URL"),
        ("oracle://host/db", "event_store|EVENT_STORE"),
        ("sqlite://", "not durable"),
        ("sqlite:////proc/no/events.db", "event store sqlite"),
        ("postgresql://user:secret@127.0.0.1:1/none", "event store postgresql"),
    ],
)
def test_a_bad_address_is_one_sentence(url: str, words: str) -> None:
    with pytest.raises(EnvironmentProblem, match=words) as caught:
        EventStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"propensity": 0.0},
        {"propensity": 1.5},
        {"explored": True},
        {"explored_propensity": 0.5},
        {"cost": float("inf")},
        {"decided_at": datetime(2026, 1, 1)},
    ],
)
def test_a_poisonous_decision_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        decision(**changes)
