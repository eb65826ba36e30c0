"""What KubeRay, Kueue, Serve and Prometheus make of the RayService and the RayJob."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import yaml

from tests.unit.infra.manifests import (
    HAS_BUILDER,
    INFRA,
    TARGETS,
    WITHOUT,
    Object,
    build,
    of,
    pods,
    ray_cluster,
    selects,
)

needs_builder = pytest.mark.skipif(not HAS_BUILDER, reason=WITHOUT)


@needs_builder
def test_prometheus_finds_the_service_that_kuberay_makes() -> None:
    objects = build("overlays/production")
    (monitor,) = of(objects, "ServiceMonitor")
    (service,) = of(objects, "RayService")
    assert monitor["spec"]["selector"]["matchLabels"] == {
        "ray.io/serve": f"{service['metadata']['name']}-serve"
    }
    for pod in pods([service]):
        ports = {p["name"]: p["containerPort"] for p in pod.containers[0]["ports"]}
        assert (
            ports[monitor["spec"]["endpoints"][0]["port"]]
            == _serve_config(service)["http_options"]["port"]
        )


@needs_builder
def test_kueue_gets_a_job_that_it_admits() -> None:
    """It refuses a cluster that outlives the job, an autoscaler, and a group called head."""
    (job,) = build("overlays/production/train")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "updraft"
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert "deletionStrategy" not in job["spec"]
    assert "enableInTreeAutoscaling" not in ray_cluster(job)
    assert "head" not in {group["groupName"] for group in ray_cluster(job)["workerGroupSpecs"]}


def test_a_job_by_itself_has_a_deadline_and_deletion_rules_that_kuberay_takes() -> None:
    """Rules exclude the plain switch; of one condition, each later rule deletes more; workers go by the autoscaler."""
    (job,) = build("train")
    spec = job["spec"]
    assert spec["activeDeadlineSeconds"] > 0
    assert not {"shutdownAfterJobFinishes", "ttlSecondsAfterFinished"} & set(spec)
    rank = {"DeleteCluster": 1, "DeleteSelf": 2}
    stages: dict[str, list[tuple[int, int]]] = {}
    for rule in spec["deletionStrategy"]["deletionRules"]:
        condition = rule["condition"]
        (status,) = set(condition) - {"ttlSeconds"}
        stages.setdefault(condition[status], []).append(
            (condition["ttlSeconds"], rank[rule["policy"]])
        )
    assert set(stages) == {"SUCCEEDED", "Failed"}
    assert all([r for _, r in sorted(rules)] == [1, 2] for rules in stages.values())


@pytest.mark.parametrize("target", ["train", "overlays/dev/train", "overlays/production/train"])
def test_the_job_runs_a_command_that_exists(target: str) -> None:
    from click import Command
    from typer.main import get_command

    from pipelines.cli import app

    (job,) = build(target)
    program, command, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert program == "updraft"
    commands: dict[str, Command] = get_command(app).commands  # type: ignore[attr-defined]
    context = commands[command].make_context(command, list(arguments))
    has_gpus = any(g["groupName"] == "gpu" for g in ray_cluster(job)["workerGroupSpecs"])
    assert context.params["gpu"] is (has_gpus if HAS_BUILDER else True)
    assert context.params["no_deploy"] is True
    mounts = {
        m["mountPath"] for p in pods([job]) for c in p.containers for m in c.get("volumeMounts", [])
    }
    assert str(context.params["file"].parent) in mounts


@pytest.mark.parametrize("target", [*TARGETS])
def test_ray_is_the_version_in_the_images(target: str) -> None:
    from importlib.metadata import version

    for each in of(build(target), "RayService", "RayJob"):
        assert ray_cluster(each)["rayVersion"] == version("ray")
        assert ray_cluster(each)["authOptions"] == {"mode": "token"}
        assert ray_cluster(each)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.slow
def test_serve_takes_the_configuration_and_finds_the_application() -> None:
    from ray.serve.schema import ServeDeploySchema

    from serving import deployment

    (service,) = of(build("base"), "RayService")
    config = ServeDeploySchema.model_validate(_serve_config(service))
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    assert module == deployment.__name__
    assert callable(getattr(deployment, name))
    (one,) = application.deployments
    assert application.name == one.name == deployment.NAME
    assert one.max_replicas_per_node == 1
    (group,) = ray_cluster(service)["workerGroupSpecs"]
    assert one.num_replicas == group["replicas"] == deployment.REPLICAS
    assert deployment.Versions.model_validate(one.user_config).served() == {}


@needs_builder
def test_steps_of_an_upgrade_need_the_autoscaler_and_fit_into_its_surge(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{_relative('base', tmp_path)}]\n"
        f"components: [{_relative('components/incremental-upgrade', tmp_path)}]\n"
    )
    objects = build(str(tmp_path))
    (service,) = of(objects, "RayService")
    strategy = service["spec"]["upgradeStrategy"]
    assert strategy["type"] == "NewClusterWithIncrementalUpgrade"
    options = strategy["clusterUpgradeOptions"]
    assert options["stepSizePercent"] <= options["maxSurgePercent"]
    ray = ray_cluster(service)
    assert ray["enableInTreeAutoscaling"] is True
    assert ray["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert "serving-head-out-to-api-server" in {
        policy["metadata"]["name"] for policy in of(objects, "NetworkPolicy")
    }


def test_replicas_lie_on_different_nodes() -> None:
    (service,) = of(build("base"), "RayService")
    for pod in pods([service]):
        if pod.labels["ray.io/node-type"] == "worker":
            (spread,) = pod.spec["topologySpreadConstraints"]
            assert spread["whenUnsatisfiable"] == "DoNotSchedule"
            assert spread["topologyKey"] == "kubernetes.io/hostname"
            assert selects(spread["labelSelector"], pod.labels)


def _relative(target: str, folder: Path) -> str:
    return os.path.relpath(INFRA / target, folder.resolve())


def _serve_config(service: Object) -> Object:
    config: Object = yaml.safe_load(service["spec"]["serveConfigV2"])
    return config
