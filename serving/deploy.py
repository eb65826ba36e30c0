"""Put campaigns behind HTTP on a running Ray, swap their models in place, and take them down."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx

from campaigns.errors import EnvironmentProblem, RemoteError
from campaigns.settings import Settings

if TYPE_CHECKING:
    from serving.deployment import LoadModel, RollBack

HOST = "127.0.0.1"
PATIENCE_S = 180.0
AGREEING = 6  # answers in a row that must show the new versions: replicas take turns


def deploy(
    settings: Settings,
    versions: Mapping[str, str],
    *,
    port: int | None = None,
    load_model: LoadModel | None = None,
    roll_back: RollBack | None = None,
) -> str:
    """Serve these versions; campaigns that are served already and not named here stay.

    Starts Serve on the loopback if it doesn't run. A running service swaps its models in place: no
    request fails. This process must be attached to the Ray.

    Args:
        settings: Home, event store and registry of the replicas.
        versions: Campaign name to version in the registry.
        port: Default: the running service's, else a free one.
        load_model: Where models come from; default: the registry.
        roll_back: What the rollback route does; default: the registry's.

    Returns:
        The URL.

    Raises:
        EnvironmentProblem: The port is taken, or Serve doesn't start.
        UpdraftError: A version can't be loaded; nothing was touched.
        RemoteError: A replica can't serve a version; the one before still is.
    """
    from serving.deployment import registry_loader

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    running = _details()
    before = served() if running else {}
    for name, version in versions.items():
        if before.get(name) != version:  # a wrong one is told here, before anything is touched
            (load_model or registry_loader(settings))(name, version)
    if running is None:
        _start(port)
    url = _url()
    if running is not None and port is not None and not url.endswith(f":{port}"):
        raise EnvironmentProblem(
            f"port {port}: Serve runs at {url} already; leave the port out, or stop it first"
        )
    try:
        _run(settings, {**before, **versions}, load_model, roll_back)
        await_versions(url, versions)
    except RemoteError:
        if before:  # so that a replica that starts later finds versions that it can load
            _run(settings, before, load_model, roll_back)
        raise
    return url


def _run(
    settings: Settings,
    versions: Mapping[str, str],
    load_model: LoadModel | None,
    roll_back: RollBack | None,
) -> None:
    from ray import serve

    from serving.deployment import NAME, application

    nonce = str(time.time_ns())
    app = application(settings, versions, nonce=nonce, load_model=load_model, roll_back=roll_back)
    try:
        serve.run(app, name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise RemoteError(f"{NAME}: {_reason(error)}") from error


def undeploy() -> None:
    """Stop serving, if something is served."""
    from ray import serve

    if _details() is not None:
        serve.shutdown()


def served() -> dict[str, str]:
    """The version of each campaign that is served on this Ray now; empty where none is."""
    from serving.deployment import NAME, Versions

    applications = (_details() or {}).get("applications", {})
    if NAME not in applications:
        return {}
    deployment = applications[NAME]["deployments"].get(NAME)
    if deployment is None:
        return {}
    return Versions.model_validate(deployment["deployment_config"]["user_config"]).served()


def _details() -> dict[str, Any] | None:
    """What runs on Serve, as its REST API tells it; None where Serve doesn't run."""
    from ray.serve.context import _get_global_client
    from ray.serve.exceptions import RayServeException

    try:
        return dict(_get_global_client().get_serve_details())
    except RayServeException:
        return None


def _url() -> str:
    options = (_details() or {})["http_options"]
    host = HOST if options["host"] in ("0.0.0.0", "::") else options["host"]
    return f"http://{host}:{options['port']}"


def _port(port: int | None) -> int:
    """The port asked for, or a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError as error:
            raise EnvironmentProblem(
                f"port {port} is in use ({error.strerror}); leave the port out to have a free one found"
            ) from error
        return int(probe.getsockname()[1])


def _start(port: int | None) -> None:
    """Start Serve on the loopback."""
    from ray import serve
    from ray.exceptions import RayError

    from serving.deployment import LOGGING

    http = {"host": HOST, "port": _port(port)}
    try:
        serve.start(
            http_options=http,
            proxy_location="HeadOnly",
            logging_config=LOGGING,
            controller_options={"runtime_env": {"env_vars": _proxy_variables()}},
        )
    except (RayError, TimeoutError) as error:
        raise EnvironmentProblem(
            f"Ray Serve doesn't start at {HOST}:{http['port']} ({_reason(error)}); "
            "look whether the machine is overloaded, and try again"
        ) from error


def _proxy_variables() -> dict[str, str]:
    """How Serve's proxy behaves; its HAProxy where the Ray's environment has RAY_SERVE_ENABLE_HA_PROXY=1.

    HAProxy's own ports are fixed numbers otherwise, so that a machine could hold one Ray only; it would
    take half a minute to let go of a replica that ends; and a proxy that takes 5 s to start is killed.
    """
    return {
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_port(None)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_port(None)),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }


def await_versions(url: str, versions: Mapping[str, str]) -> None:
    """Wait until every replica serves the versions.

    Raises:
        RemoteError: A replica says why it can't, or it takes too long.
    """
    deadline, agreeing, last = time.monotonic() + PATIENCE_S, 0, "no answer"
    while agreeing < AGREEING:
        if time.monotonic() > deadline:
            raise RemoteError(
                f"{url}: doesn't serve {dict(versions)} after {PATIENCE_S:.0f} s ({last})"
            )
        try:
            seen = {name: _ask(f"{url}/v1/campaigns/{name}") for name in versions}
        except (httpx.HTTPError, ValueError) as error:
            agreeing, last = 0, str(error)
            time.sleep(0.2)
            continue
        faults = [
            f"{name}: {answer['fault']}" for name, answer in seen.items() if answer.get("fault")
        ]
        if faults:
            raise RemoteError("; ".join(faults))
        if all(seen[name].get("model_version") == version for name, version in versions.items()):
            agreeing += 1
        else:
            agreeing, last = 0, f"it answers {seen}"
            time.sleep(0.2)


def _ask(url: str) -> dict[str, Any]:
    """The answer, over a connection of its own, so that the replicas take turns."""
    return dict(httpx.get(url, timeout=10, trust_env=False).json())


def _reason(error: Exception) -> str:
    """The last line that says something of a traceback that Serve passed on."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
