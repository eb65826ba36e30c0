"""What a cluster gives the steps of compiled pipelines: nodes, secrets, volumes, limits, and Ray."""

import copy
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from campaigns.errors import CampaignError, choices
from components.on_ray import RAY_STEPS
from components.rayjob import compact, read_rayjob

Json = dict[str, Any]
Quantity = str

DEPLOY_STEP = "deploy_model"

# Where a step learns which run and which pod it is (Kubernetes' downward API; the label is KFP's).
WHO = {
    "UPDRAFT_KFP_RUN": "metadata.labels['pipeline/runid']",
    "UPDRAFT_POD": "metadata.name",
}


class Toleration(BaseModel):
    """A taint that a step's pod puts up with."""

    model_config = ConfigDict(extra="forbid")
    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Pods(BaseModel):
    """What a step's pod gets."""

    model_config = ConfigDict(extra="forbid")
    image: str | None = None
    labels: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    env: dict[str, str] = {}
    secrets: dict[str, dict[str, str]] = Field({}, description="secret: {key: VARIABLE}")
    config_maps: dict[str, dict[str, str]] = Field({}, description="config map: {key: VARIABLE}")
    volumes: dict[str, str] = Field({}, description="claim: path")
    pull_secrets: list[str] = []
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    timeout_seconds: int | None = Field(None, gt=0)
    retries: int | None = Field(None, ge=0, description="Of steps that may be repeated.")
    cpu_request: Quantity | None = None
    cpu_limit: Quantity | None = None
    memory_request: Quantity | None = None
    memory_limit: Quantity | None = None


class Platform(Pods):
    """What all steps get, what some get besides or instead, and what Ray steps become and deploy to."""

    steps: dict[str, Pods] = {}
    rayjob: str | None = None
    exchange: str | None = None
    rayservice: str | None = None

    def of(self, step: str) -> Pods:
        """What a step's pod gets: its own over what all have; mappings and lists are joined."""
        own = self.steps.get(step)
        joined = {name: getattr(self, name) for name in Pods.model_fields}
        for name in own.model_fields_set if own else ():
            value, common = getattr(own, name), joined[name]
            if isinstance(value, dict):
                value = {**common, **value}
            joined[name] = [*common, *value] if isinstance(value, list) else value
        if step in RAY_STEPS and self.rayjob:
            joined["env"] = {**joined["env"], "UPDRAFT_RAYJOB": self.rayjob}
            if self.exchange:
                joined["env"]["UPDRAFT_EXCHANGE"] = self.exchange
        if step == DEPLOY_STEP and self.rayservice:
            joined["env"] = {**joined["env"], "UPDRAFT_RAYSERVICE": self.rayservice}
        return Pods.model_construct(**joined)


