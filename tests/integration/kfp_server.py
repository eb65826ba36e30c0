"""A Kubeflow Pipelines API to test against: the v2beta1 REST interface, refusing what the real one would.

It keeps experiments, pipelines, versions, runs and recurring runs as the API server does: names,
duplicates, references, namespaces, tokens, pages. What a body may hold is in ``kfp_rules``.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kfp_rules import (
    Json,
    Refused,
    check_cron,
    check_parameters,
    conforms,
    filtered,
    list_key,
    pipeline_spec,
    required,
    stored,
)

API = "/apis/v2beta1"


@dataclass
class Request:
    """A request that came in, and what it was answered."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str | None
    status: int = 0


@dataclass
class KfpServer:
    """What the server holds, and how it misbehaves.

    Attributes:
        token: Asked of everybody, if set.
        multi_user: Everything needs a namespace, which must be ``namespace``.
        prefix: Where the API lives under the host, such as ``/pipeline``.
        page_limit: Items a page, whatever was asked for.
    """

    token: str | None = None
    multi_user: bool = False
    namespace: str = "team-a"
    prefix: str = ""
    page_limit: int = 100
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    experiments: dict[str, Json] = field(default_factory=dict)
    pipelines: dict[str, Json] = field(default_factory=dict)
    versions: dict[str, Json] = field(default_factory=dict)
    runs: dict[str, Json] = field(default_factory=dict)
    recurring_runs: dict[str, Json] = field(default_factory=dict)
    _faults: list[tuple[str, str, Callable[[Handler], None]]] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # Faults.

    def fail(self, method: str, path: str, status: int, *, times: int = 1, page: str = "") -> None:
        """Answer the next requests of that method, whose path ends so, with a status and a page."""

        def answer(handler: Handler) -> None:
            kind = "text/html" if page else "application/json"
            told = page or json.dumps(
                {"error": "for the test", "code": 14, "message": "for the test"}
            )
            handler.answer(status, told.encode(), kind)

        self._faults += [(method, path, answer)] * times

    def cut(self, method: str, path: str, *, times: int = 1, done: bool = False) -> None:
        """Close the connection without an answer; ``done``: after doing what was asked."""

        def answer(handler: Handler) -> None:
            if done:
                handler.result()
            handler.close_connection = True
            handler.connection.close()

        self._faults += [(method, path, answer)] * times

    def fault(self, method: str, path: str) -> Callable[[Handler], None] | None:
        with self._lock:
            for index, (wanted, end, answer) in enumerate(self._faults):
                if wanted == method and path.endswith(end):
                    del self._faults[index]
                    return answer
        return None

    def calls(self, method: str, path: str) -> list[Request]:
        """The requests of that method to that path under the API's root."""
        wanted = f"{self.prefix}{API}/{path}"
        return [r for r in self.requests if r.method == method and r.path == wanted]

    # The interface.

    def respond(self, request: Request) -> Json:
        """The answer to a request.

        Raises:
            Refused: The real one would refuse it.
        """
        with self._lock:
            if self.token and request.authorization != f"Bearer {self.token}":
                raise Refused(401, "Request header error: there is no user identity header")
            root = self.prefix + API + "/"
            if not request.path.startswith(root):
                raise Refused(404, "Not Found")
            parts = request.path.removeprefix(root).split("/")
            match request.method, *parts:
                case "GET", "healthz":
                    return {"multi_user": self.multi_user, "pipeline_store": "database"}
                case "GET", "experiments":
                    return self._list(self.experiments, "Experiments", request)
                case "POST", "experiments":
                    return self._create_experiment(request.body)
                case "GET", "pipelines":
                    return self._list(self.pipelines, "Pipelines", request)
                case "POST", "pipelines":
                    return self._create_pipeline(request.body)
                case "POST", "pipelines", "upload_version":
                    return self._upload_version(request)
                case "GET", "pipelines", pipeline_id, "versions":
                    mine = {
                        k: v for k, v in self.versions.items() if v["pipeline_id"] == pipeline_id
                    }
                    return self._list(mine, "PipelineVersions", request, namespaced=False)
                case "POST", "runs":
                    return self._create_run(request.body)
                case "GET", "recurringruns":
                    return self._list_recurring_runs(request)
                case "POST", "recurringruns":
                    return self._create_recurring_run(request.body)
                case "DELETE", "recurringruns", run_id:
                    if self.recurring_runs.pop(run_id, None) is None:
                        raise Refused(404, f"Recurring run {run_id} not found")
                    return {}
            raise Refused(405, "Method Not Allowed")

    def _create_experiment(self, body: Json) -> Json:
        conforms(body, "V2beta1Experiment")
        name = required(body, "display_name")
        space = self._allowed(body.get("namespace", ""))
        if any(
            name == e["display_name"] and space == e["namespace"] for e in self.experiments.values()
        ):
            raise Refused(409, f"Already exist error: experiment {name} already exists")
        return stored(self.experiments, "experiment_id", {**body, "namespace": space})

    def _create_pipeline(self, body: Json) -> Json:
        conforms(body, "V2beta1Pipeline")
        name = required(body, "name", at_most=128)
        space = self._allowed(body.get("namespace", ""))
        if any(name == p["name"] and space == p["namespace"] for p in self.pipelines.values()):
            raise Refused(409, f"Already exist error: pipeline {name} already exists")
        return stored(self.pipelines, "pipeline_id", {**body, "namespace": space})

    def _upload_version(self, request: Request) -> Json:
        unknown = set(request.query) - {
            "name", "display_name", "pipelineid", "description", "tags", "code_source_url",
        }  # fmt: skip
        if unknown:
            raise Refused(400, f"unknown query parameters {unknown}")
        pipeline_id = request.query.get("pipelineid", "")
        if pipeline_id not in self.pipelines:
            raise Refused(400, "Failed to create a pipeline version")
        self._allowed(self.pipelines[pipeline_id]["namespace"])
        filename, text = request.body
        if not filename.endswith((".yaml", ".yml")):
            raise Refused(
                400, "Unexpected pipeline file format. Support .zip, .tar.gz, .json or YAML"
            )
        name = request.query.get("name") or filename
        if len(name) > 127:
            raise Refused(400, "PipelineVersion.Name length cannot exceed 127")
        if any(
            name == v["name"] and pipeline_id == v["pipeline_id"] for v in self.versions.values()
        ):
            raise Refused(409, "Failed to create a pipeline version")
        version = {
            "pipeline_id": pipeline_id,
            "name": name,
            "display_name": request.query.get("display_name") or name,
            "description": request.query.get("description", ""),
            "pipeline_spec": pipeline_spec(text),
        }
        return stored(self.versions, "pipeline_version_id", version)

    def _create_run(self, body: Json) -> Json:
        conforms(body, "V2beta1Run")
        required(body, "display_name")
        self._check_work(body)
        return stored(self.runs, "run_id", {**body, "state": "PENDING"})

    def _create_recurring_run(self, body: Json) -> Json:
        conforms(body, "V2beta1RecurringRun")
        required(body, "display_name")
        self._check_work(body)
        if body.get("mode") not in ("ENABLE", "DISABLE"):
            raise Refused(400, "Invalid input error: mode must be ENABLE or DISABLE")
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise Refused(
                400, "The max concurrency of the recurring run is out of range. Support 1-10"
            )
        check_cron(body.get("trigger", {}).get("cron_schedule", {}).get("cron", ""))
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        space = self.experiments[body["experiment_id"]]["namespace"]
        kept = {**body, "status": status, "namespace": space}
        return stored(self.recurring_runs, "recurring_run_id", kept)

    def _check_work(self, body: Json) -> None:
        """The experiment, the version and the parameters of a run or recurring run."""
        experiment = self.experiments.get(required(body, "experiment_id"))
        if experiment is None:
            raise Refused(404, f"Experiment {body['experiment_id']} not found")
        self._allowed(experiment["namespace"])
        reference = body.get("pipeline_version_reference") or {}
        version = self.versions.get(reference.get("pipeline_version_id", ""))
        if version is None or version["pipeline_id"] != reference.get("pipeline_id"):
            raise Refused(404, "PipelineVersion not found")
        values = body.get("runtime_config", {}).get("parameters", {})
        check_parameters(version["pipeline_spec"], values)

    def _list_recurring_runs(self, request: Request) -> Json:
        experiment = request.query.get("experiment_id")
        if experiment is None:
            return self._list(self.recurring_runs, "RecurringRuns", request)
        if experiment not in self.experiments:
            raise Refused(404, f"Experiment {experiment} not found")
        self._allowed(self.experiments[experiment]["namespace"])
        mine = {k: r for k, r in self.recurring_runs.items() if r["experiment_id"] == experiment}
        return self._list(mine, "RecurringRuns", request, namespaced=False)

    def _list(
        self, items: dict[str, Json], kind: str, request: Request, namespaced: bool = True
    ) -> Json:
        unknown = set(request.query) - {
            "page_token", "page_size", "sort_by", "filter", "namespace", "experiment_id",
        }  # fmt: skip
        if unknown:
            raise Refused(400, f"unknown query parameters {unknown}")
        found = list(items.values())
        if namespaced:
            space = self._allowed(request.query.get("namespace", ""))
            found = [item for item in found if item.get("namespace", "") == space]
        found = filtered(found, request.query.get("filter", ""))
        start = int(request.query.get("page_token") or 0)
        stop = start + min(int(request.query.get("page_size") or 10), self.page_limit)
        page: Json = {list_key(kind): found[start:stop], "total_size": len(found)}
        page |= {"next_page_token": str(stop)} if stop < len(found) else {}
        conforms(page, f"V2beta1List{kind}Response")
        return page

    def _allowed(self, namespace: str) -> str:
        if not self.multi_user:
            return ""
        if not namespace:
            raise Refused(400, "Invalid input error: a namespace is required in multi-user mode")
        if namespace != self.namespace:
            raise Refused(403, f"User is not authorized in namespace {namespace}")
        return namespace


