"""Does the cluster have what the pipelines' Ray steps need? Each miss with what mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes

from campaigns.errors import EnvironmentProblem, RemoteError, UpdraftError
from campaigns.settings import Settings
from components.exchange import Exchange
from components.kube_api import KubeApi, Missing, kube_api
from components.rayjob import GPU, NAMESPACE, read_rayjob
from pipelines.doctor import Finding, Result
from pipelines.platform import Platform, read_platform

PATIENCE_S = 5.0
KUBERNETES, KUBERAY = (1, 31), (1, 6)
QUEUE = "kueue.x-k8s.io/queue-name"

# What the Ray steps ask for: infra/base/access.yaml grants it.
RIGHTS = [
    *(("ray.io", "rayjobs", verb) for verb in ("create", "get", "list", "watch", "delete")),
    *(("ray.io", "rayservices", verb) for verb in ("get", "list", "watch", "update")),
    *(("", "pods", verb) for verb in ("get", "list")),
    ("", "pods/log", "get"),
]

Json = dict[str, Any]
Check = Callable[["_Cluster"], Iterator[Finding]]


def examine_cluster(settings: Settings) -> list[Finding]:
    """Everything about the cluster of the current kube context, or the one that we run in."""
    try:
        cluster = _Cluster(settings)
    except UpdraftError as error:
        return [Finding("platform", "miss", str(error), "mend the file in UPDRAFT_PLATFORM")]
    try:
        with kube_api() as api:
            cluster.api = api
            found = [
                finding
                for check in (_server, _kinds, _operator, _rights, _claims, _references, _gpus)
                for finding in check(cluster)
            ]
    except (RemoteError, EnvironmentProblem) as error:
        fix = "look at the kube context (kubectl config current-context), or the network"
        found = [Finding("API server", "miss", str(error), fix)]
    return [*found, *_exchange(settings, cluster.platform), *_kubeflow(settings)]


class _Cluster:
    """The API, and what the platform's file and its RayJob name."""

    api: KubeApi

    def __init__(self, settings: Settings) -> None:
        given = read_platform(settings.platform) if settings.platform else None
        self.platform = given or Platform()
        source = self.platform.rayjob or settings.rayjob
        self.job: Json = read_rayjob(source) if source else {}
        self.namespace = self.job.get("metadata", {}).get("namespace", NAMESPACE)

    def get(self, doing: str, path: str) -> Json:
        """What the API answers to a path.

        Raises:
            RemoteError: It refuses (Missing: there is none).
        """
        found: Json = self.api.call(
            doing, self.api.client.call_api, path, "GET",
            response_type="object", auth_settings=["BearerToken"],
            _return_http_data_only=True, patience=PATIENCE_S,
        )  # fmt: skip
        return found

    def pods(self) -> list[Json]:
        """The pods' specs of the RayJob."""
        cluster = self.job.get("spec", {}).get("rayClusterSpec")
        if not cluster:
            return []
        groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
        return [group["template"]["spec"] for group in groups]


def _server(cluster: _Cluster) -> Iterator[Finding]:
    told = cluster.get("ask its version", "/version")
    seen = str(told.get("gitVersion", "?"))
    result, fix = _version(seen, KUBERNETES, "upgrade Kubernetes")
    yield Finding("Kubernetes", result, f"{seen} at {cluster.api.host}", fix)


def _kinds(cluster: _Cluster) -> Iterator[Finding]:
    """Definitions, by discovery, which everybody may ask."""
    queue = cluster.job.get("metadata", {}).get("labels", {}).get(QUEUE)
    wanted = [
        ("rayjobs", "ray.io/v1", "miss", "install KubeRay: infra/README.md"),
        ("rayservices", "ray.io/v1", "miss", "install KubeRay: infra/README.md"),
        (
            "localqueues",
            "kueue.x-k8s.io/v1beta1",
            "miss" if queue else "ok",
            f"install Kueue: the RayJob waits in the queue {queue!r}" if queue else "",
        ),
        ("featurestores", "feast.dev/v1alpha1", "ok", ""),
    ]
    for plural, group, without, fix in wanted:
        try:
            found = cluster.get(f"look for {plural}", f"/apis/{group}")
            there = any(each["name"] == plural for each in found["resources"])
        except Missing:
            there = False
        optional = "" if without == "miss" else ", which isn't needed"
        seen = f"there ({group})" if there else f"no {plural} in {group}{optional}"
        result: Result = "ok" if there or without == "ok" else "miss"
        yield Finding(plural, result, seen, "" if result == "ok" else fix)


