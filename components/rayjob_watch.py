"""A RayJob from moment to moment: list, watch, watch on, list again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from kubernetes.client.exceptions import ApiException
from kubernetes.watch.watch import iter_resp_lines
from urllib3.exceptions import HTTPError

from components import kube_api
from components.kube_api import Backoff, Gone, KubeApi, may_pass, retry_after

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
KINDS = {PLURAL: "RayJob", "rayservices": "RayService"}
WATCH_S = 60  # the server ends a watch then; a dead connection is noticed soon after
SILENCE_S = 15

Json = dict[str, Any]


def states(api: KubeApi, namespace: str, name: str, plural: str = PLURAL) -> Iterator[Json | None]:
    """The job (or another of KubeRay's kinds) now and after each change; None while it isn't there.

    The same state comes again after every ``WATCH_S``, so that whoever reads can look elsewhere.

    Raises:
        RemoteError: The API refuses, or didn't answer for too long.
    """
    doing = f"watch {KINDS[plural]} {namespace}/{name}"
    backoff = Backoff(kube_api.PATIENCE_S)
    version, last = "", None
    while True:
        try:
            if not version:
                last, version = _listed(api, namespace, name, plural)
                yield last
            for kind, seen in _events(api, namespace, name, plural, version):
                backoff.reset()
                version = seen["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    last = None if kind == "DELETED" else seen
                    yield last
            backoff.reset()
            yield last
        except Gone:  # compacted: what happened since is told by a new list
            version = ""
            if not backoff.wait():
                raise
        except (ApiException, HTTPError, OSError, ValueError) as error:
            if isinstance(error, ApiException) and error.status == 410:
                version = ""
            elif not may_pass(error):
                raise api.told(error, doing) from error
            if not backoff.wait(retry_after(error)):
                raise api.told(error, doing) from error


def _listed(api: KubeApi, namespace: str, name: str, plural: str) -> tuple[Json | None, str]:
    """The job, and the list's version: the job's own may be older than what the server keeps."""
    found = api.call(
        f"list {KINDS[plural]} {namespace}/{name}",
        api.objects.list_namespaced_custom_object,
        GROUP, VERSION, namespace, plural,
        field_selector=f"metadata.name={name}",
    )  # fmt: skip
    items = found["items"]
    return items[0] if items else None, found["metadata"]["resourceVersion"]


def _events(
    api: KubeApi, namespace: str, name: str, plural: str, version: str
) -> Iterator[tuple[str, Json]]:
    """One watch, until the server ends it."""
    answer = api.objects.list_namespaced_custom_object(
        GROUP, VERSION, namespace, plural,
        field_selector=f"metadata.name={name}",
        resource_version=version,
        watch=True,
        allow_watch_bookmarks=True,
        timeout_seconds=WATCH_S,
        _preload_content=False,
        _request_timeout=(kube_api.TIMEOUT_S[0], WATCH_S + SILENCE_S),
    )  # fmt: skip
    try:
        for line in iter_resp_lines(answer):
            event = json.loads(line)
            seen = event["object"]
            if event["type"] == "ERROR":
                if seen.get("code") == 410:
                    raise Gone(f"Kubernetes at {api.host}: {seen.get('message')}")
                raise ApiException(status=seen.get("code", 500), reason=seen.get("message"))
            yield event["type"], seen
    finally:
        answer.close()
        answer.release_conn()
