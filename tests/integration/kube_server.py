"""A Kubernetes API to test against: lists, watches, logs and deletions as the API server's, over real sockets.

It keeps objects of a few kinds with one counter of versions and a history to watch, which can be
compacted; connections can be cut, requests failed, verbs forbidden. Tests play the operator through
``status`` and ``pod``; what a RayJob may hold is in ``kube_rules``.
"""

from __future__ import annotations

import copy
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kube_http import Handler
from kube_rules import Json, Refused, check_rayjob

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KINDS = {"rayjobs": "RayJob", "rayservices": "RayService", "pods": "Pod"}


@dataclass
class Log:
    """A pod's log: its lines with their times, and how the connection misbehaves."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    started: bool = False
    cut_after: list[int] = field(default_factory=list)  # lines of a connection, then it drops


@dataclass
class KubeServer:
    """What the server holds.

    Attributes:
        operator: Called in a thread of its own with every RayJob that is created.
        forbidden: (verb, resource) that is refused to everybody.
        quota: What creation of a RayJob is refused for, if set.
        gone_as: How a version that is no longer kept is told: an "event" or a "status".
        lingering: Seconds that a deleted RayJob stays, as with KubeRay's finalizer.
        used: (verb, API group, resource) of every request.
    """

    url: str = ""
    operator: Callable[[str], None] = lambda name: None
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    quota: str = ""
    gone_as: str = "event"
    lingering: float = 0.0
    installed: set[str] = field(default_factory=lambda: set(KINDS))
    answers: dict[str, Any] = field(default_factory=dict)  # other GET paths
    used: set[tuple[str, str, str]] = field(default_factory=set)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    objects: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    logs: dict[str, Log] = field(default_factory=dict)
    history: list[tuple[int, str, str, Json]] = field(default_factory=list)
    version: int = 100
    oldest: int = 100
    mute: bool = False  # watches say nothing and don't end
    closing: bool = False
    _faults: list[tuple[str, str, Callable[[Handler], None]]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    # Faults.

    def fail(
        self, method: str, part: str, status: int, *, times: int = 1, after: int | None = None
    ) -> None:
        """Refuse the next requests of that method whose path and query hold the part."""

        def answer(handler: Handler) -> None:
            headers = {} if after is None else {"Retry-After": str(after)}
            handler.answer(Refused(status, "", "for the test"), headers)

        self._faults += [(method, part, answer)] * times

    def cut(self, method: str, part: str, *, times: int = 1, done: bool = False) -> None:
        """Close the connection without an answer; ``done``: after doing what was asked."""

        def answer(handler: Handler) -> None:
            if done:
                self.respond(handler)
            handler.close_connection = True
            handler.connection.close()

        self._faults += [(method, part, answer)] * times

    def fault(self, method: str, url: str) -> Callable[[Handler], None] | None:
        with self.changed:
            for index, (wanted, part, answer) in enumerate(self._faults):
                if wanted == method and part in url:
                    del self._faults[index]
                    return answer
        return None

    def compact(self) -> None:
        """Forget every event so far."""
        with self.changed:
            self.version += 10
            self.oldest = self.version
            self.history.clear()

    # The operator's part.

    def put(self, plural: str, item: Json, kind: str = "MODIFIED") -> Json:
        with self.changed:
            self.version += 1
            meta = item["metadata"]
            meta["resourceVersion"] = str(self.version)
            key = (plural, meta["namespace"], meta["name"])
            if kind == "DELETED":
                del self.objects[key]
            else:
                self.objects[key] = item
            self.history.append((self.version, plural, kind, copy.deepcopy(item)))
            self.changed.notify_all()
            return item

    def status(self, name: str, deployment: str, job: str = "", **more: str) -> None:
        """Move a RayJob on."""
        with self.changed:
            found = [o for (p, _, n), o in self.objects.items() if (p, n) == ("rayjobs", name)]
            if found:
                item = copy.deepcopy(found[0])
                status = {"jobDeploymentStatus": deployment, "jobStatus": job, **more}
                item["status"] = {"rayClusterName": f"{name}-abcde", **status}
                self.put("rayjobs", item)

    def pod(self, name: str, labels: dict[str, str], phase: str, **status: Any) -> None:
        made = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "updraft", "labels": labels, "uid": name,
                "creationTimestamp": START.isoformat().replace("+00:00", "Z"),
            },
            "spec": {"containers": [{"name": "c"}]}, "status": {"phase": phase, **status},
        }  # fmt: skip
        self.put("pods", made)

    def submitter(self, job: str, phase: str = "Running", number: int = 0) -> str:
        """The pod that submits a job, as the Job controller labels it."""
        name = f"{job}-{number}"
        self.logs.setdefault(name, Log()).started = phase != "Pending"
        self.pod(name, {"batch.kubernetes.io/job-name": job}, phase)
        return name

    def write(self, pod: str, *texts: str, at: float = 0.0) -> None:
        """Lines of a pod's log, ``at`` seconds after the start."""
        time = (START + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        with self.changed:
            self.logs[pod].lines += [(time, text) for text in texts]
            self.changed.notify_all()

    def jobs(self) -> list[Json]:
        return [o for (plural, _, _), o in self.objects.items() if plural == "rayjobs"]

    def await_(self, condition: Callable[[], bool], patience: float = 10.0) -> None:
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, "it didn't happen"
            time.sleep(0.01)

    # The interface.

    def respond(self, handler: Handler) -> None:
        """Answer a request, or raise Refused."""
        url = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        self.requests.append((handler.command, url.path, query, handler.body))
        if url.path in self.answers:
            answer = self.answers[url.path]
            if isinstance(answer, Refused):
                raise answer
            handler.answer(answer(handler.body) if callable(answer) else answer)
            return
        match parts:
            case ["apis", group, "v1", "namespaces", space, plural, *rest]:
                pass
            case ["api", "v1", "namespaces", space, plural, *rest]:
                group = ""
            case _:
                raise Refused(404, "NotFound", "the server could not find the requested resource")
        if plural not in self.installed:
            raise Refused(404, "NotFound", "404 page not found")
        verb = {"POST": "create", "DELETE": "delete", "PUT": "update"}.get(
            handler.command, "get" if rest else "watch" if query.get("watch") else "list"
        )
        resource = "/".join([plural, *rest[1:]])
        self.used.add((verb, group, resource))
        if (verb, resource) in self.forbidden:
            raise Refused(403, "Forbidden", f'{resource} is forbidden: User "a" cannot {verb}')
        match verb, rest:
            case "list", []:
                handler.answer(self._list(plural, space, query))
            case "watch", []:
                handler.stream(self._watch(plural, space, query))
            case "get", [name]:
                handler.answer(self._get(plural, space, name))
            case "get", [name, "log"]:
                self._get(plural, space, name)
                handler.stream(self._log(name, query))
            case "create", []:
                handler.answer(self._create(plural, space, handler.body))
            case "delete", [name]:
                handler.answer(self._delete(plural, space, name, handler.body or {}))
            case "update", [name]:
                handler.answer(self._update(plural, space, name, handler.body))

    def _get(self, plural: str, space: str, name: str) -> Json:
        with self.changed:
            if (plural, space, name) not in self.objects:
                raise Refused(404, "NotFound", f'{plural} "{name}" not found')
            return copy.deepcopy(self.objects[plural, space, name])

    def _chosen(self, item: Json, query: dict[str, str]) -> bool:
        meta = item["metadata"]
        for key, _, value in (s.partition("=") for s in query.get("labelSelector", "").split(",")):
            if key and meta.get("labels", {}).get(key) != value:
                return False
        field_selector = query.get("fieldSelector", "")
        return field_selector in ("", f"metadata.name={meta['name']}")

    def _list(self, plural: str, space: str, query: dict[str, str]) -> Json:
        with self.changed:
            items = [
                copy.deepcopy(item)
                for (p, s, _), item in self.objects.items()
                if (p, s) == (plural, space) and self._chosen(item, query)
            ]
            return {
                "kind": KINDS.get(plural, "") + "List", "apiVersion": "v1",
                "metadata": {"resourceVersion": str(self.version)}, "items": items,
            }  # fmt: skip

    def _watch(self, plural: str, space: str, query: dict[str, str]) -> Iterator[bytes]:
        seen = int(query["resourceVersion"])
        end = time.monotonic() + float(query.get("timeoutSeconds", 300))
        if seen < self.oldest:
            told = Refused(410, "Expired", f"too old resource version: {seen} ({self.oldest})")
            if self.gone_as == "status":
                raise told
            return iter([b'{"type":"ERROR","object":' + told.body() + b"}\n"])
        return self._events(plural, space, query, seen, end)

    def _events(
        self, plural: str, space: str, query: dict[str, str], seen: int, end: float
    ) -> Iterator[bytes]:
        while not self.closing:
            if self.mute:
                time.sleep(0.05)
                continue
            with self.changed:
                news = [event for event in self.history if event[0] > seen]
                if not news:
                    self.changed.wait(min(0.05, max(end - time.monotonic(), 0.0)))
            for version, kind, change, item in news:
                seen = version
                ours = (kind, item["metadata"]["namespace"]) == (plural, space)
                if ours and self._chosen(item, query):
                    yield json.dumps({"type": change, "object": item}).encode() + b"\n"
            if time.monotonic() >= end:
                if query.get("allowWatchBookmarks") in ("true", "True"):
                    mark = {"kind": KINDS[plural], "metadata": {"resourceVersion": str(seen)}}
                    yield json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n"
                return

    def _log(self, pod: str, query: dict[str, str]) -> Iterator[bytes]:
        log = self.logs[pod]
        if query.get("container") != "ray-job-submitter":
            raise Refused(400, "BadRequest", f"container is not valid for pod {pod}")
        if not log.started:
            raise Refused(400, "BadRequest", f'container "c" in pod "{pod}" is waiting to start')
        return self._lines(pod, log, query)

    def _lines(self, pod: str, log: Log, query: dict[str, str]) -> Iterator[bytes]:
        since = query.get("sinceTime", "")[:19]
        at = sent = 0
        limit = log.cut_after.pop(0) if log.cut_after else None
        while not self.closing:
            with self.changed:
                lines = log.lines[at:]
                at += len(lines)
                phase = self.objects.get(("pods", "updraft", pod), {}).get("status", {})
                ended = phase.get("phase") in (None, "Succeeded", "Failed")
            for stamp, text in lines:
                if stamp[:19] >= since:
                    if limit is not None and sent == limit:
                        raise ConnectionAbortedError
                    sent += 1
                    yield f"{stamp} {text}\n".encode()
            if limit is not None and sent == limit:
                raise ConnectionAbortedError
            if ended or query.get("follow") != "true":
                return
            with self.changed:
                self.changed.wait(0.05)

    def _create(self, plural: str, space: str, body: Json) -> Json:
        meta = body["metadata"]
        if meta.get("namespace", space) != space:
            raise Refused(400, "BadRequest", "the namespace of the object does not match")
        if plural == "rayjobs":
            check_rayjob(body)
        with self.changed:
            if (plural, space, meta["name"]) in self.objects:
                raise Refused(
                    409, "AlreadyExists", f'{plural}.ray.io "{meta["name"]}" already exists'
                )
            if self.quota:
                raise Refused(403, "Forbidden", f"exceeded quota: {self.quota}")
            made = copy.deepcopy(body)
            made["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": space, "generation": 1}
            self.put(plural, made, "ADDED")
            made = copy.deepcopy(made)
        threading.Thread(target=self.operator, args=(meta["name"],), daemon=True).start()
        return made

    def _delete(self, plural: str, space: str, name: str, body: Json) -> Json:
        with self.changed:
            item = self._get(plural, space, name)
            uid = body.get("preconditions", {}).get("uid", item["metadata"]["uid"])
            if uid != item["metadata"]["uid"]:
                raise Refused(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
            if body.get("propagationPolicy") not in ("Background", "Foreground"):
                raise Refused(422, "Invalid", "propagationPolicy")
            if not self.lingering:
                self.put(plural, item, "DELETED")
            else:
                item["metadata"]["deletionTimestamp"] = START.isoformat()
                self.put(plural, item)
                go = threading.Timer(self.lingering, self.put, (plural, item, "DELETED"))
                go.daemon = True
                go.start()
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _update(self, plural: str, space: str, name: str, body: Json) -> Json:
        with self.changed:
            item = self._get(plural, space, name)
            if body["metadata"].get("resourceVersion") != item["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", "the object has been modified; please apply again")
            made = {**copy.deepcopy(body), "status": item.get("status", {})}  # a subresource
            made["metadata"]["generation"] = item["metadata"].get("generation", 1) + 1
            return copy.deepcopy(self.put(plural, made))


@contextmanager
def kube_server(folder: Path, **options: Any) -> Iterator[tuple[KubeServer, Path]]:
    """A server on a free port of the loopback, and a kubeconfig for it."""
    kube = KubeServer(**options)
    handler = type("BoundHandler", (Handler,), {"kube": kube})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        kube.url = f"http://127.0.0.1:{http.server_address[1]}"
        config = folder / "kubeconfig"
        config.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": kube.url}}],
                    "users": [{"name": "test", "user": {"token": "t"}}],
                    "contexts": [
                        {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "updraft"}}
                    ],
                }
            )
        )  # fmt: skip
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield kube, config
        finally:
            kube.closing = True
            http.shutdown()
            thread.join()
