"""Have a RayService (KubeRay) serve a version: named in its configuration, then awaited in its answers."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import yaml

from campaigns.errors import RemoteError
from components.kube_api import Conflict, KubeApi, Missing
from components.rayjob import NAMESPACE
from components.rayjob_watch import GROUP, VERSION, states

PLURAL = "rayservices"
PORT = 8000
PATIENCE_S = 600.0  # for KubeRay to take the change; replicas load models meanwhile
ATTEMPTS = 10  # others write too: the operator, another campaign's pipeline

Json = dict[str, Any]
BAD = {"DEPLOY_FAILED", "UNHEALTHY"}


def serve_version(
    api: KubeApi,
    service: str,
    campaign: str,
    version: str,
    *,
    say: Callable[[str], None],
    url: str | None = None,
) -> str:
    """Serve this version of a campaign; the others that are served stay.

    Serve takes a change of ``user_config`` alone into the running replicas, so no request fails.

    Args:
        service: Its name, or namespace/name.
        say: Told how it stands.
        url: Where it answers; default: its own service in the cluster.

    Returns:
        Where it answers.

    Raises:
        RemoteError: There is no such RayService, or it can't serve the version; the one before is.
    """
    from serving.deploy import await_versions

    namespace, _, name = service.rpartition("/")
    namespace = namespace or NAMESPACE
    before, after = _change(api, namespace, name, campaign, version)
    url = url or f"http://{name}-serve-svc.{namespace}:{PORT}"
    try:
        _settle(api, namespace, name, after, say)
        await_versions(url, {campaign: version})
    except RemoteError:
        if before != version:
            say(f"RayService {namespace}/{name} gets its version before back")
            _change(api, namespace, name, campaign, before)
        raise
    return url


def _change(
    api: KubeApi, namespace: str, name: str, campaign: str, version: str | None
) -> tuple[str | None, int]:
    """Name a version, or none; the version before, and the generation that has the change."""
    title = f"RayService {namespace}/{name}"
    for _ in range(ATTEMPTS):
        try:
            found = api.call(
                f"read {title}", api.objects.get_namespaced_custom_object,
                GROUP, VERSION, namespace, PLURAL, name,
            )  # fmt: skip
        except Missing as error:
            raise RemoteError(f"{error}; apply infra/base, or name another (rayservice)") from error
        changed = copy.deepcopy(found)
        before = _named(changed, campaign, version, title)
        if before == version:
            return before, int(found["metadata"].get("generation", 0))
        try:
            made = api.call(
                f"change {title}", api.objects.replace_namespaced_custom_object,
                GROUP, VERSION, namespace, PLURAL, name, changed,
            )  # fmt: skip
        except Conflict:
            continue  # somebody wrote since it was read: read again
        return before, int(made["metadata"].get("generation", 0))
    raise RemoteError(f"{title}: others change it all the time; try again")


def _named(service: Json, campaign: str, version: str | None, title: str) -> str | None:
    """Put the version into the configuration; the one before."""
    from serving.deployment import NAME

    config = yaml.safe_load(service["spec"].get("serveConfigV2", "")) or {}
    for application in config.get("applications", []):
        for deployment in application.get("deployments", []):
            if application.get("name") == deployment.get("name") == NAME:
                served = deployment.setdefault("user_config", {}).setdefault("campaigns", {})
                before = served.pop(campaign, {}).get("version")
                if version is not None:
                    served[campaign] = {"version": version}
                service["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False)
                return before
    raise RemoteError(f"{title}: its serveConfigV2 has no application and deployment {NAME!r}")


def _settle(
    api: KubeApi, namespace: str, name: str, generation: int, say: Callable[[str], None]
) -> None:
    """Wait until KubeRay has taken the change and the application is well."""
    from serving.deployment import NAME

    title, end, bad = f"RayService {namespace}/{name}", time.monotonic() + PATIENCE_S, 0
    seen = "nothing"
    for state in states(api, namespace, name, PLURAL):
        if state is None:
            raise RemoteError(f"{title}: somebody removed it")
        status = state.get("status", {})
        active = status.get("activeServiceStatus", {}).get("applicationStatuses", {})
        application = active.get(NAME, {})
        if int(status.get("observedGeneration", 0)) >= generation:
            seen = str(application.get("status", ""))
            if seen == "RUNNING":
                return
            bad = bad + 1 if seen in BAD else 0
            if bad > 1:  # once may be the state before the change
                message = " ".join(str(application.get("message", "")).split())
                raise RemoteError(f"{title}: its application is {seen}: {message[-300:]}")
        if time.monotonic() > end:
            raise RemoteError(f"{title}: isn't well after {PATIENCE_S:.0f} s (seen: {seen})")
        say(f"{title}: {seen or 'not taken yet'}")
