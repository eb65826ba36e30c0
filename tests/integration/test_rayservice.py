"""A version that was promoted is named in the RayService, and answers, or the one before still does."""

from __future__ import annotations

import copy
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from campaigns.errors import RemoteError
from components import kube_api, rayjob_watch, rayservice
from components.rayservice import serve_version
from pipelines.doctor_cluster import RIGHTS
from serving import deploy

sys.path.insert(0, str(Path(__file__).parent))  # the server's modules lie beside this file
from kube_server import KubeServer, kube_server

BASE = Path(__file__).resolve().parents[2] / "infra" / "base" / "serving.yaml"
SERVICE = next(iter(yaml.safe_load_all(BASE.read_text())))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """A cluster with the RayService of our manifests, in the state that KubeRay brings it to."""
    monkeypatch.setattr(kube_api, "FIRST_S", 0.01)
    monkeypatch.setattr(kube_api, "PATIENCE_S", 2.0)
    monkeypatch.setattr(rayjob_watch, "WATCH_S", 1)
    monkeypatch.setattr(deploy, "PATIENCE_S", 30.0)
    with kube_server(tmp_path) as (running, config):
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(config))
        service = copy.deepcopy(SERVICE)
        service["metadata"] |= {"uid": "1", "generation": 1}
        running.put("rayservices", service, "ADDED")
        operator = threading.Thread(target=operate, args=(running,), daemon=True)
        operator.start()
        yield running
    operator.join()


def operate(server: KubeServer) -> None:
    """As KubeRay: a change of the specification is soon in the status."""
    key = ("rayservices", "updraft", "updraft")
    while not server.closing:
        time.sleep(0.2)
        with server.changed:
            item = copy.deepcopy(server.objects[key])
            told = {"status": "RUNNING"}
            if "broken" in item["spec"]["serveConfigV2"]:
                told = {"status": "DEPLOY_FAILED", "message": "no such version\nbroken"}
            status = {
                "observedGeneration": item["metadata"]["generation"],
                "activeServiceStatus": {"applicationStatuses": {"updraft": told}},
            }
            if item.get("status") != status:
                server.put("rayservices", {**item, "status": status})


def served(server: KubeServer) -> dict[str, Any]:
    config = yaml.safe_load(
        server.objects["rayservices", "updraft", "updraft"]["spec"]["serveConfigV2"]
    )
    return dict(config["applications"][0]["deployments"][0]["user_config"]["campaigns"])


@pytest.fixture
def url(server: KubeServer) -> Iterator[str]:
    """Replicas: they answer with the version in the RayService, or with what keeps them from it."""

    class Replica(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            version = served(server).get(self.path.rpartition("/")[2], {}).get("version")
            told = (
                {"fault": "version 13 can't be loaded"}
                if version == "13"
                else {"model_version": version}
            )
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Replica) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def put(version: str, url: str, campaign: str = "game_bonus", service: str = "updraft") -> str:
    with kube_api.kube_api() as api:
        return serve_version(api, service, campaign, version, say=lambda text: None, url=url)


def test_a_version_is_named_beside_those_that_are_served(server: KubeServer, url: str) -> None:
    assert put("1", url) == url
    put("7", url, campaign="discount", service="updraft/updraft")
    put("2", url)
    assert served(server) == {"game_bonus": {"version": "2"}, "discount": {"version": "7"}}
    spec = server.objects["rayservices", "updraft", "updraft"]["spec"]
    config, before = (yaml.safe_load(s["serveConfigV2"]) for s in (spec, SERVICE["spec"]))
    config["applications"][0]["deployments"][0]["user_config"]["campaigns"] = {}
    assert config == before  # user_config alone changed: replicas stay
    assert spec["rayClusterConfig"] == SERVICE["spec"]["rayClusterConfig"]
    used = {(group, resource, verb) for verb, group, resource in server.used}
    assert used == {right for right in RIGHTS if right[1] == "rayservices"}


def test_the_same_version_is_not_written_again(server: KubeServer, url: str) -> None:
    put("1", url)
    put("1", url)
    assert len([1 for method, *_ in server.requests if method == "PUT"]) == 1


def test_who_writes_at_the_same_time_loses_nothing(server: KubeServer, url: str) -> None:
    server.fail("PUT", "rayservices", 409, times=2)
    names = [f"campaign_{number}" for number in range(4)]
    writers = [threading.Thread(target=put, args=("1", url, name)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(served(server)) == set(names)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("broken", "its application is DEPLOY_FAILED: no such version broken"),
        ("13", "version 13 can't be loaded"),
    ],
)
def test_a_version_that_cannot_be_served_gives_way_to_the_one_before(
    server: KubeServer, url: str, version: str, sentence: str
) -> None:
    put("1", url)
    with pytest.raises(RemoteError, match=sentence):
        put(version, url)
    assert served(server) == {"game_bonus": {"version": "1"}}


def test_what_is_missing_is_told(
    server: KubeServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        RemoteError, match=r"can't read RayService updraft/other: .* apply infra/base"
    ):
        put("1", url, service="other")
    monkeypatch.setattr(rayservice, "ATTEMPTS", 2)
    server.fail("PUT", "rayservices", 409, times=2)
    with pytest.raises(RemoteError, match="others change it all the time"):
        put("1", url)
