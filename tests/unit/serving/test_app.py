"""The service over HTTP, without Ray: what is promised to those who call it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from campaigns.errors import CampaignError, EnvironmentProblem
from campaigns.spec import Campaign
from serving.app import create_app
from serving.events import EventStore
from serving.guard import MAX_BODY
from serving.service import Online, Service

TOKEN = "secret-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
URL = "/v1/campaigns/bonus/decisions"

CAMPAIGN = Campaign.model_validate(
    {
        "name": "bonus",
        "unit": "player_id",
        "source": {"kind": "events"},
        "timestamp": "at",
        "features": {"numeric": ["games", "friends"], "categorical": ["device"]},
        "treatments": {
            "bonus": {
                "column": "bonus",
                "control": "none",
                "levels": {"none": {"cost": 0.0}, "coins": {"cost": 0.3}, "skin": {"cost": 0.55}},
            }
        },
        "outcomes": {
            "login": {"kind": "binary", "value": 1.0},
            "played": {"kind": "count", "value": 0.1},
        },
        "budget": {"per": "total", "amount": 1000.0},
        "exploration": {"epsilon": 0.2, "salt": "s"},
    }
)


@dataclass
class Linear:
    """Each game makes a skin worth more."""

    campaign: Campaign = CAMPAIGN
    price: float = 0.5

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        games = np.nan_to_num(columns["games"]).clip(-100, 100)
        uplift = np.outer(games, [0.0, 0.1, 0.2])
        return np.stack([uplift, 0.0 * uplift], axis=2)


def load_model(name: str, version: str) -> Linear:
    if name != "bonus" or version == "missing":
        raise CampaignError(f"{name}: there is no version {version}")
    return Linear()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    yield opened
    opened.close()


@pytest.fixture
def service(store: EventStore) -> Iterator[Service]:
    made = Service(store, load_model, token=TOKEN)
    made.configure({"bonus": "1"})
    yield made
    made.close()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), headers=HEADERS) as opened:
        yield opened


def ask(client: TestClient, *units: str, **more: Any) -> dict[str, Any]:
    listed = [{"unit_id": unit, "features": {"games": 5}} for unit in units or ("u1",)]
    answer = client.post(URL, json={"units": listed, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_decision_is_on_disk_when_it_is_answered(client: TestClient, store: EventStore) -> None:
    answer = ask(client, "a", "b")
    ids = [one["decision_id"] for one in answer["decisions"]]
    kept = store.decisions(ids)
    assert [one.unit_id for one in kept] == ["a", "b"]
    for said, one in zip(answer["decisions"], kept):
        assert (said["arm"], said["arm_name"]) == (one.arm, one.arm_name)
        assert said["propensity"] == one.propensity
        assert said["levels"] == {"bonus": one.arm_name}
        assert one.features == {"games": 5.0, "friends": None, "device": None}
        assert (one.model_version, one.policy_version) == ("1", CAMPAIGN.hash)


def test_one_unit_needs_no_list(client: TestClient) -> None:
    answer = client.post(URL, json={"request_id": 7, "unit_id": 42, "features": {"games": 1}})
    assert answer.json()["decisions"][0]["unit_id"] == "42"


def test_a_body_is_json_whatever_it_is_called(client: TestClient) -> None:
    """``curl -d`` calls it a form."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post(URL, content=b'{"unit_id": "u"}', headers=headers).status_code == 200


def test_a_repeated_request_gets_the_same_decisions(client: TestClient, store: EventStore) -> None:
    first = ask(client, "a", "b", request_id="r1")
    assert ask(client, "a", "b", request_id="r1") == first
    assert store.ledger("bonus").decisions == 2
    answer = client.post(URL, json={"request_id": "r1", "units": [{"unit_id": "z"}]})
    assert answer.status_code == 409
    assert answer.json()["problems"][0]["field"] == "request_id"


def test_requests_at_once_share_a_request_id(client: TestClient, store: EventStore) -> None:
    def one(_: int) -> str:
        return json.dumps(ask(client, "a", request_id="same"))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(32)))) == 1
    assert store.ledger("bonus").decisions == 1


def test_many_requests_at_once_are_all_answered(client: TestClient, store: EventStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: ask(client, f"u{i}", f"v{i}"), range(100)))
    ids = [one["decision_id"] for answer in answers for one in answer["decisions"]]
    assert len(store.decisions(ids)) == 200
    assert [answer["decisions"][0]["unit_id"] for answer in answers] == [
        f"u{i}" for i in range(100)
    ]


