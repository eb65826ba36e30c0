"""A RayJob (KubeRay) made from a manifest: this entrypoint, so many workers, whose run it is."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from campaigns.errors import CampaignError

Json = dict[str, Any]

GPU = "nvidia.com/gpu"
RUN, STEP = "updraft/run", "updraft/step"  # labels
NAMESPACE = "updraft"
RAY = 1.0  # logical CPUs beside the training workers: tasks that read, drivers of trials


def read_rayjob(source: str) -> Json:
    """The RayJob in a manifest, or in a file of manifests.

    Args:
        source: YAML or JSON, or the path of a file of it; other kinds in it are passed over.

    Raises:
        CampaignError: There isn't exactly one RayJob with a head.
    """
    where, text = "UPDRAFT_RAYJOB", source
    if "\n" not in source and not source.lstrip().startswith("{"):
        where = source
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as error:
            raise CampaignError(
                f"UPDRAFT_RAYJOB: {source!r} can't be read ({error.strerror}); name a file with a "
                "RayJob, such as infra/train/rayjob.yaml or what kustomize builds of an overlay"
            ) from error
    try:
        found = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except yaml.YAMLError as error:
        raise CampaignError(f"{where}: is no YAML ({' '.join(str(error).split())})") from error
    jobs = [each for each in found if each.get("kind") == "RayJob"]
    if len(jobs) != 1:
        raise CampaignError(f"{where}: holds {len(jobs)} RayJobs; give one")
    (job,) = jobs
    if job.get("apiVersion") != "ray.io/v1":
        raise CampaignError(f"{where}: apiVersion is {job.get('apiVersion')!r}; write ray.io/v1")
    try:
        _container(job["spec"]["rayClusterSpec"]["headGroupSpec"])
    except (KeyError, TypeError, IndexError) as error:
        raise CampaignError(
            f"{where}: spec.rayClusterSpec.headGroupSpec has no container; a RayJob starts a Ray of its own"
        ) from error
    return job


def rayjob(
    template: Mapping[str, Any],
    *,
    run: str,
    step: str,
    entrypoint: str,
    workers: int = 1,
    gpu: bool = False,
    owner: Mapping[str, Any] | None = None,
) -> Json:
    """The template with another entrypoint, as big as the work needs.

    Images, resources, queue label, deadline and deletion rules stay those of the template.

    Args:
        template: A RayJob, as from :func:`read_rayjob`.
        run, step: Give the name, so that a step that starts again finds its job.
        entrypoint: The command that Ray runs on the head.
        workers: Training workers.
        gpu: One GPU a worker; else groups with GPUs are left out.
        owner: An object of the same namespace; when it goes, Kubernetes deletes the job.

    Raises:
        CampaignError: The template has no group of the wanted kind.
    """
    job: Json = copy.deepcopy({key: template[key] for key in ("apiVersion", "kind", "spec")})
    given = template.get("metadata", {})
    job["metadata"] = {
        "name": job_name(run, step),
        "namespace": given.get("namespace", NAMESPACE),
        "labels": {**given.get("labels", {}), RUN: label(run), STEP: label(step)},
        "annotations": dict(given.get("annotations", {})),
    }
    if owner:
        job["metadata"]["ownerReferences"] = [dict(owner)]
    spec = job["spec"]
    spec["entrypoint"] = entrypoint
    cluster = spec["rayClusterSpec"]
    cluster["workerGroupSpecs"] = _sized(cluster.get("workerGroupSpecs", []), workers, gpu)
    return job


def job_name(run: str, step: str) -> str:
    """The same for the same step of the same run; KubeRay takes 47 characters at most."""
    digest = hashlib.sha256(f"{run}/{step}".encode()).hexdigest()[:10]
    words = re.sub(r"[^a-z0-9]+", "-", step.lower()).strip("-")[:26].rstrip("-")
    return f"updraft-{words}-{digest}"


def label(text: str) -> str:
    """What a label's value can hold of a text."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")


def _sized(groups: list[Json], workers: int, gpu: bool) -> list[Json]:
    """The groups that the work needs, the one that trains with enough replicas for all workers."""
    fitting = [group for group in groups if _amount(group, GPU) or not gpu]
    if gpu and not fitting:
        raise CampaignError(
            f"gpu is true, and no worker group of the RayJob has {GPU}; use one that has, or train without"
        )
    kept = [group for group in groups if gpu or not _amount(group, GPU)]
    if not kept:
        raise CampaignError("the RayJob has no worker group without GPUs; add one, or set gpu")
    training = fitting[0] if gpu else kept[0]
    each = _amount(training, GPU) if gpu else _cpus(training)
    needed = workers if gpu else workers + RAY
    replicas = max(int(-(-needed // each)), int(training.get("minReplicas", 0)), 1)
    training["replicas"] = training["minReplicas"] = replicas
    training["maxReplicas"] = max(replicas, int(training.get("maxReplicas", 0)))
    return kept


def _cpus(group: Json) -> float:
    """Logical CPUs of one of its nodes: Ray takes ``num-cpus``, else the limit, as KubeRay does."""
    told = group.get("rayStartParams", {}).get("num-cpus")
    cpus = float(told) if told is not None else _amount(group, "cpu")
    return cpus if cpus >= 1 else 1.0


def _amount(group: Json, resource: str) -> float:
    resources = _container(group).get("resources", {})
    amount = {**resources.get("requests", {}), **resources.get("limits", {})}.get(resource, 0)
    text = str(amount)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _container(group: Json) -> Json:
    container: Json = group["template"]["spec"]["containers"][0]
    return container


def compact(job: Mapping[str, Any]) -> str:
    """A manifest in one line, for an environment variable."""
    return json.dumps(job, separators=(",", ":"), sort_keys=True)
