"""A RayJob from its creation to its end: adopted where it is there already, cancelled with the step, cleaned up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from campaigns.errors import EnvironmentProblem, RemoteError, UpdraftError
from components.kube_api import Backoff, Conflict, Exists, KubeApi, Missing
from components.rayjob import RUN
from components.rayjob_logs import LogFollower
from components.rayjob_watch import GROUP, PLURAL, VERSION, states

CANCEL_S = 20.0  # Kubernetes kills a pod 30 s after it asked it to end
TERMINATED = 143  # 128 + SIGTERM

Json = dict[str, Any]
Say = Callable[[str], None]

# What KubeRay's jobDeploymentStatus means to people.
PHASES = {
    "": "was created",
    "Initializing": "starts its Ray",
    "Running": "runs",
    "Suspending": "is suspended",
    "Suspended": "waits to be admitted by its queue",
    "Retrying": "failed and is tried again",
    "Scheduling": "is scheduled",
    "Scheduled": "is scheduled",
}
ENDED = {"Complete", "Failed", "ValidationFailed"}


class JobFailed(UpdraftError):
    """The entrypoint failed; what it said is in its log."""


class Terminated(SystemExit):
    """SIGTERM: the step is cancelled, and the job with it."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


def run_rayjob(api: KubeApi, job: Mapping[str, Any], *, say: Say, log: Say) -> None:
    """Create a RayJob, or go on with the one that this step created before; follow it; remove it.

    SIGTERM removes it at once. Where the API is lost for longer than ``kube_api.PATIENCE_S`` the job
    goes on, and the step finds it when it is tried again.

    Args:
        job: As from :func:`components.rayjob.rayjob`.
        say: Told how the job stands, in a sentence.
        log: Told of every line of its log.

    Raises:
        JobFailed: The entrypoint failed.
        EnvironmentProblem: The deadline passed, the quota is used up, or Ray couldn't take the job.
        RemoteError: Kubernetes refuses, can't be reached, or somebody removed the job.
        Terminated: SIGTERM came.
    """
    run = _Run(api, job, say, log)
    with _terminated():
        try:
            run.start()
            run.follow()
        except (Terminated, KeyboardInterrupt):
            say(f"{run.title} is cancelled")
            run.remove(patience=CANCEL_S)
            raise
        except (RemoteError, EnvironmentProblem, JobFailed):
            if run.ended:
                run.remove()
            raise
        run.remove()