def test_outcomes_are_stored_and_refused_one_by_one(client: TestClient) -> None:
    decision = ask(client)["decisions"][0]["decision_id"]
    good = {"decision_id": decision, "outcome": "login", "value": True}
    assert client.post("/v1/outcomes", json=good).json() == {
        "stored": 1,
        "repeated": 0,
        "problems": [],
    }
    mixed = client.post(
        "/v1/outcomes", json=[{**good, "correct": True}, {**good, "outcome": "logn"}]
    )
    assert mixed.status_code == 207
    assert mixed.json()["stored"] == 1
    assert mixed.json()["problems"] == [
        {
            "field": "outcomes.1.outcome",
            "message": "'logn' is no outcome; choose from 'login' or 'played'",
        }
    ]
    refused = client.post("/v1/outcomes", json={"outcomes": [{**good, "outcome": "logn"}]})
    assert refused.status_code == 422
    assert "'login' or 'played'" in refused.text
    unknown = client.post("/v1/outcomes", json={**good, "decision_id": "no-such"})
    assert (unknown.status_code, unknown.json()["problems"][0]["field"]) == (
        422,
        "outcomes.0.decision_id",
    )


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}]
)
@pytest.mark.parametrize("path", [URL, "/v1/outcomes", "/v1/campaigns/bonus/rollback", "/anything"])
def test_changes_need_the_token(service: Service, headers: dict[str, str], path: str) -> None:
    client = TestClient(create_app(service), headers=headers)
    answer = client.post(path, content=b"not even JSON")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    ["/v1/campaigns", "/v1/campaigns/bonus", "/healthz", "/metrics", "/docs", "/openapi.json"],
)
def test_reading_is_open(service: Service, path: str) -> None:
    assert TestClient(create_app(service)).get(path).status_code == 200


def test_an_unknown_campaign_lists_those_there_are(client: TestClient) -> None:
    for answer in (
        client.post(URL.replace("bonus", "bonsu"), json={"unit_id": 1}),
        client.get("/v1/campaigns/x"),
    ):
        assert answer.status_code == 404
        assert "'bonus'" in answer.json()["error"]


BAD = [
    ({"unit_id": "u", "features": {"games": "many"}}, "units.0.features.games"),
    ({"unit_id": "u", "features": {"game": 1}}, "units.0.features.game"),
    ({"unit_id": "u", "features": {"device": 1.5}}, "units.0.features.device"),
    ({"unit_id": "u", "features": {"device": "\ud800"}}, "units.0.features.device"),
    ({"unit_id": "u", "features": {"games": [1]}}, "units.0.features.games"),
    ({"unit_id": "u", "features": {"games": 10**400}}, "units.0.features.games"),
    ({"unit_id": "u", "features": [1]}, "units.0.features"),
    ({"unit_id": "u", "arms": ["gems"]}, "units.0.arms.0"),
    ({"unit_id": "u", "arms": "coins"}, "units.0.arms"),
    ({"unit_id": ""}, "units.0.unit_id"),
    ({"unit_id": True}, "units.0.unit_id"),
    ({"unit_id": 1.5}, "units.0.unit_id"),
    ({"unit_id": "x" * 201}, "units.0.unit_id"),
    ({"unit_id": "a\x00b"}, "units.0.unit_id"),
    ({"unit_id": "\ud800"}, "units.0.unit_id"),
    ({"unit_id": 10**300}, "units.0.unit_id"),
    ({"unit_id": "u", "request_id": {}}, "request_id"),
    ({"unit_id": "u", "colour": 1}, "units.0.colour"),
    ({"units": []}, "units"),
    ({"units": [{"features": {}}]}, "units.0.unit_id"),
    ({"units": [{"unit_id": i} for i in range(1001)]}, "units"),
    ({"units": "u"}, "units"),
    ({}, "units"),
    ([], "body"),
    (None, "body"),
    (7, "body"),
]


