"""A Kubeflow Pipelines API: where it is, how it is called, and what its refusals mean.

The generated client is used rather than ``kfp.Client``, which prints links, reads its own environment
variables and files, has no timeouts and waits 25 seconds for a server that isn't there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
from kfp_server_api.exceptions import ApiException
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProtocolError,
)

from campaigns.errors import CampaignError, RemoteError
from campaigns.settings import Settings

TIMEOUT_S = (5, 60)  # to connect, to be answered
BACKOFF_S = (0.5, 1.0, 2.0)  # before the second, third and fourth attempt
PAGE = 100

_NOT_SENT = (NewConnectionError, ConnectTimeoutError, LocationParseError)


class Exists(RemoteError):
    """Something of that name is there already."""


class Missing(RemoteError):
    """What was asked for isn't there."""


class KfpApi:
    """The v2beta1 API at an endpoint.

    Attributes:
        endpoint: Its URL, without ``/apis/v2beta1``.
        namespace: The profile's namespace where Kubeflow has several users, else "".
    """

    def __init__(self, client: kfp_server_api.ApiClient, settings: Settings) -> None:
        self.endpoint: str = client.configuration.host
        self.namespace = settings.kfp_namespace or ""
        self.experiments = kfp_server_api.ExperimentServiceApi(client)
        self.pipelines = kfp_server_api.PipelineServiceApi(client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(client)
        self.runs = kfp_server_api.RunServiceApi(client)
        self.recurring_runs = kfp_server_api.RecurringRunServiceApi(client)
        self.health = kfp_server_api.HealthzServiceApi(client)

    def check(self) -> None:
        """Make sure that a KFP API answers, and that its namespace is known.

        Raises:
            RemoteError: It doesn't.
            CampaignError: It serves several users, and no namespace is set.
        """
        try:
            health = self.call(
                "ask for its health", self.health.healthz_service_get_healthz, safe=True
            )
        except Missing as error:
            raise RemoteError(
                f"{self.endpoint}: has no KFP v2 API; give the URL that stands before /apis/v2beta1"
            ) from error
        answer = self.health.api_client.last_response
        if "json" not in (answer.getheader("content-type") or ""):
            raise RemoteError(
                f"{self.endpoint}: answers with a web page, no KFP v2 API; give the URL that stands "
                "before /apis/v2beta1, and a token in UPDRAFT_KFP_TOKEN if it asks for a login"
            )
        if health.multi_user and not self.namespace:
            raise CampaignError(
                f"{self.endpoint}: serves several users; "
                "name your profile's namespace in UPDRAFT_KFP_NAMESPACE"
            )

    def call(
        self,
        doing: str,
        method: Callable[..., Any],
        *args: Any,
        safe: bool = False,
        hint: str = "",
        **kwargs: Any,
    ) -> Any:
        """Call the API; where it is safe to ask twice, again after a fault that may pass.

        Args:
            doing: What for, in words: "create the run".
            method: A method of the generated client, and its arguments.
            safe: Asking twice does no more than asking once.
            hint: What to do after a fault that leaves open whether it was done.

        Raises:
            RemoteError: It refused (Exists, Missing), failed or can't be reached.
        """
        waits = list(BACKOFF_S) if safe else []
        while True:
            try:
                return method(*args, _request_timeout=TIMEOUT_S, **kwargs)
            except (ApiException, HTTPError, AttributeError, UnicodeDecodeError) as error:
                fault = _fault(error)
                if not waits or not _may_pass(fault):
                    raise self._told(fault, doing, hint) from error
                time.sleep(waits.pop(0))

    def every(self, doing: str, method: Callable[..., Any], field: str, **kwargs: Any) -> list[Any]:
        """All items of a list that comes in pages."""
        items: list[Any] = []
        token = ""
        while True:
            page = self.call(doing, method, safe=True, page_size=PAGE, page_token=token, **kwargs)
            items += getattr(page, field) or []
            token = page.next_page_token or ""
            if not token:
                return items

    def link(self, page: str) -> str:
        """A page of the KFP UI."""
        return f"{self.endpoint}/#/{page}"

    def _told(self, fault: Exception, doing: str, hint: str) -> RemoteError:
        """The fault in one sentence."""
        where = f"{self.endpoint}: can't {doing}"
        if isinstance(fault, _NOT_SENT):
            return RemoteError(
                f"{self.endpoint}: can't be reached ({_reason(fault)}); "
                "is UPDRAFT_KFP_ENDPOINT (--endpoint) right, and is it up?"
            )
        if not isinstance(fault, ApiException):
            return RemoteError(
                f"{where}: no answer ({_reason(fault)}); {hint or 'try again later'}"
            )
        told = f"HTTP {fault.status}: {_detail(fault)}"
        if fault.status == 0:
            return RemoteError(f"{where}: no secure connection ({_detail(fault)})")
        if fault.status in (401, 403):
            return RemoteError(
                f"{where}: refused ({told}); UPDRAFT_KFP_TOKEN must hold a token that may, "
                "and UPDRAFT_KFP_NAMESPACE a namespace where it may"
            )
        if 300 <= fault.status < 400:
            return RemoteError(
                f"{where}: sent to {fault.headers.get('location', 'another page')} (HTTP {fault.status}), "
                "a login as it seems; set a token in UPDRAFT_KFP_TOKEN"
            )
        if fault.status == 404:
            return Missing(f"{where}: not found ({told})")
        if fault.status == 409:
            return Exists(f"{where}: there is one already ({told})")
        if fault.status >= 500:
            return RemoteError(f"{where}: it failed ({told}); {hint or 'try again later'}")
        return RemoteError(f"{where}: refused ({told})")


@contextmanager
def kfp_api(settings: Settings) -> Iterator[KfpApi]:
    """A checked connection to the endpoint in the settings.

    Raises:
        CampaignError: There is none in them, it is no URL, or the namespace is wanting.
        RemoteError: No KFP API answers there.
    """
    configuration = kfp_server_api.Configuration(host=_endpoint(settings))
    configuration.retries = False  # KfpApi.call knows what may be asked twice
    if settings.kfp_token is not None:
        configuration.api_key["authorization"] = settings.kfp_token.get_secret_value()
        configuration.api_key_prefix["authorization"] = "Bearer"
    with kfp_server_api.ApiClient(configuration) as client:
        api = KfpApi(client, settings)
        api.check()
        yield api


def _endpoint(settings: Settings) -> str:
    endpoint = (settings.kfp_endpoint or "").partition("#")[0].strip().rstrip("/")
    if not endpoint:
        raise CampaignError(
            "no Kubeflow Pipelines endpoint; set UPDRAFT_KFP_ENDPOINT, or give --endpoint URL"
        )
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CampaignError(
            f"endpoint {endpoint!r}: is no URL; write one such as "
            "https://kubeflow.example.com/pipeline (UPDRAFT_KFP_ENDPOINT or --endpoint)"
        )
    return endpoint.removesuffix("/apis/v2beta1")


def _fault(error: Exception) -> Exception:
    """The fault itself: the generated client stumbles over refusals without a readable body."""
    if isinstance(error, ApiException | HTTPError):
        return error
    if isinstance(error.__context__, ApiException):
        return error.__context__
    raise error


def _may_pass(fault: Exception) -> bool:
    if isinstance(fault, ApiException):
        return fault.status in (429, 500, 502, 503, 504)
    return isinstance(fault, ProtocolError)  # the connection was cut


def _reason(fault: Exception) -> str:
    return str(fault).rsplit(": ", 1)[-1].strip() or type(fault).__name__


def _detail(fault: ApiException) -> str:
    """What the server said, in one line of its own words."""
    body = fault.body if isinstance(fault.body, str) else ""
    try:
        told = json.loads(body)
        text = told.get("message") or told.get("error_message") or told.get("error") or ""
    except (ValueError, AttributeError):
        text = ""  # a proxy's page
    text = str(text) or str(fault.reason or "")
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."
