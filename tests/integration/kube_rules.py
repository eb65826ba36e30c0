"""What a Kubernetes API server with KubeRay takes in a RayJob, and what it refuses.

With KUBERAY_CRD_DIR the definitions' own schema decides. Without, the fields that we send are checked
against KubeRay's Go types (ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go, 1.6), pods
against Kubernetes' schema, and both ways what the operator refuses later (controllers/ray/utils/
validation.go), which a real server would only tell in an event.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate

from tests.unit.infra.crds import problems, schemas
from tests.unit.infra.manifests import pods

Json = dict[str, Any]

FOLDER = os.environ.get("KUBERAY_CRD_DIR")

_TEXT, _NUMBER, _FLAG, _OBJECT, _LIST = str, int, bool, dict, list
RAYJOB = {
    "entrypoint": _TEXT, "submissionMode": _TEXT, "runtimeEnvYAML": _TEXT, "jobId": _TEXT,
    "activeDeadlineSeconds": _NUMBER, "backoffLimit": _NUMBER, "ttlSecondsAfterFinished": _NUMBER,
    "shutdownAfterJobFinishes": _FLAG, "suspend": _FLAG, "deletionStrategy": _OBJECT,
    "submitterConfig": _OBJECT, "submitterPodTemplate": _OBJECT, "rayClusterSpec": _OBJECT,
    "metadata": _OBJECT, "managedBy": _TEXT,
}  # fmt: skip
CLUSTER = {
    "rayVersion": _TEXT, "authOptions": _OBJECT, "enableInTreeAutoscaling": _FLAG,
    "autoscalerOptions": _OBJECT, "headGroupSpec": _OBJECT, "workerGroupSpecs": _LIST,
    "gcsFaultToleranceOptions": _OBJECT,
}  # fmt: skip
HEAD = {"rayStartParams": _OBJECT, "template": _OBJECT, "serviceType": _TEXT}
GROUP = {
    **HEAD, "groupName": _TEXT, "replicas": _NUMBER, "minReplicas": _NUMBER, "maxReplicas": _NUMBER,
    "idleTimeoutSeconds": _NUMBER, "numOfHosts": _NUMBER,
}  # fmt: skip


class Refused(Exception):
    """An answer other than 2xx: the Status that says why."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

    def body(self) -> bytes:
        return json.dumps(
            {
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": str(self), "reason": self.reason, "code": self.status,
            }
        ).encode()  # fmt: skip


def check_rayjob(job: Json) -> None:
    """Refuse what the server or the operator would."""
    name = job["metadata"]["name"]
    _require(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None, "a DNS-1035 label")
    _require(len(name) <= 47, "RayJob name should be no more than 47 characters")
    for key, value in job["metadata"].get("labels", {}).items():
        fits = re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value)
        _require(fits is not None, f"metadata.labels: {key}: {value!r}")
    for owner in job["metadata"].get("ownerReferences", []):
        _require(set(owner) >= {"apiVersion", "kind", "name", "uid"}, "metadata.ownerReferences")
    if FOLDER:
        found = problems(job, schemas(Path(FOLDER))["ray.io/v1", "RayJob"])
        _require(not found, "; ".join(found))
    else:
        _fields(job["spec"], RAYJOB, "spec")
        _fields(job["spec"]["rayClusterSpec"], CLUSTER, "spec.rayClusterSpec")
        _fields(job["spec"]["rayClusterSpec"]["headGroupSpec"], HEAD, "headGroupSpec")
        for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
            _fields(group, GROUP, "workerGroupSpecs")
    for pod in pods([job]):
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": pod.spec}
        try:
            kubernetes_validate.validate(made, "1.36", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refused(422, "Invalid", f"{pod.where}: {error}") from error
    _check_as_operator(job["spec"])


def _check_as_operator(spec: Json) -> None:
    shut = spec.get("shutdownAfterJobFinishes", False)
    _require(bool(spec.get("entrypoint")), "spec.entrypoint is empty")
    _require(spec.get("activeDeadlineSeconds", 1) > 0, "activeDeadlineSeconds must be positive")
    _require(not (spec.get("suspend") and not shut), "can't be suspended without shutdown")
    _require(not ("deletionStrategy" in spec and shut), "deletionStrategy excludes shutdown")
    _require(not (spec.get("ttlSecondsAfterFinished") and not shut), "TTL without shutdown")
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        lowest, highest = group["minReplicas"], group["maxReplicas"]
        _require(0 <= lowest <= group["replicas"] <= highest, f"replicas of {group['groupName']}")


def _fields(value: Json, known: dict[str, type], where: str) -> None:
    for key, each in value.items():
        _require(key in known, f'strict decoding error: unknown field "{where}.{key}"')
        fits = isinstance(each, known[key]) and not (known[key] is int and isinstance(each, bool))
        _require(fits, f"{where}.{key}: Invalid value: {each!r}")


def _require(good: bool, message: str) -> None:
    if not good:
        raise Refused(422, "Invalid", f"RayJob.ray.io is invalid: {message}")