@pytest.mark.parametrize(("body", "field"), BAD)
def test_bad_requests_name_the_field(client: TestClient, body: Any, field: str) -> None:
    answer = client.post(
        URL, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert field in [problem["field"] for problem in answer.json()["problems"]]


BAD_OUTCOMES = [
    ({"value": "1"}, "outcomes.0.value"),
    ({"value": None}, "outcomes.0.value"),
    ({"value": 0.5}, "outcomes.0.value"),
    ({"outcome": "played", "value": -1}, "outcomes.0.value"),
    ({"outcome": "played", "value": 10**400}, "outcomes.0.value"),
    ({"outcome": 5}, "outcomes.0.outcome"),
    ({"observed_at": "yesterday"}, "outcomes.0.observed_at"),
    ({"observed_at": "2026-01-01T00:00:00"}, "outcomes.0.observed_at"),
    ({"observed_at": 1e300}, "outcomes.0.observed_at"),
    ({"correct": "yes"}, "outcomes.0.correct"),
    ({"correct": 1}, "outcomes.0.correct"),
    ({"extra": 1}, "outcomes.0.extra"),
]


@pytest.mark.parametrize(("changes", "field"), BAD_OUTCOMES)
def test_bad_outcomes_name_the_field(
    client: TestClient, changes: dict[str, Any], field: str
) -> None:
    decision = ask(client)["decisions"][0]["decision_id"]
    body = {"decision_id": decision, "outcome": "login", "value": 1, **changes}
    answer = client.post("/v1/outcomes", json=body)
    assert answer.status_code == 422, answer.text
    assert field in [problem["field"] for problem in answer.json()["problems"]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"unit_id": "u", "features": {"games": NaN}}',
        b'{"unit_id": "u", "features": {"games": -Infinity}}',
        b'{"unit_id": "u", "features": {"games": 1e999}}',
        b'{"unit_id": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"unit_id": "\\ud800"}',
        b'{"request_id": "\\ud800", "unit_id": "u"}',
    ],
)
@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"]
)
def test_what_is_no_request_is_refused(client: TestClient, content: bytes, kind: str) -> None:
    answer = client.post(URL, content=content, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["unit_id", "units", "features", "games", "device", "arms", "request_id"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=json_like, unit=json_like, path=st.sampled_from([URL, "/v1/outcomes"]))
def test_nothing_gets_a_500(client: TestClient, body: Any, unit: Any, path: str) -> None:
    key = "units" if path == URL else "outcomes"
    for sent in (body, {key: body}, {key: [{"unit_id": "u", "features": unit}]}, {"unit_id": unit}):
        answer = client.post(
            path, content=json.dumps(sent), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code < 500, (sent, answer.text)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.text(max_size=20), method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]))
def test_no_path_gets_a_500(client: TestClient, path: str, method: str) -> None:
    from urllib.parse import quote

    for place in (f"/{quote(path)}", f"/v1/campaigns/{quote(path, safe='')}"):
        assert client.request(method, place).status_code < 500