def _operator(cluster: _Cluster) -> Iterator[Finding]:
    """KubeRay's version: that of its operator's image."""
    path = "/api/v1/pods?labelSelector=app.kubernetes.io%2Fname%3Dkuberay-operator"
    try:
        pods = cluster.get("look for KubeRay's operator", path)["items"]
    except RemoteError:
        yield Finding("KubeRay", "warning", "not allowed to see its operator", "ask who runs it")
        return
    running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
    if not running:
        fix = "install KubeRay: infra/README.md; without it RayJobs wait for ever"
        yield Finding("KubeRay", "miss", "no operator runs", fix)
        return
    image = running[0]["spec"]["containers"][0]["image"]
    result, fix = _version(image.rpartition(":")[2], KUBERAY, "upgrade KubeRay")
    yield Finding("KubeRay", result, image, fix)


def _rights(cluster: _Cluster) -> Iterator[Finding]:
    """What this account may do, which is the steps' own inside a step."""
    review = kubernetes.client.AuthorizationV1Api(cluster.api.client)
    lacking = []
    for group, resource, verb in RIGHTS:
        name, _, part = resource.partition("/")
        asked = {"namespace": cluster.namespace, "group": group, "resource": name, "verb": verb}
        answer = cluster.api.call(
            f"ask whether it may {verb} {resource}",
            review.create_self_subject_access_review,
            {"spec": {"resourceAttributes": {**asked, "subresource": part}}},
            patience=PATIENCE_S,
        )
        if not answer.status.allowed:
            lacking.append(f"{verb} {resource}")
    if lacking:
        fix = "bind the role updraft-rayjobs of infra/base/access.yaml to this account"
        seen = f"in {cluster.namespace} it may not {', '.join(lacking)}"
        yield Finding("permissions", "miss", seen, fix)
    else:
        yield Finding("permissions", "ok", f"all {len(RIGHTS)} in {cluster.namespace}")


def _claims(cluster: _Cluster) -> Iterator[Finding]:
    """Volumes that the steps and the RayJob's pods mount."""
    claims = set(cluster.platform.volumes)
    for spec in cluster.pods():
        for volume in spec.get("volumes", []):
            claims |= {volume.get("persistentVolumeClaim", {}).get("claimName", "")}
    for name in sorted(claims - {""}):
        check, path = f"claim {name}", f"{_in(cluster)}/persistentvolumeclaims/{name}"
        try:
            found = cluster.get(f"read claim {name}", path)
        except Missing:
            fix = "apply an overlay: infra/README.md"
            yield Finding(check, "miss", f"not in {cluster.namespace}", fix)
            continue
        except RemoteError:
            yield Finding(check, "warning", "not allowed to see it", f"kubectl get pvc {name}")
            continue
        phase, modes = found.get("status", {}).get("phase"), found["spec"].get("accessModes", [])
        if phase not in ("Bound", "Pending"):
            yield Finding(check, "miss", str(phase), f"kubectl describe pvc {name}")
        elif "ReadWriteMany" not in modes:
            fix = "of one node only; take a storage class that several nodes can write"
            yield Finding(check, "warning", f"{phase}, {', '.join(modes)}", fix)
        else:
            yield Finding(check, "ok", f"{phase}, ReadWriteMany")


