"""The deployment on Ray Serve: a replica is one :class:`serving.service.Service` behind the HTTP app."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import version as release
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve
from ray.serve import Application

from campaigns.errors import EnvironmentProblem
from campaigns.settings import Settings
from campaigns.spec import Campaign
from serving.app import create_app
from serving.decider import Model
from serving.events import EventStore
from serving.service import Online, Service
from serving.token import token

log = logging.getLogger(__name__)

NAME = "updraft"
LOGGING = {"log_level": "WARNING", "enable_access_log": False}
REPLICAS = 2
CPUS = 0.25

LoadModel = Callable[[str, str], Model]
RollBack = Callable[[str], str]


class Versions(BaseModel):
    """The deployment's ``user_config``: what is served, and a nonce that makes Serve look again."""

    campaigns: dict[str, dict[str, str]] = {}
    nonce: str = ""

    def served(self) -> dict[str, str]:
        """Campaign name to version."""
        return {name: entry["version"] for name, entry in self.campaigns.items()}


@serve.ingress()
class Replica:
    """One of the processes that answer. Serve builds the HTTP app when the service is there.

    Args:
        settings: Home, event store and registry; the home must be absolute.
        load_model: Default: from the registry.
        roll_back: Default: by the registry's alias, then on every replica.
    """

    def __init__(
        self,
        settings: Settings,
        load_model: LoadModel | None = None,
        roll_back: RollBack | None = None,
    ) -> None:
        _one_thread_a_replica()
        self.service = Service(
            EventStore(settings.event_store_url),
            load_model or registry_loader(settings),
            token=token(settings),
            online=lambda campaign: online_features(campaign, settings),
            roll_back=roll_back or registry_rollback(settings),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self.service)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load what is new, then swap it in; requests go on meanwhile."""
        versions = Versions.model_validate(user_config).served()
        await asyncio.to_thread(self.service.configure, versions)


def application(
    settings: Settings,
    versions: Mapping[str, str],
    *,
    nonce: str = "",
    replicas: int = REPLICAS,
    load_model: LoadModel | None = None,
    roll_back: RollBack | None = None,
) -> Application:
    """The application, ready to run. Where only the versions differ, models are swapped in place."""
    config = Versions(
        campaigns={name: {"version": version} for name, version in sorted(versions.items())},
        nonce=nonce,
    )
    deployment = serve.deployment(
        Replica,
        name=NAME,
        num_replicas=replicas,
        # Said, because the one of whoever deploys counts otherwise: a rollback, which a replica asks
        # for, would replace all replicas by others with the replica's.
        ray_actor_options={"num_cpus": CPUS, "runtime_env": {}},
        user_config=config.model_dump(),
        max_ongoing_requests=256,
        health_check_period_s=5,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=20,
        logging_config=LOGGING,
    )
    # Serve replaces all replicas at a new version of the code; without one it makes up a new one.
    deployment = deployment.options(version=_code_version(settings), _internal=True)
    settled = settings.model_copy(update={"home": settings.root})
    return deployment.bind(settled, load_model, roll_back)


def build(arguments: dict[str, str]) -> Application:
    """For ``serve run`` and RayService (``import_path: serving.deployment:build``).

    Args:
        arguments: ``{campaign: version}``; settings come from the environment of the pod.
    """
    return application(Settings(), arguments)


def registry_loader(settings: Settings) -> LoadModel:
    """Models from the registry."""

    def load(name: str, version: str) -> Model:
        from models.registry import Registry

        return Registry(settings).load(name, version)

    return load


def registry_rollback(settings: Settings) -> RollBack:
    """Move the registry's alias, then every replica."""

    def back(name: str) -> str:
        from models.registry import Registry
        from serving.deploy import deploy

        version = Registry(settings).rollback(name)
        deploy(settings, {name: version})
        return version

    return back


def online_features(campaign: Campaign, settings: Settings) -> Online | None:
    """The campaign's online store, opened and warm; None where it has none."""
    from feature_repo.store import FeatureRepository

    repository = FeatureRepository(campaign, settings)
    try:
        repository.online([""])
    except EnvironmentProblem as error:
        log.warning("%s: features come with the requests only (%s)", campaign.name, error)
        return None
    return repository.online


def _code_version(settings: Settings) -> str:
    """Changes with what only a new replica can take up: the release, and where its state lives."""
    places = [str(settings.root), settings.event_store_url, settings.mlflow_uri]
    if settings.token is not None:
        places.append(settings.token.get_secret_value())
    return hashlib.sha256("\0".join([release("updraft"), *places]).encode()).hexdigest()[:16]


def _one_thread_a_replica() -> None:
    """Nets here are small and requests many: threads inside an operation only get in the way."""
    import torch

    torch.set_num_threads(1)
