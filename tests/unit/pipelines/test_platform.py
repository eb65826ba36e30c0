"""Compiled pipelines carry what the cluster gives their steps, and are the pipelines that run here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as pb

import components
from campaigns.errors import CampaignError
from campaigns.settings import Settings
from components.on_ray import RAY_STEPS
from components.rayjob import read_rayjob
from components.step import IMAGE
from pipelines.catalog import PIPELINES
from pipelines.compiling import compile_pipeline
from pipelines.platform import DEPLOY_STEP, WHO, read_platform, step_of

ROOT = Path(__file__).resolve().parents[3]
INFRA = ROOT / "infra" / "train"
MINE = "registry.example.com/updraft:7"

PLATFORM = """
rayjob: rayjob.yaml
exchange: s3://updraft/exchange
rayservice: serving/updraft
labels: {team: growth}
node_selector: {pool: cpu}
tolerations: [{key: spot, operator: Exists, effect: NoSchedule}]
env: {UPDRAFT_LOG_LEVEL: info}
secrets: {updraft-stores: {events: UPDRAFT_EVENT_STORE}}
config_maps: {updraft-settings: {UPDRAFT_HOME: UPDRAFT_HOME}}
volumes: {updraft-home: /var/lib/updraft}
pull_secrets: [registry]
pull_policy: IfNotPresent
timeout_seconds: 3600
retries: 3
cpu_limit: "2"
memory_request: 1Gi
steps:
  evaluate_model:
    node_selector: {size: large}
    tolerations: [{key: big, operator: Equal, value: "yes"}]
    memory_request: 16Gi
    timeout_seconds: 7200
    image: registry.example.com/large:1
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("platform")
    (folder / "rayjob.yaml").write_text((INFRA / "rayjob.yaml").read_text())
    (folder / "steps.yaml").write_text(PLATFORM)
    return folder / "steps.yaml"