class _Run:
    """One job's way."""

    def __init__(self, api: KubeApi, job: Mapping[str, Any], say: Say, log: Say) -> None:
        self._api, self._job, self._say, self._log = api, job, say, log
        self.name, self.namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        self.title = f"RayJob {self.namespace}/{self.name}"
        self.uid = ""
        self.ended = False

    def start(self) -> None:
        """Create the job; one that failed before, or is on its way out, makes room first."""
        for _ in range(3):
            try:
                made = self._api.call(
                    f"create {self.title}",
                    self._api.objects.create_namespaced_custom_object,
                    GROUP, VERSION, self.namespace, PLURAL, self._job,
                )  # fmt: skip
                self.uid = made["metadata"]["uid"]
                return
            except Missing as error:
                raise RemoteError(
                    f"{error}; is KubeRay installed (its RayJob), and is there a namespace {self.namespace}?"
                ) from error
            except Exists:
                if self._adopt():
                    return
        raise RemoteError(f"{self.title}: is there again and again; who else makes it?")

    def _adopt(self) -> bool:
        """Go on with the job of this name; False where there is none any more."""
        try:
            found = self._api.call(
                f"read {self.title}",
                self._api.objects.get_namespaced_custom_object,
                GROUP, VERSION, self.namespace, PLURAL, self.name,
            )  # fmt: skip
        except Missing:
            return False
        theirs = found["metadata"].get("labels", {}).get(RUN)
        if theirs != self._job["metadata"]["labels"][RUN]:
            raise RemoteError(f"{self.title}: is there already, of run {theirs!r}; remove it first")
        self.uid = found["metadata"]["uid"]
        leaving = "deletionTimestamp" in found["metadata"]
        failed = _problem(found, self.title) is not None
        if not leaving and not failed:
            self._say(f"{self.title} is there already: goes on with it")
            return True
        if not leaving:
            self._say(f"{self.title} failed before: makes a new one")
            self.remove()
        for state in states(self._api, self.namespace, self.name):
            if state is None or state["metadata"]["uid"] != self.uid:
                break
        return False

    def follow(self) -> None:
        """Tell of the job and its log until it has ended well."""
        follower, told = None, ""
        try:
            for state in states(self._api, self.namespace, self.name):
                if state is None or state["metadata"]["uid"] != self.uid:
                    raise RemoteError(
                        f"{self.title}: somebody removed it while it ran; run the step again"
                    )
                phase = state.get("status", {}).get("jobDeploymentStatus", "")
                if follower is None and phase in ("Running", "Complete", "Failed"):
                    follower = LogFollower(self._api, self._job, self._log)
                if phase in ENDED:
                    self.ended = True
                    break
                line = f"{self.title} {PHASES.get(phase, phase)}{self._waits_for(state)}"
                if line != told:
                    self._say(line)
                told = line
        finally:
            if follower is not None:
                follower.finish(None if self.ended else 0.0)
        problem = _problem(state or {}, self.title)
        if problem is not None:
            raise problem

    def _waits_for(self, state: Json) -> str:
        """Why a pod of its Ray doesn't start, as far as one can see."""
        status = state.get("status", {})
        cluster = status.get("rayClusterName")
        if status.get("jobDeploymentStatus") != "Initializing" or not cluster:
            return ""
        try:
            pods = self._api.call(
                "list its pods",
                self._api.core.list_namespaced_pod,
                self.namespace,
                label_selector=f"ray.io/cluster={cluster}",
                patience=0.0,
            ).items
        except (RemoteError, EnvironmentProblem):
            return ""
        reasons = {why for pod in pods if (why := _why_pending(pod))}
        return f"; waits for {'; '.join(sorted(reasons))}" if reasons else ""

    def remove(self, patience: float | None = None) -> None:
        """Delete the job with all that it made, if it is the one that we know."""
        known = {"preconditions": {"uid": self.uid}} if self.uid else {}
        backoff = Backoff(CANCEL_S if patience is None else patience)
        while True:
            try:
                self._api.call(
                    f"delete {self.title}",
                    self._api.objects.delete_namespaced_custom_object,
                    GROUP, VERSION, self.namespace, PLURAL, self.name,
                    body={"propagationPolicy": "Background", **known},
                    patience=patience,
                )  # fmt: skip
                return
            except Missing:
                return
            except (RemoteError, EnvironmentProblem) as error:
                if isinstance(error, Conflict):
                    if "Precondition failed" in str(error):
                        return  # another stands in its place
                    if backoff.wait():
                        continue  # the operator changed it at the same moment
                self._say(f"{self.title} stays until its own rules delete it: {error}")
                return


def _problem(state: Json, title: str) -> UpdraftError | None:
    """What went wrong with a job that has ended; None for one that succeeded or goes on."""
    status = state.get("status", {})
    phase, job = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    if phase not in ENDED or (phase == "Complete" and job == "SUCCEEDED"):
        return None
    reason, message = status.get("reason", ""), " ".join(str(status.get("message", "")).split())
    detail = f": {message[-400:]}" if message else ""
    if reason == "DeadlineExceeded":
        limit = state.get("spec", {}).get("activeDeadlineSeconds")
        return EnvironmentProblem(
            f"{title}: didn't end within its deadline of {limit} s (activeDeadlineSeconds), its Ray's "
            "start included; give it longer, or more workers"
        )
    if job == "STOPPED":
        return EnvironmentProblem(f"{title}: somebody stopped the job in Ray; run the step again")
    if phase == "ValidationFailed":
        return RemoteError(f"{title}: KubeRay refuses it{detail}")
    if reason == "AppFailed" or job == "FAILED":
        return JobFailed(f"{title}: the job failed{detail}")
    return EnvironmentProblem(f"{title}: failed ({reason or phase}){detail}")


def _why_pending(pod: Any) -> str:
    """What keeps a pod from running."""
    if pod.status.phase != "Pending":
        return ""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"a node ({' '.join(str(condition.message).split())})"
    for container in pod.status.container_statuses or []:
        waiting = container.state.waiting if container.state else None
        if waiting and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
            return f"container {container.name} ({waiting.reason})"
    return ""


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM raises Terminated in the block."""

    def raised(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: the job is being removed
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    before = signal.signal(signal.SIGTERM, raised)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