class Handler(BaseHTTPRequestHandler):
    """Reads a request, asks the KfpServer, writes what it says."""

    protocol_version = "HTTP/1.1"
    kfp: KfpServer

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {
            key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()
        }
        self.asked = Request(
            self.command, parts.path, query, self._body(), self.headers.get("Authorization")
        )
        self.kfp.requests.append(self.asked)
        fault = self.kfp.fault(self.command, parts.path)
        if fault:
            fault(self)
            return
        self.answer(*self.result())

    def result(self) -> tuple[int, bytes, str]:
        try:
            status, told = 200, self.kfp.respond(self.asked)
        except Refused as error:
            status, told = error.status, {"error": str(error), "code": 3, "message": str(error)}
            if "/upload" in self.asked.path:
                told = {"error_message": str(error), "error_details": str(error)}
        return status, json.dumps(told).encode(), "application/json"

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.asked.status = status
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "https://login.example.com/")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> Any:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/form-data"):
            return json.loads(raw) if raw else {}
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + raw)
        (part,) = [p for p in form.iter_parts() if p.get_param("name", header="Content-Disposition") == "uploadfile"]  # fmt: skip
        return part.get_filename(), part.get_payload(decode=True).decode()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextmanager
def kfp_server(**options: Any) -> Iterator[KfpServer]:
    """A server on a free port of the loopback, for the length of a test."""
    kfp = KfpServer(**options)
    handler = type("BoundHandler", (Handler,), {"kfp": kfp})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        kfp.url = f"http://127.0.0.1:{http.server_address[1]}{kfp.prefix}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield kfp
        finally:
            http.shutdown()
            thread.join()
