"""The log of a RayJob's submitter, which holds the driver's: followed while it is written, each line once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from kubernetes.client.exceptions import ApiException
from kubernetes.watch.watch import iter_resp_lines
from urllib3.exceptions import HTTPError

from components import kube_api
from components.kube_api import KubeApi, may_pass

CONTAINER = "ray-job-submitter"  # KubeRay's name for it, where the template has no other
JOB_LABEL = "batch.kubernetes.io/job-name"
POLL_S = 1.0
SILENCE_S = 600.0  # a line may take its time; then the connection counts as dead
REST_S = 10.0  # for what is left of the log when the job has ended

_STAMPED = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?(.*)", re.S
)


class LogFollower:
    """Writes the log's lines from a thread of its own.

    KubeRay's submitter is a Job of the RayJob's name; where its pod failed, there is another, whose
    log begins anew.

    Args:
        job: The RayJob.
        log: Told of every line.
    """

    def __init__(self, api: KubeApi, job: Mapping[str, Any], log: Callable[[str], None]) -> None:
        self._api, self._log = api, log
        self._namespace, self._name = job["metadata"]["namespace"], job["metadata"]["name"]
        template = job["spec"].get("submitterPodTemplate", {}).get("spec", {})
        containers = template.get("containers", [{}])
        self._container = containers[0].get("name", CONTAINER)
        self._ending, self._stopped = threading.Event(), threading.Event()
        self._done: set[str] = set()  # pods that are read to their end
        self._thread = threading.Thread(target=self._run, name="rayjob-log", daemon=True)
        self._thread.start()

    def finish(self, patience: float | None = None) -> None:
        """The job has ended: read the rest, for at most so many seconds, and stop."""
        self._ending.set()
        self._thread.join(REST_S if patience is None else patience)
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            last = (
                self._ending.is_set()
            )  # asked before looking, so that a last look comes after the end
            try:
                for pod in self._pods():
                    self._follow(pod)
                    self._done.add(pod)
                if last:
                    return
            except (ApiException, HTTPError, OSError) as error:
                if not _may_come(error):
                    told = self._api.told(error, "read the job's log")
                    self._log(f"({told}; the job goes on)")
                    return
            self._ending.wait(POLL_S)

    def _pods(self) -> list[str]:
        """The submitter's pods that aren't read yet, oldest first."""
        found = self._api.core.list_namespaced_pod(
            self._namespace,
            label_selector=f"{JOB_LABEL}={self._name}",
            _request_timeout=kube_api.TIMEOUT_S,
        ).items
        found.sort(key=lambda pod: (str(pod.metadata.creation_timestamp), pod.metadata.name))
        return [pod.metadata.name for pod in found if pod.metadata.name not in self._done]

    def _follow(self, pod: str) -> None:
        """Write a pod's lines until its container has ended and all are written."""
        position = Position()
        while not self._stopped.is_set():
            whole = self._ended(pod)  # asked before reading: what is read then is all there is
            try:
                for line in self._lines(pod, position, follow=not whole):
                    text = position.new(line)
                    if text is not None and not self._stopped.is_set():
                        self._log(text)
            except (ApiException, HTTPError, OSError) as error:
                if not _may_come(error) or getattr(error, "status", None) == 404:
                    raise
                waiting = getattr(error, "status", None) == 400  # the container hasn't started
                whole = waiting and self._ending.is_set()
            if whole:
                return
            self._ending.wait(POLL_S)

    def _lines(self, pod: str, position: Position, *, follow: bool) -> Iterator[str]:
        query = [("container", self._container), ("timestamps", "true")]
        query += [("follow", "true")] if follow else []
        query += [("sinceTime", position.second)] if position.second else []
        position.again()
        # The generated method for logs has no sinceTime.
        answer, _, _ = self._api.client.call_api(
            "/api/v1/namespaces/{namespace}/pods/{name}/log",
            "GET",
            {"namespace": self._namespace, "name": pod},
            query,
            {"Accept": "*/*"},
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=(kube_api.TIMEOUT_S[0], SILENCE_S),
        )
        try:
            yield from iter_resp_lines(answer)
        finally:
            answer.close()
            answer.release_conn()

    def _ended(self, pod: str) -> bool:
        read = self._api.core.read_namespaced_pod
        found = read(pod, self._namespace, _request_timeout=kube_api.TIMEOUT_S)
        return found.status.phase in ("Succeeded", "Failed")


class Position:
    """How far a log is read. The API begins again at whole seconds: what was seen of that one is left out.

    Attributes:
        second: Where to begin again, as the API takes it; "" before the first line.
    """

    second = ""

    def __init__(self) -> None:
        self._last, self._seen, self._skip = (0.0, ""), 0, 0

    def again(self) -> None:
        """The log is read again from ``second``."""
        self._skip = self._seen

    def new(self, line: str) -> str | None:
        """The text of a line with its time before it, if it is new."""
        match = _STAMPED.fullmatch(line)
        if match is None:
            return line
        second, fraction, zone, text = match.groups()
        when = datetime.fromisoformat(second + zone.replace("Z", "+00:00")).timestamp()
        time = (when, (fraction or "").ljust(9, "0"))
        if time < self._last:
            return None
        if time == self._last and self._skip:
            self._skip -= 1
            return None
        self._seen = self._seen + 1 if time == self._last else 1
        self._last, self.second = time, second + zone
        return text


def _may_come(error: Exception) -> bool:
    """Whether there may be a log later: 400 is a container that hasn't started, 404 a pod that went."""
    return getattr(error, "status", None) in (400, 404) or may_pass(error)
