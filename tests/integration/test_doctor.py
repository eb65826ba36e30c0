"""`updraft doctor`: what is missing on this machine and in a cluster, each with what mends it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import doctor, doctor_cluster
from pipelines.cli import run

sys.path.insert(0, str(Path(__file__).parent))  # the servers' modules lie beside this file
from kfp_server import kfp_server
from kube_rules import Refused
from kube_server import KubeServer, kube_server

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "infra" / "train" / "steps.yaml"
SPACE = "/api/v1/namespaces/updraft"
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
OPERATOR = "/api/v1/pods"
FORBIDDEN = Refused(403, "Forbidden", "forbidden for the test")
MISSING = Refused(404, "NotFound", "not found for the test")

Row = dict[str, str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UPDRAFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """A cluster in which everything is there."""
    monkeypatch.setattr(doctor_cluster, "PATIENCE_S", 0.0)
    with kube_server(tmp_path) as (server, config), kfp_server() as kfp:
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(config))
        monkeypatch.setenv("UPDRAFT_KFP_ENDPOINT", kfp.url)
        claim = {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}
        pod = {
            "status": {"phase": "Running"},
            "spec": {"containers": [{"image": "quay.io/kuberay/operator:v1.6.1"}]},
        }
        server.answers = {
            "/version": {"gitVersion": "v1.36.0"},
            "/apis/ray.io/v1": {"resources": [{"name": "rayjobs"}, {"name": "rayservices"}]},
            "/apis/kueue.x-k8s.io/v1beta1": {"resources": [{"name": "localqueues"}]},
            "/apis/feast.dev/v1alpha1": MISSING,
            OPERATOR: {"items": [pod]},
            REVIEW: lambda body: {**body, "status": {"allowed": True}},
            f"{SPACE}/persistentvolumeclaims/updraft-home": claim,
            **{f"{SPACE}/secrets/{name}": {"data": keys} for name, keys in secrets().items()},
            f"{SPACE}/configmaps/updraft-settings": {
                "data": {"UPDRAFT_HOME": "", "UPDRAFT_TRACKING_URI": ""}
            },
            "/api/v1/nodes": {"items": [{"status": {"allocatable": {"nvidia.com/gpu": "2"}}}]},
        }
        yield server


def secrets() -> dict[str, dict[str, str]]:
    """The secrets of our manifests, with their keys."""
    found: dict[str, dict[str, str]] = {"updraft-stores": {"mlflow": ""}}
    text = (ROOT / "infra" / "train" / "rayjob.yaml").read_text() + STEPS.read_text()
    for name, key in re.findall(r"secretKeyRef: {name: ([\w-]+), key: (\w+)}", text):
        found.setdefault(name, {})[key] = ""
    for name, keys in yaml.safe_load(STEPS.read_text())["secrets"].items():
        found.setdefault(name, {}).update(dict.fromkeys(keys, ""))
    return found


def examined(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> dict[str, Row]:
    assert run(["doctor", "--json", *arguments]) == code
    return {row["check"]: row for row in json.loads(capsys.readouterr().out)}


def in_cluster(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, Row]:
    return examined(capsys, code, "--cluster", "--platform", str(STEPS))


# This machine.


def test_this_machine_is_well(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    found = examined(capsys, 0)
    assert {"Python", "packages", "home", "free disk", "free memory", "ports"} <= set(found)
    assert found["packages"]["result"] == found["home"]["result"] == "ok"
    assert not home.exists()  # looking leaves nothing behind


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "free disk" in out
    assert "[" not in out


def test_a_home_that_cannot_be_written_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UPDRAFT_HOME", str(tmp_path / "file" / "home"))
    assert run(["doctor", "--json"]) == 5
    told = capsys.readouterr()
    rows = {row["check"]: row for row in json.loads(told.out)}
    assert rows["home"]["result"] == "miss"
    assert "UPDRAFT_HOME" in rows["home"]["fix"]
    assert told.err.strip() == "updraft: this machine lacks home"


def test_a_full_disk_is_a_miss_and_a_small_one_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "DISK", (0.0, 1e9))
    found = examined(capsys, 0)["free disk"]
    assert (found["result"], "updraft clean" in found["fix"]) == ("warning", True)
    monkeypatch.setattr(doctor, "DISK", (1e9, 1e9))
    assert examined(capsys, 5)["free disk"]["result"] == "miss"


def test_packages_out_of_bounds_are_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["pandas>=99", "nothere>=1", "numpy>=1", "boto3>=1; extra == 's3'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: asked)
    assert run(["doctor", "--json"]) == 5
    rows = [row for row in json.loads(capsys.readouterr().out) if row["check"] == "packages"]
    assert [row["seen"].split()[0] for row in rows] == ["pandas", "nothere"]
    assert rows[0]["fix"] == "pip install -c constraints.txt 'pandas>=99'"


def test_stores_that_are_away_are_told_without_their_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="make install gets it")
    monkeypatch.setenv("UPDRAFT_EVENT_STORE", "postgresql://me:s3cret@127.0.0.1:1/events")
    monkeypatch.setenv("UPDRAFT_TRACKING_URI", "http://127.0.0.1:1")
    found = examined(capsys, 5)
    assert found["event store"]["seen"].startswith("postgresql://127.0.0.1:1/events: ")
    assert "UPDRAFT_TRACKING_URI" in found["MLflow"]["fix"]
    assert "s3cret" not in str(found)


# A cluster.


def test_a_cluster_with_everything_is_well(
    cluster: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    found = in_cluster(capsys, 0)
    assert {row["result"] for row in found.values()} == {"ok"}
    assert found["Kubernetes"]["seen"] == f"v1.36.0 at {cluster.url}"
    assert found["featurestores"]["seen"].endswith("which isn't needed")
    assert found["GPUs"]["seen"].startswith("2 on 1 nodes")
    asked = [body["spec"]["resourceAttributes"] for _, path, _, body in cluster.requests if path == REVIEW]  # fmt: skip
    logs = {"group": "", "resource": "pods", "subresource": "log", "verb": "get"}
    assert {**logs, "namespace": "updraft"} in asked


@pytest.mark.parametrize(
    ("path", "answer", "check", "seen", "fix"),
    [
        ("/version", {"gitVersion": "v1.29.4"}, "Kubernetes", "v1.29.4", "1.31 or later"),
        ("/apis/ray.io/v1", MISSING, "rayjobs", "no rayjobs in ray.io/v1", "install KubeRay"),
        (OPERATOR, {"items": []}, "KubeRay", "no operator runs", "install KubeRay"),
        (
            REVIEW,
            lambda body: {
                **body,
                "status": {"allowed": body["spec"]["resourceAttributes"]["verb"] != "delete"},
            },
            "permissions", "may not delete rayjobs", "infra/base/access.yaml",
        ),
        (
            f"{SPACE}/persistentvolumeclaims/updraft-home", MISSING,
            "claim updraft-home", "not in updraft", "apply an overlay",
        ),
        (
            f"{SPACE}/secrets/updraft-stores", {"data": {"mlflow": ""}},
            "secret updraft-stores", "has no key events", "infra/README.md",
        ),
        (
            f"{SPACE}/configmaps/updraft-settings", MISSING,
            "config map updraft-settings", "not in updraft", "infra/README.md",
        ),
        ("/api/v1/nodes", {"items": []}, "GPUs", "0 on 0 nodes", "device plugin"),
    ],
)  # fmt: skip
def test_each_miss_comes_with_what_mends_it(
    cluster: KubeServer,
    capsys: pytest.CaptureFixture[str],
    path: str,
    answer: Any,
    check: str,
    seen: str,
    fix: str,
) -> None:
    assert path in cluster.answers
    cluster.answers[path] = answer
    found = in_cluster(capsys, 6)
    misses = {name for name, row in found.items() if row["result"] == "miss"}
    assert check in misses
    assert misses <= {check, "rayservices"}
    assert seen in found[check]["seen"]
    assert fix in found[check]["fix"]


@pytest.mark.parametrize(
    ("path", "check"),
    [
        (OPERATOR, "KubeRay"),
        (f"{SPACE}/persistentvolumeclaims/updraft-home", "claim updraft-home"),
        (f"{SPACE}/secrets/updraft-stores", "secret updraft-stores"),
        ("/api/v1/nodes", "GPUs"),
    ],
)
def test_what_may_not_be_seen_is_a_warning(
    cluster: KubeServer, capsys: pytest.CaptureFixture[str], path: str, check: str
) -> None:
    cluster.answers[path] = FORBIDDEN
    found = in_cluster(capsys, 0)
    assert found[check]["result"] == "warning"
    assert "not allowed to see" in found[check]["seen"]
    assert found[check]["fix"]


def test_a_volume_of_one_node_is_a_warning(
    cluster: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers[f"{SPACE}/persistentvolumeclaims/updraft-home"]["spec"]["accessModes"] = [
        "ReadWriteOnce"
    ]
    assert in_cluster(capsys, 0)["claim updraft-home"]["result"] == "warning"


def test_kueue_is_needed_where_the_job_waits_in_a_queue(
    cluster: KubeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = yaml.safe_load((ROOT / "infra" / "train" / "rayjob.yaml").read_text())
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "updraft"
    (tmp_path / "rayjob.yaml").write_text(yaml.safe_dump(job))
    (tmp_path / "steps.yaml").write_text("rayjob: rayjob.yaml")
    cluster.answers["/apis/kueue.x-k8s.io/v1beta1"] = MISSING
    found = examined(capsys, 6, "--cluster", "--platform", str(tmp_path / "steps.yaml"))
    assert "the RayJob waits in the queue 'updraft'" in found["localqueues"]["fix"]


@pytest.mark.parametrize(
    ("break_", "check"),
    [
        (lambda m: m.setenv("UPDRAFT_KFP_ENDPOINT", "http://127.0.0.1:1"), "Kubeflow Pipelines"),
        (lambda m: m.setenv("UPDRAFT_EXCHANGE", "nfs://away/exchange"), "exchange"),
    ],
)
def test_services_beside_the_cluster_are_looked_at(
    cluster: KubeServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    break_: Callable[[pytest.MonkeyPatch], None],
    check: str,
) -> None:
    break_(monkeypatch)
    assert in_cluster(capsys, 6)[check]["result"] == "miss"


def test_no_cluster_at_all_is_one_miss(
    cluster: KubeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(location, "/nowhere")
    found = in_cluster(capsys, 6)
    assert "no Kubernetes to talk to" in found["API server"]["seen"]
    assert "claim updraft-home" not in found