def _references(cluster: _Cluster) -> Iterator[Finding]:
    """Secrets and config maps, with their keys."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for plural, given in (
        ("secrets", cluster.platform.secrets),
        ("configmaps", cluster.platform.config_maps),
    ):
        for name, keys in given.items():
            wanted.setdefault((plural, name), set()).update(keys)
    for spec in cluster.pods():
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                for plural, field in (("secrets", "secretRef"), ("configmaps", "configMapRef")):
                    if field in source:
                        wanted.setdefault((plural, source[field]["name"]), set())
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    wanted.setdefault(("secrets", reference["name"]), set()).add(reference["key"])
    for (plural, name), needed in sorted(wanted.items()):
        yield _reference(cluster, plural, name, needed)


def _reference(cluster: _Cluster, plural: str, name: str, keys: set[str]) -> Finding:
    check = f"{plural.removesuffix('s').replace('map', ' map')} {name}"
    try:
        found = cluster.get(f"read {check}", f"{_in(cluster)}/{plural}/{name}")
    except Missing:
        fix = "infra/README.md says what is in it, infra/dev-secrets.sh makes a laptop's"
        return Finding(check, "miss", f"not in {cluster.namespace}", fix)
    except RemoteError:
        return Finding(check, "warning", "not allowed to see it", f"kubectl get {plural} {name}")
    lacking = sorted(keys - set(found.get("data") or {}))
    if lacking:
        return Finding(check, "miss", f"has no key {', '.join(lacking)}", "add it: infra/README.md")
    return Finding(check, "ok", f"there, with {', '.join(sorted(keys)) or 'its keys'}")


def _gpus(cluster: _Cluster) -> Iterator[Finding]:
    limits = [
        spec["containers"][0].get("resources", {}).get("limits", {}) for spec in cluster.pods()
    ]
    wanted = sum(int(limit.get(GPU, 0)) for limit in limits)
    try:
        nodes = cluster.get("list nodes", "/api/v1/nodes")["items"]
    except RemoteError:
        if wanted:
            fix = "kubectl describe nodes | grep nvidia.com/gpu"
            yield Finding("GPUs", "warning", "not allowed to see nodes", fix)
        return
    there = sum(int(node["status"].get("allocatable", {}).get(GPU, 0)) for node in nodes)
    seen = f"{there} on {len(nodes)} nodes, the RayJob takes {wanted} a worker group"
    if there < wanted:
        fix = f"install NVIDIA's device plugin, add nodes that have {GPU}, or run without --gpu"
        yield Finding("GPUs", "miss", seen, fix)
    else:
        yield Finding("GPUs", "ok", seen)


def _exchange(settings: Settings, platform: Platform) -> Iterator[Finding]:
    place = platform.exchange or settings.exchange
    if not place or "://" not in place:
        return  # in the home's volume
    try:
        Exchange(place).read("none.json")
        yield Finding("exchange", "ok", place)
    except (UpdraftError, OSError) as error:
        told = f"{place}: {' '.join(str(error).split())}"
        yield Finding("exchange", "miss", told, "make the bucket, or mend its keys and endpoint")


def _kubeflow(settings: Settings) -> Iterator[Finding]:
    from pipelines.kfp_api import kfp_api

    if not settings.kfp_endpoint:
        fix = "set UPDRAFT_KFP_ENDPOINT to submit and to schedule"
        yield Finding("Kubeflow Pipelines", "warning", "no endpoint", fix)
        return
    try:
        with kfp_api(settings) as api:
            yield Finding("Kubeflow Pipelines", "ok", api.endpoint)
    except UpdraftError as error:
        seen, _, fix = str(error).partition("; ")
        yield Finding("Kubeflow Pipelines", "miss", seen, fix or "look whether it is up")


def _version(seen: str, least: tuple[int, int], fix: str) -> tuple[Result, str]:
    match = re.match(r"v?(\d+)\.(\d+)", seen)
    wanted = ".".join(map(str, least))
    if match is None:
        return "warning", f"make sure that it is {wanted} or later"
    new = (int(match[1]), int(match[2])) >= least
    return ("ok", "") if new else ("miss", f"{fix} to {wanted} or later")


def _in(cluster: _Cluster) -> str:
    return f"/api/v1/namespaces/{cluster.namespace}"
