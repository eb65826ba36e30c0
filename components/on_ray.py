"""Have Ray do a step's work: the Ray that the step attaches to, or a RayJob of its own."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from campaigns.errors import (
    CampaignError,
    CheckFailed,
    DataError,
    EnvironmentProblem,
    RemoteError,
    UpdraftError,
)
from campaigns.settings import Settings
from components.exchange import Exchange
from components.lease import kept
from components.step import Step

KINDS = (CampaignError, DataError, CheckFailed, EnvironmentProblem, RemoteError)
RAY_STEPS = ("search_hyperparameters", "train_model")
FRAME = "training_frame"  # read where it lies, by every node
TASK, DONE, FAILED = "task.json", "done.json", "failed.json"

Json = dict[str, Any]


def on_ray(
    step: Step,
    task: str,
    arguments: Mapping[str, Any],
    *,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> Json:
    """Do a task of :data:`components.ray_tasks.TASKS`, and answer its metadata.

    With ``UPDRAFT_EXCHANGE`` the frame and what Ray keeps lie there, so that its nodes share no disk.
    With ``UPDRAFT_RAYJOB`` it is done by a RayJob: inputs are copied to where it reads them, outputs
    from where it wrote them. A step that starts again finds the job, or what it left.

    Args:
        arguments: The step's parameters.
        inputs, outputs: Local paths of its artifacts, by the task's names.

    Raises:
        UpdraftError: As the task; and as :func:`components.rayjob_run.run_rayjob`.
    """
    if step.settings.rayjob is None:
        from components.ray_tasks import TASKS
        from models.ray_session import attach

        attach(step.settings)
        with _within_reach(step, task, inputs) as (storage, given):
            return TASKS[task](step, storage, **arguments, **given, **outputs)
    run = step.settings.kfp_run or step.settings.pod
    if not run:
        raise EnvironmentProblem(
            "UPDRAFT_RAYJOB is set, and nothing says which run this is; updraft compile sets "
            "UPDRAFT_KFP_RUN too, from the pod's label"
        )
    exchange = Exchange(f"{_place(step.settings)}/{run}/{step.name}")
    done = exchange.read(DONE)
    if done is None:
        _offer(exchange, step.name, task, arguments, inputs, outputs)
        with kept(exchange):
            _run(step, exchange, run, arguments)
        done = exchange.read(DONE)
        if done is None:
            raise EnvironmentProblem(
                f"{exchange.uri(DONE)}: isn't there though the RayJob succeeded; its pods must reach "
                "what the step calls UPDRAFT_EXCHANGE under the same name"
            )
    for name, local in outputs.items():
        exchange.get(name, local)
    exchange.remove()
    return done


@contextmanager
def _within_reach(
    step: Step, task: str, inputs: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The storage for Ray, and the inputs, where every node reaches them."""
    if step.settings.exchange is None:
        yield str(step.settings.folder("ray", task)), inputs
        return
    name = step.settings.run or uuid.uuid4().hex
    exchange = Exchange(f"{step.settings.exchange.rstrip('/')}/{name}/{step.name}")
    exchange.put(inputs[FRAME], FRAME)
    try:
        yield exchange.uri("ray"), {**inputs, FRAME: exchange.uri(FRAME)}
    finally:
        exchange.remove()


def _offer(
    exchange: Exchange,
    step: str,
    task: str,
    arguments: Mapping[str, Any],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> None:
    """Lay out what the job needs; what lies there whole is left alone, as the job may be reading it."""
    if exchange.read(TASK) is not None:
        return
    for name, local in inputs.items():
        exchange.put(local, name)
    told = {"step": step, "task": task, "arguments": dict(arguments)}
    exchange.write(TASK, {**told, "inputs": list(inputs), "outputs": list(outputs)})


def _run(step: Step, exchange: Exchange, run: str, arguments: Mapping[str, Any]) -> None:
    from components.kube_api import kube_api
    from components.rayjob import rayjob, read_rayjob
    from components.rayjob_run import JobFailed, run_rayjob

    template = read_rayjob(step.settings.rayjob or "")
    with kube_api() as api:
        job = rayjob(
            template,
            run=run,
            step=step.name,
            entrypoint=shlex.join(["python", "-m", "components.ray_entry", exchange.place]),
            workers=int(arguments.get("workers", 1)),
            gpu=bool(arguments.get("gpu", False)),
        )
        if owner := _owner(api, job["metadata"]["namespace"], step):
            job["metadata"]["ownerReferences"] = [owner]
        try:
            run_rayjob(api, job, say=step.say, log=lambda line: print(line, flush=True))
        except JobFailed as error:
            raise _told(exchange.read(FAILED)) or error from error


def _told(failure: Json | None) -> UpdraftError | None:
    """What the task raised in the job, as it would have been raised here."""
    if failure is None:
        return None
    kinds = {kind.exit_code: kind for kind in KINDS}
    return kinds.get(failure["exit_code"], UpdraftError)(failure["message"])


def _owner(api: Any, namespace: str, step: Step) -> Json | None:
    """The workflow that the step's pod belongs to, in the same namespace: the job goes with it."""
    if not step.settings.pod or api.namespace != namespace:
        return None  # Kubernetes takes an owner of another namespace for one that is gone
    try:
        pod = api.call(
            "read the step's pod",
            api.core.read_namespaced_pod,
            step.settings.pod,
            namespace,
            patience=10.0,
        )
    except (RemoteError, EnvironmentProblem) as error:
        step.say(f"the RayJob gets no owner: {error}")
        return None
    for owner in pod.metadata.owner_references or []:
        if owner.controller:
            return {
                "apiVersion": owner.api_version, "kind": owner.kind,
                "name": owner.name, "uid": owner.uid,
            }  # fmt: skip
    return None


def _place(settings: Settings) -> str:
    return settings.exchange or str(settings.folder("exchange"))