def read_platform(file: Path) -> Platform:
    """The platform in a YAML file; ``rayjob`` in it names a file beside it.

    Raises:
        CampaignError: It can't be read, or something in it is wrong.
    """
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8"))
        platform = Platform.model_validate(told or {})
    except OSError as error:
        raise CampaignError(f"{file}: can't be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise CampaignError(f"{file}: is no YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        lines = []
        for each in error.errors():
            place = ".".join(map(str, each["loc"]))
            known = ""
            if each["type"] == "extra_forbidden":
                model = Pods if place.startswith("steps.") else Platform
                known = f"; there is {choices(model.model_fields)}"
            lines.append(f"{file}: {place}: {each['msg'].lower()}{known}")
        raise CampaignError("\n".join(lines)) from error
    if platform.rayjob:
        job = compact(read_rayjob(str(file.parent / platform.rayjob)))
        platform = platform.model_copy(update={"rayjob": job})
    return platform


def place(documents: list[Json], platform: Platform, ours: str) -> list[Json]:
    """The documents of a compiled pipeline, with every step that runs in the image ``ours`` placed.

    Raises:
        CampaignError: The platform speaks of a step that no pipeline has.
    """
    _check_steps(platform)
    wardrobe: dict[str, tuple[Json, Json]] = {}  # most steps wear the same
    pipeline, *others = documents
    where: Json = others[0] if others else {"platforms": {"kubernetes": {"deploymentSpec": {}}}}
    kubernetes = where["platforms"]["kubernetes"]["deploymentSpec"].setdefault("executors", {})
    for label, executor in pipeline["deploymentSpec"]["executors"].items():
        container = executor.get("container", {})
        if container.get("image") != ours:
            continue
        pods = platform.of(step_of(label))
        kind = repr(pods)
        if kind not in wardrobe:
            wardrobe[kind] = _dressed(pods)
        dressed, config = copy.deepcopy(wardrobe[kind])
        container["env"] = [*container.get("env", []), *dressed.get("env", [])]
        container["image"] = pods.image or container["image"]
        if "resources" in dressed:
            container["resources"] = dressed["resources"]
        for key, value in config.items():
            mine = kubernetes.setdefault(label, {})
            mine[key] = [*mine.get(key, []), *value] if isinstance(value, list) else value
        if not container["env"]:
            del container["env"]
    for task in _tasks(pipeline):
        retries = platform.of(step_of(task["componentRef"]["name"])).retries
        if "retryPolicy" in task and retries is not None:
            task["retryPolicy"]["maxRetryCount"] = retries
    return [pipeline, where]


def step_of(label: str) -> str:
    """The step of an executor or component: ``exec-train-model-2`` is train_model's."""
    return re.sub(r"^(exec|comp)-|-\d+$", "", label).replace("-", "_")


def _tasks(pipeline: Json) -> list[Json]:
    dags = [pipeline["root"], *pipeline["components"].values()]
    return [task for part in dags for task in part.get("dag", {}).get("tasks", {}).values()]


def _check_steps(platform: Platform) -> None:
    from pipelines.catalog import PIPELINES

    known = {
        step_of(label)
        for pipeline in PIPELINES.values()
        for label in pipeline.pipeline_spec.deployment_spec.fields["executors"].struct_value.fields
    }
    for step in platform.steps:
        if step not in known:
            raise CampaignError(f"steps.{step}: no step; there is {choices(sorted(known))}")


def _dressed(pods: Pods) -> tuple[Json, Json]:
    """The container and the platform's part of a step that KFP's own functions gave all this."""
    from kfp import compiler, dsl, kubernetes

    @dsl.component(base_image="model", install_kfp_package=False)
    def model() -> None:
        pass

    def wardrobe() -> None:
        task = model()
        for key, value in pods.labels.items():
            kubernetes.add_pod_label(task, key, value)
        for key, value in pods.node_selector.items():
            kubernetes.add_node_selector(task, key, value)
        for toleration in pods.tolerations:
            kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
        for name, value in pods.env.items():
            task.set_env_variable(name, value)
        for name, keys in pods.secrets.items():
            kubernetes.use_secret_as_env(task, name, keys)
        for name, keys in pods.config_maps.items():
            kubernetes.use_config_map_as_env(task, name, keys)
        for claim, path in pods.volumes.items():
            kubernetes.mount_pvc(task, claim, path)
        if pods.pull_secrets:
            kubernetes.set_image_pull_secrets(task, pods.pull_secrets)
        if pods.pull_policy:
            kubernetes.set_image_pull_policy(task, pods.pull_policy)
        if pods.timeout_seconds:
            kubernetes.set_timeout(task, pods.timeout_seconds)
        for resource in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
            if (amount := getattr(pods, resource)) is not None:
                getattr(task, f"set_{resource}")(amount)
        for name, field in WHO.items():
            kubernetes.use_field_path_as_env(task, name, field)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.yaml"
        try:
            compiler.Compiler().compile(dsl.pipeline(name="model")(wardrobe), str(file))
        except ValueError as error:  # a quantity that KFP doesn't take
            raise CampaignError(f"resources: {' '.join(str(error).split())}") from error
        pipeline, where = yaml.safe_load_all(file.read_text())
    (executor,) = pipeline["deploymentSpec"]["executors"].values()
    (config,) = where["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    return executor["container"], config
