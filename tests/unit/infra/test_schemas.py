"""Every field is one that the API server takes: built-in kinds by Kubernetes' schemas, KubeRay's by its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.infra.crds import closed, problems, schemas
from tests.unit.infra.manifests import TARGETS, build, of, pods, title

KUBERNETES = "1.36"
CUSTOM = ("RayService", "RayJob", "ServiceMonitor")
FOLDER = os.environ.get("KUBERAY_CRD_DIR")


@pytest.mark.parametrize("target", TARGETS)
def test_built_in_kinds_fit_their_schema(target: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="make install gets it")
    for each in build(target):
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("target", TARGETS)
def test_pods_inside_kuberays_kinds_fit_the_schema_of_pods(target: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="make install gets it")
    for pod in pods(of(build(target), "RayService", "RayJob")):
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": pod.spec}
        kubernetes_validate.validate(made, KUBERNETES, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="make install gets it")
    (claim,) = of(build("base"), "PersistentVolumeClaim")
    wrong = {**claim, "spec": {**claim["spec"], "accessMode": ["ReadWriteMany"]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.skipif(not FOLDER, reason="KUBERAY_CRD_DIR names no folder with KubeRay's definitions")
@pytest.mark.parametrize("target", TARGETS)
def test_kuberays_kinds_fit_their_definition(target: str) -> None:
    known = schemas(Path(FOLDER or ""))
    for each in of(build(target), "RayService", "RayJob"):
        assert problems(each, known[each["apiVersion"], each["kind"]]) == [], title(each)


def test_a_definition_refuses_unknown_fields_and_wrong_types_at_any_depth() -> None:
    schema = closed(
        {
            "type": "object",
            "properties": {
                "metadata": {"type": "object"},
                "spec": {
                    "type": "object",
                    "required": ["groups"],
                    "properties": {
                        "groups": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {"replicas": {"type": "integer"}},
                            },
                        },
                        "params": {"type": "object", "additionalProperties": {"type": "string"}},
                        "port": {
                            "x-kubernetes-int-or-string": True,
                            "anyOf": [{"type": "integer"}, {"type": "string"}],
                        },
                    },
                },
            },
        }
    )
    good = {
        "metadata": {"name": "a"},
        "spec": {"groups": [{"replicas": 1}], "params": {"a": "b"}, "port": "http"},
    }
    assert problems(good, schema) == []
    for spec in (
        {},
        {"groups": [{"replica": 1}]},
        {"groups": [{"replicas": "1"}]},
        {"groups": [], "params": {"num-cpus": 0}},
        {"groups": [], "port": 1.5},
    ):
        assert len(problems({"spec": spec}, schema)) == 1, spec
