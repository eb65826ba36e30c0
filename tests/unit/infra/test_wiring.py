"""Selectors hit what they mean, ports exist, doors are closed, and roles are enough."""

from __future__ import annotations

import pytest
import yaml

from pipelines.doctor_cluster import RIGHTS
from tests.unit.infra.manifests import (
    CLUSTERS,
    INFRA,
    TARGETS,
    Object,
    Pod,
    build,
    cluster,
    of,
    pods,
    ray_cluster,
    selects,
    title,
)

# A pod that Kubeflow makes of a compiled step.
STEP = Pod("Kubeflow step", yaml.safe_load((INFRA / "train" / "steps.yaml").read_text())["labels"], {"containers": []})  # fmt: skip

each_cluster = pytest.mark.parametrize("target", CLUSTERS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_object_is_ours_in_our_namespace_and_once(target: str) -> None:
    objects = build(target)
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "updraft", title(each)
        if each["kind"] != "Namespace":
            assert each["metadata"]["namespace"] == "updraft", title(each)
    names = [title(each) for each in objects]
    assert sorted(names) == sorted(set(names))


@each_cluster
def test_workloads_select_their_own_pods_alone(target: str) -> None:
    objects = cluster(target)
    workloads = of(objects, "Deployment", "StatefulSet")
    assert workloads
    for each in workloads:
        selector = each["spec"]["selector"]
        assert [pod.where for pod in pods(objects) if selects(selector, pod.labels)] == [
            title(each)
        ]


@each_cluster
def test_services_lead_to_a_named_port_of_a_pod(target: str) -> None:
    objects = cluster(target)
    services = of(objects, "Service")
    assert {"mlflow", "evidently"} <= {each["metadata"]["name"] for each in services}
    for each in services:
        behind = _hit(objects, {"matchLabels": each["spec"]["selector"]})
        assert len(behind) == 1, title(each)
        named = {p["name"]: p["containerPort"] for c in behind[0].containers for p in c["ports"]}
        for port in each["spec"]["ports"]:
            assert named[port["targetPort"]] == port["port"], title(each)


@each_cluster
def test_disruption_budgets_leave_room(target: str) -> None:
    objects = cluster(target)
    (budget,) = of(objects, "PodDisruptionBudget")
    assert [pod.where for pod in _hit(objects, budget["spec"]["selector"])] == [
        "RayService updraft replicas"
    ]
    (service,) = of(objects, "RayService")
    (group,) = ray_cluster(service)["workerGroupSpecs"]
    assert budget["spec"]["minAvailable"] < group["replicas"]


@each_cluster
def test_network_policies_hit_pods_and_their_open_ports(target: str) -> None:
    objects = cluster(target)
    policies = of(objects, "NetworkPolicy")
    for policy in policies:
        behind = _hit(objects, policy["spec"]["podSelector"])
        assert behind, title(policy)
        for rule in policy["spec"].get("ingress", []):
            for peer in rule["from"]:
                if "podSelector" in peer and "namespaceSelector" not in peer:
                    assert _hit(objects, peer["podSelector"]), f"{title(policy)}: {peer}"
            opened = {
                p["containerPort"]
                for pod in behind
                for c in pod.containers
                for p in c.get("ports", [])
            }
            assert {port["port"] for port in rule.get("ports", [])} <= opened, title(policy)


@each_cluster
def test_everything_is_closed_first(target: str) -> None:
    (deny,) = (p for p in of(build(target), "NetworkPolicy") if p["metadata"]["name"] == "deny-all")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@each_cluster
def test_rays_ports_are_open_to_its_own_alone(target: str) -> None:
    """Whoever reaches a port other than HTTP's or, as KubeRay, the dashboard's, has the same component."""
    objects = cluster(target)
    for pod in pods(objects):
        if "ray.io/node-type" not in pod.labels:
            continue
        own = pod.labels["app.kubernetes.io/component"]
        for rule in _ingress(objects, pod):
            for peer in rule["from"]:
                if "ports" not in rule:
                    assert peer == {
                        "podSelector": {"matchLabels": {"app.kubernetes.io/component": own}}
                    }
                elif {port["port"] for port in rule["ports"]} - {8000}:
                    assert peer["podSelector"]["matchLabels"] == {
                        "app.kubernetes.io/name": "kuberay-operator"
                    }


@each_cluster
def test_stores_and_registry_are_closed_to_strangers(target: str) -> None:
    objects = cluster(target)
    for pod in pods(objects):
        if pod.labels["app.kubernetes.io/component"] in (
            "mlflow",
            "evidently",
            "postgres",
            "redis",
        ):
            for rule in _ingress(objects, pod):
                assert all(
                    set(peer) == {"podSelector"} and peer["podSelector"] for peer in rule["from"]
                )


def test_a_pipeline_may_start_watch_read_and_end_training() -> None:
    objects = build("base")
    (binding,) = of(objects, "RoleBinding")
    (role,) = of(objects, "Role")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }
    assert {
        "kind": "ServiceAccount",
        "name": "updraft-pipeline",
        "namespace": "updraft",
    } in binding["subjects"]
    may = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert may == set(RIGHTS)  # which tests/integration/test_rayjob.py sees used
    assert not {part for entry in may for part in entry if part == "*"}
    assert not {resource for _, resource, _ in may} & {"secrets", "pods/exec", "rolebindings"}


def test_kubeflows_steps_reach_what_they_need() -> None:
    """Steps carry the labels that the stores, MLflow and the way to Kubeflow go by."""
    objects = cluster("overlays/dev")
    names = {
        policy["metadata"]["name"]
        for policy in of(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], STEP.labels)
    }
    assert "steps-out-to-kubeflow-and-api-server" in names
    for pod in pods(objects):
        if pod.labels["app.kubernetes.io/component"] in ("mlflow", "postgres"):
            assert any(
                _admits(peer, STEP) for rule in _ingress(objects, pod) for peer in rule["from"]
            ), pod.where


def _admits(peer: Object, pod: Pod) -> bool:
    return "podSelector" in peer and selects(peer["podSelector"], pod.labels)


def _hit(objects: list[Object], selector: Object) -> list[Pod]:
    return [pod for pod in (*pods(objects), STEP) if selects(selector, pod.labels)]


def _ingress(objects: list[Object], pod: Pod) -> list[Object]:
    """The rules that let somebody in to a pod."""
    return [
        rule
        for policy in of(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], pod.labels)
        for rule in policy["spec"].get("ingress", [])
    ]
