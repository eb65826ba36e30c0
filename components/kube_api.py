"""The Kubernetes API: how it is reached and called, and what its refusals mean."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError, LocationParseError, SSLError

from campaigns.errors import EnvironmentProblem, RemoteError

TIMEOUT_S = (5, 30)  # to connect, to be answered
PATIENCE_S = (
    600.0  # how long faults that may pass are waited out: an API server's upgrade takes minutes
)
FIRST_S, MOST_S = 0.5, 30.0  # between attempts, doubled each time

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # in every pod

_MAY_PASS = {429, 500, 502, 503, 504}


class Missing(RemoteError):
    """What was asked for isn't there."""


class Exists(RemoteError):
    """Something of that name is there already."""


class Conflict(RemoteError):
    """It changed since it was read, or is another than was meant."""


class Gone(RemoteError):
    """That version of the list is no longer kept: list again."""


class Backoff:
    """Waits between attempts: doubled each time, or as long as the server asks.

    Args:
        patience: Seconds without a success after which to give up.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.reset()

    def reset(self) -> None:
        """It went well: begin again from the shortest wait."""
        self._since, self._next = None, FIRST_S

    def wait(self, asked: float | None = None) -> bool:
        """Wait, unless patience is at its end, which False says."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._patience:
            return False
        spread = self._next * random.uniform(0.5, 1.0)  # many steps must not come back together
        self._next = min(2 * self._next, MOST_S)
        left = self._since + self._patience - now
        time.sleep(min(max(spread, asked or 0.0), max(left, 0.0)))
        return True

    _since: float | None
    _next: float


class KubeApi:
    """A Kubernetes API.

    Attributes:
        host: Its URL.
        namespace: Where we are, or the context's.
        client, objects, core: The generated clients.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        self.host: str = client.configuration.host
        self.namespace = namespace
        self.client = client
        self.objects = kubernetes.client.CustomObjectsApi(client)
        self.core = kubernetes.client.CoreV1Api(client)

    def call(
        self,
        doing: str,
        method: Callable[..., Any],
        *args: Any,
        patience: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call the API, again after faults that may pass. Only for what does no harm when done twice.

        Args:
            doing: What for, in words: "create RayJob a".
            method: A method of a generated client, and its arguments.
            patience: Seconds of faults to wait out; None: ``PATIENCE_S``.

        Raises:
            RemoteError: It refused (Missing, Exists, Conflict, Gone), or faults didn't pass.
            EnvironmentProblem: The namespace's quota is used up.
        """
        backoff = Backoff(PATIENCE_S if patience is None else patience)
        while True:
            try:
                return method(*args, **{"_request_timeout": TIMEOUT_S, **kwargs})
            except (ApiException, HTTPError, OSError) as error:
                if not may_pass(error) or not backoff.wait(retry_after(error)):
                    raise self.told(error, doing) from error

    def told(self, fault: Exception, doing: str) -> Exception:
        """A fault in one sentence."""
        where = f"Kubernetes at {self.host}: can't {doing}"
        if not isinstance(fault, ApiException) or not fault.status:
            return RemoteError(f"{where}: no answer ({_reason(fault)})")
        reason, message = _status(fault)
        if fault.status == 403 and "exceeded quota" in message:
            return EnvironmentProblem(
                f"{where}: the namespace's quota is used up ({message}); "
                "wait until others end, ask for less, or have the quota raised"
            )
        if fault.status in (401, 403):
            return RemoteError(
                f"{where}: not allowed ({message}); bind the role in infra/base/access.yaml "
                "to the account that asks"
            )
        kind = {404: Missing, 409: Exists if reason == "AlreadyExists" else Conflict, 410: Gone}
        return kind.get(fault.status, RemoteError)(f"{where}: HTTP {fault.status}: {message}")


def may_pass(fault: Exception) -> bool:
    """Whether asking again later may do."""
    if isinstance(fault, ApiException):
        return fault.status in _MAY_PASS
    return not isinstance(fault, LocationParseError | SSLError)


def retry_after(fault: Exception) -> float | None:
    """Seconds that the server asks to wait."""
    asked = (getattr(fault, "headers", None) or {}).get("Retry-After", "")
    return min(float(asked), 60.0) if asked.isdigit() else None


@contextmanager
def kube_api() -> Iterator[KubeApi]:
    """The API of the cluster that this process runs in, else of the current kube context.

    Raises:
        EnvironmentProblem: There is neither.
    """
    configuration = kubernetes.client.Configuration()
    try:
        kubernetes.config.load_incluster_config(client_configuration=configuration)
        namespace = NAMESPACE_FILE.read_text().strip()
    except (ConfigException, OSError):
        try:
            kubernetes.config.load_kube_config(client_configuration=configuration)
            _, context = kubernetes.config.list_kube_config_contexts()
        except (ConfigException, OSError) as error:
            told = " ".join(str(error).split())
            raise EnvironmentProblem(
                f"no Kubernetes to talk to ({told}); run inside a cluster, or set KUBECONFIG"
            ) from error
        namespace = context["context"].get("namespace", "default")
    configuration.retries = False  # KubeApi.call knows what may be asked twice
    with kubernetes.client.ApiClient(configuration) as client:
        yield KubeApi(client, namespace)


def _status(fault: ApiException) -> tuple[str, str]:
    """The reason and the message of the Status that the server answered with."""
    try:
        body = fault.body.decode() if isinstance(fault.body, bytes) else fault.body
        told = json.loads(body)
        reason, message = told.get("reason", ""), told.get("message", "")
    except (ValueError, TypeError, AttributeError):
        reason, message = "", str(fault.body or "")  # a proxy's page
    line = " ".join(str(message or fault.reason or "").split())
    return str(reason), line if len(line) <= 300 else line[:297] + "..."


def _reason(fault: Exception) -> str:
    return str(fault).rsplit(": ", 1)[-1].strip() or type(fault).__name__
