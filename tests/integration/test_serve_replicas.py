"""Two replicas on a real Ray Serve over real HTTP: nothing is lost, doubled or dropped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest

from campaigns.errors import CampaignError, EnvironmentProblem, RemoteError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from campaigns.spec import Campaign
from campaigns.worlds import world
from feature_repo.store import FeatureRepository
from models.catalog import build
from models.dataset import fit_recipe
from models.registry import Registry
from models.uplift_model import UpliftModel
from serving.deploy import deploy, served, undeploy
from serving.events import EventStore
from serving.token import token

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

GAME = load_campaign(Path(__file__).parents[2] / "campaigns" / "game_bonus.yaml")
NAME = GAME.name
PATH = f"/v1/campaigns/{NAME}/decisions"
KNOWN = "player-with-features"


@dataclass
class Running:
    """A service, and what a client needs."""

    url: str
    settings: Settings
    campaign: Campaign
    store: EventStore

    def client(self) -> httpx.Client:
        bearer = {"Authorization": f"Bearer {token(self.settings)}"}
        return httpx.Client(base_url=self.url, headers=bearer, timeout=60, trust_env=False)

    def stored(self, answers: list[dict[str, Any]]) -> list[str]:
        """Of the decisions in these answers, those that are in the store."""
        ids = [one["decision_id"] for answer in answers for one in answer["decisions"]]
        return [one.decision_id for one in self.store.decisions(ids)]


@pytest.fixture(scope="module")
def running(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two versions in the registry, one unit in the feature store, version 1 served."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    frame = decision_frame(world("game_bonus").log(500, seed=5), GAME, "world")
    _register(frame, settings, tmp_path_factory)
    repository = FeatureRepository(GAME, settings)
    repository.apply()
    row = frame.iloc[[0]][GAME.features.names].assign(
        unit_id=KNOWN, event_timestamp=pd.Timestamp.now(tz="UTC").floor("us")
    )
    repository.push(row)
    url = deploy(settings, {NAME: "1"})
    store = EventStore(settings.event_store_url)
    yield Running(url, settings, GAME, store)
    store.close()
    undeploy()


def _register(frame: pd.DataFrame, settings: Settings, folders: pytest.TempPathFactory) -> None:
    recipe, registry = fit_recipe(frame, GAME), Registry(settings)
    for seed in range(2):
        config = {"width": 8}
        net = build("mtmt", recipe.shape, config, seed=seed).eval()
        model = UpliftModel(
            "mtmt", config, recipe.shape, recipe.encoder, recipe.scaler, net, GAME, price=0.1
        )
        folder = folders.mktemp("model")
        model.save(folder)
        registry.promote(NAME, registry.register(model, folder, {}))


def one(unit: str, **more: Any) -> dict[str, Any]:
    return {"units": [{"unit_id": unit, "features": {"games_7d": 3}}], **more}


@dataclass
class Traffic:
    """Clients that never stop asking; a failed request is asked again under its request id."""

    running: Running
    clients: int = 4
    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client: int) -> None:
        with self.running.client() as http:
            turn = 0
            while not self._stop.is_set():
                turn += 1
                body = one(f"{client}-{turn}", request_id=f"{id(self)}-{client}-{turn}")
                try:
                    answer = http.post(PATH, json=body)
                    answer.raise_for_status()
                    self.answers.append(answer.json())
                except httpx.HTTPError as error:
                    self.failures.append(str(error))

    def versions(self) -> Counter[str]:
        return Counter(answer["decisions"][0]["model_version"] for answer in list(self.answers))


def until(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.05)


def test_decisions_come_with_features_from_the_online_store(running: Running) -> None:
    with running.client() as http:
        given = {"games_7d": 3}
        units = [{"unit_id": KNOWN}, {"unit_id": KNOWN, "features": given}, {"unit_id": "new"}]
        answer = http.post(PATH, json={"units": units})
    assert answer.status_code == 200, answer.text
    fresh, mixed, new = running.store.decisions(
        [d["decision_id"] for d in answer.json()["decisions"]]
    )
    assert None not in fresh.features.values()
    assert dict(mixed.features) == {**fresh.features, "games_7d": 3.0}
    assert set(new.features.values()) == {None}
    assert set(new.features) == set(GAME.features.names)


def test_a_swap_fails_no_request(running: Running) -> None:
    with Traffic(running) as traffic:
        until(lambda: len(traffic.answers) > 30)
        before = {process.pid for process in _serving(running)}
        deploy(running.settings, {NAME: "2"})
        seen = len(traffic.answers)
        until(lambda: len(traffic.answers) > seen + 30)
        assert {process.pid for process in _serving(running)} == before  # in place
    assert traffic.failures == []
    assert set(traffic.versions()) == {"1", "2"}
    late = traffic.answers[seen + 10 :]
    assert {answer["decisions"][0]["model_version"] for answer in late} == {"2"}
    assert len(running.stored(traffic.answers)) == len(traffic.answers)
    assert served() == {NAME: "2"}


def test_a_version_that_does_not_exist_touches_nothing(running: Running) -> None:
    before = served()
    with Traffic(running) as traffic:
        for versions in ({NAME: "99"}, {"no_such": "1"}):
            with pytest.raises(CampaignError, match="no model version"):
                deploy(running.settings, versions)
    assert traffic.failures == []
    assert served() == before
    assert httpx.get(f"{running.url}/healthz", trust_env=False).status_code == 200


def test_a_version_that_replicas_cannot_load_leaves_the_one_before(running: Running) -> None:
    before = served()

    def here(name: str, version: str) -> Any:
        """Loads in this process; in the replicas the registry is asked."""

    with (
        Traffic(running) as traffic,
        pytest.raises(RemoteError, match="version 99 can't be served"),
    ):
        deploy(running.settings, {NAME: "99"}, load_model=here)
    assert traffic.failures == []
    assert served() == before
    deploy(running.settings, before)
    assert httpx.get(f"{running.url}/healthz", trust_env=False).status_code == 200


def test_rollback_moves_every_replica(running: Running) -> None:
    registry = Registry(running.settings)
    deploy(running.settings, {NAME: str(registry.version_of(NAME, "champion"))})
    before = {process.pid for process in _serving(running)}
    with Traffic(running) as traffic, running.client() as http:
        answer = http.post(f"/v1/campaigns/{NAME}/rollback")
        assert answer.status_code == 200, answer.text
        version = answer.json()["model_version"]
        seen = {httpx.get(f"{running.url}/v1/campaigns", trust_env=False).text for _ in range(20)}
    assert traffic.failures == []
    assert {process.pid for process in _serving(running)} == before  # in place
    assert registry.version_of(NAME, "champion") == version == served()[NAME]
    assert seen == {f'{{"{NAME}": "{version}"}}'}


def test_one_request_id_gives_one_decision_whoever_answers(running: Running) -> None:
    before = running.store.ledger(NAME).decisions

    def ask(turn: int) -> str:
        with running.client() as http:
            return http.post(PATH, json=one("twice", request_id=f"same-{turn % 5}")).text

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(ask, range(50)))
    assert len(set(answers)) == 5
    assert running.store.ledger(NAME).decisions == before + 5
    with running.client() as http:
        assert http.post(PATH, json=one("other", request_id="same-0")).status_code == 409


def test_a_killed_replica_loses_no_answered_decision(running: Running) -> None:
    with Traffic(running) as traffic:
        until(lambda: len(traffic.answers) > 30)
        victim = _serving(running)[0]
        os.kill(victim.pid, signal.SIGKILL)
        seen = len(traffic.answers)
        until(lambda: len(traffic.answers) > seen + 50)
        until(lambda: len(_serving(running)) == 2, seconds=120)
    assert len(set(running.stored(traffic.answers))) == len(traffic.answers)
    assert len(traffic.failures) <= 20  # those in flight; a client repeats them under their id
    # Repeating every request gives the same decisions: what was answered, and no new ones.
    decisions = running.store.ledger(NAME).decisions
    with running.client() as http:
        for answer in traffic.answers[-20:]:
            unit = answer["decisions"][0]["unit_id"]
            body = one(unit, request_id=f"{id(traffic)}-{unit}")
            assert http.post(PATH, json=body).json() == answer
    assert running.store.ledger(NAME).decisions == decisions


def test_outcomes_may_be_late_repeated_and_out_of_order(running: Running) -> None:
    with running.client() as http:
        made = http.post(PATH, json={"units": [{"unit_id": f"late-{n}"} for n in range(3)]}).json()
        ids = [one["decision_id"] for one in made["decisions"]]
        late = (datetime.now(UTC) + timedelta(days=30)).isoformat()
        login = {"outcome": "login_next_day", "observed_at": late}
        for decision in reversed(ids):
            for value in (1, 0):  # the first counts
                answer = http.post(
                    "/v1/outcomes", json={**login, "decision_id": decision, "value": value}
                )
                assert answer.status_code == 200, answer.text
        fixed = {**login, "decision_id": ids[0], "value": 0, "correct": True}
        assert http.post("/v1/outcomes", json=fixed).json() == {
            "stored": 1,
            "repeated": 0,
            "problems": [],
        }
    frame = running.store.decisions_frame(GAME, now=datetime.now(UTC) + timedelta(days=60))
    seen = frame.set_index("decision_id").loc[ids, "login_next_day"]
    assert seen.tolist() == [0.0, 1.0, 1.0]


def test_replicas_tell_the_same_numbers(running: Running) -> None:
    texts = set()
    for _ in range(10):
        lines = httpx.get(f"{running.url}/metrics", trust_env=False).text.splitlines()
        texts.add("\n".join(line for line in lines if line.startswith("updraft_decisions_total")))
    assert len(texts) == 1
    total = sum(float(line.rsplit(" ", 1)[1]) for line in next(iter(texts)).splitlines())
    assert total == running.store.ledger(NAME).decisions == running.store.summary(NAME)[0].decisions


def test_serve_listens_on_the_loopback_only(running: Running) -> None:
    port = int(running.url.rsplit(":", 1)[1])
    places = {c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port}
    assert places == {"127.0.0.1"}


def test_another_port_is_refused_while_it_runs(running: Running) -> None:
    with pytest.raises(EnvironmentProblem, match="runs at"):
        deploy(running.settings, {NAME: served()[NAME]}, port=1)


def _serving(running: Running) -> list[psutil.Process]:
    """The replicas' processes that hold the service's event store open."""
    place = str(running.settings.root / "events" / "events.db")
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        name = " ".join(process.info["cmdline"] or [process.info["name"] or ""])
        if "ServeReplica" not in name:
            continue
        try:
            if any(file.path == place for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found