def test_a_body_that_is_too_long_is_413(client: TestClient, store: EventStore) -> None:
    for size in (MAX_BODY + 1, 10_000_000):
        answer = client.post(URL, content=b" " * size, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413

    def chunks() -> Iterator[bytes]:
        yield from [b" " * 1_000_000] * 10

    assert client.post(URL, content=chunks()).status_code == 413
    ask(client)


def test_a_campaign_tells_how_it_does(client: TestClient) -> None:
    ask(client, *[f"u{i}" for i in range(200)])
    now = client.get("/v1/campaigns/bonus").json()
    assert (now["healthy"], now["model_version"], now["price"]) == (True, "1", 0.5)
    assert now["decisions"] == sum(now["by_arm"].values()) == 200
    assert now["budget"]["spent"] == pytest.approx(
        0.3 * now["by_arm"]["coins"] + 0.55 * now["by_arm"]["skin"]
    )
    assert now["budget"]["left"] == pytest.approx(1000 - now["budget"]["spent"])
    assert now["epsilon"] == 0.2
    assert 10 < now["explored"] < 80


def test_metrics_come_from_the_store(client: TestClient, store: EventStore) -> None:
    ask(client, *[f"u{i}" for i in range(50)])
    other = Service(store, load_model, token=TOKEN)  # a second replica on the same store
    other.configure({"bonus": "1"})
    numbers = []
    for one in (client, TestClient(create_app(other))):
        families = {f.name: f for f in text_string_to_metric_families(one.get("/metrics").text)}
        numbers.append(
            {
                (sample.name, *sorted(sample.labels.items())): sample.value
                for name, family in families.items()
                if not name.startswith("updraft_request")
                for sample in family.samples
            }
        )
        assert sum(sample.value for sample in families["updraft_decisions"].samples) == 50
    assert numbers[0] == numbers[1]
    assert 'route="/v1/campaigns/{name}/decisions"' in client.get("/metrics").text


def test_a_swap_keeps_what_worked_and_says_so(client: TestClient, service: Service) -> None:
    service.configure({"bonus": "missing"})
    now = client.get("/v1/campaigns/bonus").json()
    assert (now["healthy"], now["model_version"]) == (False, "1")
    assert "missing" in now["fault"]
    assert client.get("/healthz").status_code == 503
    assert ask(client)["decisions"][0]["model_version"] == "1"
    service.configure({"bonus": "1", "other": "missing"})
    assert client.get("/v1/campaigns/other").status_code == 503
    assert client.get("/v1/campaigns").json() == {"bonus": "1"}
    service.configure({"bonus": "2"})
    assert client.get("/healthz").json() == {"status": "ok", "campaigns": {"bonus": "2"}}
    assert ask(client)["decisions"][0]["model_version"] == "2"


def test_a_first_version_must_load(store: EventStore) -> None:
    service = Service(store, load_model, token=TOKEN)
    with pytest.raises(CampaignError):
        service.configure({"bonus": "missing"})


def test_swaps_under_requests_fail_none(client: TestClient, service: Service) -> None:
    stop = threading.Event()

    def swap() -> None:
        version = 1
        while not stop.is_set():
            version += 1
            service.configure({"bonus": str(version)})

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        versions = {ask(client, f"u{i}")["decisions"][0]["model_version"] for i in range(60)}
    finally:
        stop.set()
        swapper.join()
    assert len(versions) > 1


def test_rollback(store: EventStore) -> None:
    def back(name: str) -> str:
        service.configure({name: "1"})
        return "1"

    service = Service(store, load_model, token=TOKEN, roll_back=back)
    service.configure({"bonus": "2"})
    client = TestClient(create_app(service), headers=HEADERS)
    answer = client.post("/v1/campaigns/bonus/rollback")
    assert answer.json() == {"campaign": "bonus", "model_version": "1"}
    assert client.post("/v1/campaigns/other/rollback").status_code == 404


def test_rollback_without_a_registry(client: TestClient) -> None:
    assert client.post("/v1/campaigns/bonus/rollback").status_code == 501


class Features:
    """An online store that knows unit 'known'."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.broken = False

    def of(self, campaign: Campaign) -> Online:
        return self.read

    def read(self, units: Sequence[str]) -> dict[str, np.ndarray]:
        if self.broken:
            raise OSError("gone")
        self.asked.append(list(units))
        known = np.array([unit == "known" for unit in units])
        return {
            "games": np.where(known, 9.0, np.nan),
            "friends": np.where(known, 2.0, np.nan),
            "device": np.where(known, "ios", None),
        }


def test_features_come_from_the_online_store_unless_given(store: EventStore) -> None:
    features = Features()
    service = Service(store, load_model, token=TOKEN, online=features.of)
    service.configure({"bonus": "1"})
    client = TestClient(create_app(service), headers=HEADERS)
    full = {"games": 1, "friends": 1, "device": "pc"}
    units: list[dict[str, Any]] = [
        {"unit_id": "known"},
        {"unit_id": "known", "features": {"games": 1, "device": None}},
        {"unit_id": "stranger"},
        {"unit_id": "full", "features": full},
    ]
    answer = client.post(URL, json={"units": units}).json()
    kept = store.decisions([one["decision_id"] for one in answer["decisions"]])
    assert [dict(one.features) for one in kept] == [
        {"games": 9.0, "friends": 2.0, "device": "ios"},
        {"games": 1.0, "friends": 2.0, "device": None},
        {"games": None, "friends": None, "device": None},
        full,
    ]
    assert features.asked == [["known", "stranger"]]
    features.broken = True
    away = client.post(URL, json={"unit_id": "known"})
    assert (away.status_code, away.headers["Retry-After"]) == (503, "1")
    assert client.post(URL, json={"unit_id": "u", "features": full}).status_code == 200


def test_a_database_that_is_away_is_503(client: TestClient, store: EventStore) -> None:
    def away(campaign: str) -> Any:
        raise EnvironmentProblem("event store: is away")

    store.transaction = away  # type: ignore[method-assign]
    assert client.post(URL, json={"unit_id": "u"}).status_code == 503


def test_an_id_may_hold_any_printable_text(client: TestClient) -> None:
    for unit in ("ä\u00df\u4e2d", "a b", "'; DROP TABLE decisions; --", "%s {x}"):
        assert ask(client, unit)["decisions"][0]["unit_id"] == unit
