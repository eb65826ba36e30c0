"""The manifests as they are applied, and the pods and services that come of them, KubeRay's included."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
INFRA = ROOT / "infra"
CLUSTERS = ("overlays/dev", "overlays/production")
JOBS = {"overlays/dev": "overlays/dev/train", "overlays/production": "overlays/production/train"}
TARGETS = (*CLUSTERS, *JOBS.values(), "base", "train")
BUILDER = ("kustomize", "build") if shutil.which("kustomize") else ("kubectl", "kustomize")
HAS_BUILDER = shutil.which(BUILDER[0]) is not None
WITHOUT = "neither kustomize nor kubectl is on PATH"

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod's template: whose it is, the labels that its pods have, its spec."""

    where: str
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@cache
def build(target: str) -> list[Object]:
    """A kustomization's objects; where nothing can build it, those of its files, unpatched."""
    if not HAS_BUILDER:
        return list(_files(INFRA / target))
    done = subprocess.run([*BUILDER, INFRA / target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def _files(folder: Path) -> Iterator[Object]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in kustomization.get("resources", []):
        if (folder / name).is_dir():
            yield from _files((folder / name).resolve())
        else:
            yield from (each for each in yaml.safe_load_all((folder / name).read_text()) if each)


def cluster(target: str) -> list[Object]:
    """What a cluster holds while a training job runs in it."""
    return [*build(target), *build(JOBS[target])]


def of(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def title(each: Object) -> str:
    return f"{each['kind']} {each['metadata']['name']}"


def ray_cluster(each: Object) -> Object:
    """The RayCluster's spec inside a RayService or RayJob."""
    spec = each["spec"]
    return spec["rayClusterConfig" if each["kind"] == "RayService" else "rayClusterSpec"]


def pods(objects: list[Object]) -> list[Pod]:
    """Every pod's template, with the labels that KubeRay adds to its pods."""
    found = []
    for each in objects:
        name, spec = title(each), each.get("spec", {})
        if each["kind"] in ("Deployment", "StatefulSet"):
            found.append(_pod(name, spec["template"]))
        elif each["kind"] in ("RayService", "RayJob"):
            ray = ray_cluster(each)
            head = {"ray.io/node-type": "head", "ray.io/group": "headgroup"}
            found.append(_pod(f"{name} head", ray["headGroupSpec"]["template"], head))
            for group in ray["workerGroupSpecs"]:
                labels = {"ray.io/node-type": "worker", "ray.io/group": group["groupName"]}
                found.append(_pod(f"{name} {group['groupName']}", group["template"], labels))
            if "submitterPodTemplate" in spec:
                found.append(_pod(f"{name} submitter", spec["submitterPodTemplate"]))
    return found


def _pod(where: str, template: Object, extra: Mapping[str, str] | None = None) -> Pod:
    return Pod(where, {**template["metadata"]["labels"], **(extra or {})}, template["spec"])


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (the form with matchLabels and matchExpressions) hits these labels."""
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(rule, labels) for rule in selector.get("matchExpressions", [])
    )


def _holds(rule: Object, labels: Mapping[str, str]) -> bool:
    assert rule["operator"] == "In", f"{rule}: teach this test the operator"
    return labels.get(rule["key"]) in rule["values"]


def quantity(text: str) -> float:
    """Bytes, CPUs or devices of a quantity such as ``500m`` or ``2Gi``.

    Raises:
        ValueError: It is none that the API server takes.
    """
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    for unit, factor in units.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)
