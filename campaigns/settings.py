"""The one reader of the environment (``UPDRAFT_*``)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from campaigns.errors import EnvironmentProblem

# What keeps the libraries quiet, at home, and from waiting; set in every process that we start.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FEAST_USAGE": "False",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # a worker waits for a check after every epoch
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # 3-6x the requests of the default proxy
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "GIT_PYTHON_REFRESH": "quiet",
    "OMP_WAIT_POLICY": "PASSIVE",  # several processes share few cores: waiting threads must not spin
}


class Settings(BaseSettings):
    """Where things live and what a run may use. Every field is ``UPDRAFT_<NAME>`` in the environment."""

    model_config = SettingsConfigDict(env_prefix="UPDRAFT_", extra="ignore")

    home: Path = Field(Path(".updraft"), description="The folder that holds all state.")
    cpus: int = Field(
        default_factory=lambda: max(6, os.cpu_count() or 2),
        ge=4,
        description="Logical CPUs of the local Ray (Serve replicas and trainers share them).",
    )
    run: str | None = Field(None, description="Name of the run that this process belongs to.")
    ray_address: str | None = Field(None, description="Attach to this Ray instead of a local one.")
    gpu: bool = Field(False, description="Train on GPUs (one a worker).")
    workers: int = Field(1, ge=1, description="Training workers.")
    token: SecretStr | None = Field(
        None, description="Bearer token of state-changing endpoints; made at first use when unset."
    )
    kfp_endpoint: str | None = Field(None, description="URL of a Kubeflow Pipelines API.")
    kfp_token: SecretStr | None = Field(None, description="Bearer token for that API.")
    kfp_namespace: str | None = Field(None, description="Its namespace, in multi-user mode.")
    image: str = Field(
        "updraft/step:0.1.0", description="Container image of the compiled pipelines' steps."
    )
    platform: Path | None = Field(
        None, description="File (YAML) of what the cluster gives the compiled pipelines' steps."
    )
    rayjob: str | None = Field(
        None, description="RayJob (a manifest, or its file) that search and training become."
    )
    exchange: str | None = Field(
        None, description="Folder or URI where such a step and its RayJob meet."
    )
    rayservice: str | None = Field(
        None, description="RayService (name, or namespace/name) that a deployed version goes to."
    )
    kfp_run: str | None = Field(None, description="Id of the Kubeflow run that a step belongs to.")
    pod: str | None = Field(None, description="The pod that a step runs in.")
    event_store: str | None = Field(None, description="SQLAlchemy URL of the event store.")
    feast_database: str | None = Field(
        None, description="PostgreSQL URL of Feast's registry and feature log."
    )
    feast_online: str | None = Field(None, description="Redis URL of Feast's online store.")
    tracking_uri: str | None = Field(None, description="MLflow tracking and registry URI.")
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    @property
    def root(self) -> Path:
        """The home, absolute."""
        return self.home.expanduser().absolute()

    def folder(self, *parts: str) -> Path:
        """A folder under the home, made if it is missing.

        Raises:
            EnvironmentProblem: The home can't be written.
        """
        path = self.root.joinpath(*parts)
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as probe:
                probe.write(bytes(4096))  # a full disk still makes empty files
        except OSError as error:
            raise EnvironmentProblem(
                f"{path}: can't be written ({error.strerror}); "
                "free the disk, or point UPDRAFT_HOME at a folder that you may write"
            ) from error
        return path

    @property
    def event_store_url(self) -> str:
        return self.event_store or f"sqlite:///{self.root / 'events' / 'events.db'}"

    @property
    def mlflow_uri(self) -> str:
        return self.tracking_uri or f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a process that must see the same."""
        variables = dict(QUIET)
        for name, value in self:
            if value is None:
                continue
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            variables[f"UPDRAFT_{name.upper()}"] = text
        variables["UPDRAFT_HOME"] = str(self.root)
        variables["RAY_AUTH_MODE"] = "token"
        variables["RAY_AUTH_TOKEN_PATH"] = str(self.root / "secrets" / "ray_token")
        return variables