@pytest.fixture(scope="module", params=list(PIPELINES))
def compiled(
    request: pytest.FixtureRequest, file: Path
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    text = compile_pipeline(PIPELINES[request.param], image=MINE, platform=read_platform(file))
    pipeline, platform = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return (
        request.param,
        pipeline,
        platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"],
    )


def test_every_step_has_what_all_have(compiled: tuple[str, Any, Any]) -> None:
    _, pipeline, kubernetes = compiled
    executors = pipeline["deploymentSpec"]["executors"]
    assert set(kubernetes) == set(executors)
    for label, told in kubernetes.items():
        config = json_format.ParseDict(
            told, pb.KubernetesExecutorConfig()
        )  # refuses what KFP would
        assert dict(config.pod_metadata.labels) == {"team": "growth"}
        assert config.node_selector.labels["pool"] == "cpu"
        assert config.tolerations[0].key == "spot"
        assert [(s.secret_name, s.key_to_env[0].env_var) for s in config.secret_as_env] == [
            ("updraft-stores", "UPDRAFT_EVENT_STORE")
        ]
        assert config.config_map_as_env[0].config_map_name == "updraft-settings"
        assert [(m.constant, m.mount_path) for m in config.pvc_mount] == [
            ("updraft-home", "/var/lib/updraft")
        ]
        assert config.image_pull_secret[0].secret_name == "registry"
        assert config.image_pull_policy == "IfNotPresent"
        assert {f.name: f.field_path for f in config.field_path_as_env} == WHO
        large = step_of(label) == "evaluate_model"
        assert config.active_deadline_seconds == (7200 if large else 3600)
        assert len(config.tolerations) == (2 if large else 1)
        container = executors[label]["container"]
        assert container["image"] == ("registry.example.com/large:1" if large else MINE)
        assert container["resources"]["resourceCpuLimit"] == "2"
        assert container["resources"]["resourceMemoryRequest"] == ("16Gi" if large else "1Gi")


def test_steps_that_use_ray_and_no_others_become_rayjobs(compiled: tuple[str, Any, Any]) -> None:
    _, pipeline, _ = compiled
    template = yaml.safe_load((INFRA / "rayjob.yaml").read_text())
    for label, executor in pipeline["deploymentSpec"]["executors"].items():
        env = {each["name"]: each["value"] for each in executor["container"]["env"]}
        assert env["UPDRAFT_LOG_LEVEL"] == "info"
        assert env.get("UPDRAFT_RAYSERVICE") == (
            "serving/updraft" if step_of(label) == DEPLOY_STEP else None
        )
        assert ("UPDRAFT_RAYJOB" in env) == (step_of(label) in RAY_STEPS)
        if "UPDRAFT_RAYJOB" in env:
            assert read_rayjob(env["UPDRAFT_RAYJOB"]) == template
            assert env["UPDRAFT_EXCHANGE"] == "s3://updraft/exchange"
        assert {name.removeprefix("UPDRAFT_").lower() for name in env} <= set(Settings.model_fields)


def test_only_steps_that_may_be_repeated_are(compiled: tuple[str, Any, Any]) -> None:
    _, pipeline, _ = compiled
    for name, task in tasks(pipeline).items():
        repeated = task.get("retryPolicy", {}).get("maxRetryCount")
        fresh = not task.get("cachingOptions", {}).get("enableCache", False)
        assert repeated in (None, 3)
        assert not (fresh and repeated), f"{name} changes what lies outside"


def test_every_step_that_can_use_ray_says_so() -> None:
    """A step whose code asks for Ray becomes a RayJob, or deploys to a RayService."""
    using = {
        path.stem
        for path in Path(components.__file__).parent.glob("*.py")
        if re.search(
            r"^ +from (components.on_ray|models.ray_session) import", path.read_text(), re.M
        )
        and "@dsl.component" in path.read_text()
    }
    assert using == {*RAY_STEPS, DEPLOY_STEP}


def test_the_platform_changes_nothing_but_pods(compiled: tuple[str, Any, Any]) -> None:
    """The compiled pipeline is the one that runs here: steps, order, parameters, artifacts, code."""
    name, pipeline, _ = compiled
    here = PIPELINES[name].pipeline_spec  # what kfp.local runs
    local = json_format.MessageToDict(here)
    assert {
        k: v["container"]["command"] for k, v in pipeline["deploymentSpec"]["executors"].items()
    } == {k: v["container"]["command"] for k, v in local["deploymentSpec"]["executors"].items()}
    assert set(tasks(pipeline)) == set(tasks(local))
    for place, task in tasks(pipeline).items():
        other = tasks(local)[place]
        for part in ("inputs", "dependentTasks", "triggerPolicy", "componentRef", "taskInfo"):
            assert task.get(part) == other.get(part), f"{place}: {part}"
    for place, component in pipeline["components"].items():
        for part in ("inputDefinitions", "outputDefinitions"):
            assert component.get(part) == local["components"][place].get(part), place
    assert pipeline["root"]["inputDefinitions"] == local["root"]["inputDefinitions"]


def test_the_file_beside_the_manifests_is_taken_and_asks_for_what_they_hold() -> None:
    platform = read_platform(INFRA / "steps.yaml")
    job = read_rayjob(platform.rayjob or "")
    for step in RAY_STEPS:
        assert (platform.of(step).timeout_seconds or 0) > job["spec"]["activeDeadlineSeconds"]
    base = {
        (each["kind"], each["metadata"]["name"]): each
        for path in (ROOT / "infra" / "base").glob("*.yaml")
        for each in yaml.safe_load_all(path.read_text())
        if each and "metadata" in each
    }
    for name, keys in platform.config_maps.items():
        assert set(keys) <= set(base["ConfigMap", name]["data"])
    for claim in platform.volumes:
        assert ("PersistentVolumeClaim", claim) in base
    page = (ROOT / "infra" / "README.md").read_text()
    assert all(f"`{secret}`" in page for secret in platform.secrets)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    mounts = {mount["mountPath"] for mount in head["volumeMounts"]}
    assert set(platform.volumes.values()) <= mounts  # the exchange has the same path on both sides


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nodeselector: {a: b}", r"nodeselector: extra inputs are not permitted; there is 'image'"),
        ("retries: -1", r"retries: input should be greater than or equal to 0"),
        ("steps: {train_model: {gpu: 1}}", r"steps.train_model.gpu: extra inputs"),
        ("rayjob: none.yaml", r"none.yaml' can't be read"),
        ("{", "is no YAML"),
    ],
)
def test_mistakes_in_the_file_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "steps.yaml").write_text(text)
    with pytest.raises(CampaignError, match=sentence):
        read_platform(tmp_path / "steps.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps: {train_modl: {}}", r"steps.train_modl: no step; there is 'compare_with_champion'"),
        ("cpu_limit: 4 cores", "resources: "),
    ],
)
def test_mistakes_that_only_compiling_finds_are_told(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / "steps.yaml").write_text(text)
    with pytest.raises(CampaignError, match=sentence):
        compile_pipeline(PIPELINES["explore"], platform=read_platform(tmp_path / "steps.yaml"))


def test_without_an_image_the_built_in_one_stays(file: Path) -> None:
    text = compile_pipeline(PIPELINES["explore"], platform=read_platform(file))
    pipeline, _ = yaml.load_all(text, Loader=yaml.CSafeLoader)
    executors = pipeline["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {IMAGE}


def tasks(pipeline: dict[str, Any]) -> dict[str, Any]:
    dags = {"root": pipeline["root"], **pipeline["components"]}
    return {
        f"{name}/{key}": task
        for name, part in dags.items()
        for key, task in part.get("dag", {}).get("tasks", {}).items()
    }
