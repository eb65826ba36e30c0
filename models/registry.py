"""The registry: every trained model of a campaign as a version in MLflow, and which one decides.

Aliases say who is who: ``champion`` decides, ``previous`` decided before, ``challenger`` came last.
The model's folder travels as it is, as the data of a pyfunc (:mod:`models.pyfunc`). Several
processes may use one registry; a campaign's versions are made and moved by one run at a time.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from campaigns.errors import CampaignError, RemoteError, choices
from campaigns.settings import QUIET, Settings
from models import pyfunc
from models.uplift_model import MODEL, UpliftModel

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"


class Registry:
    """The versions of every campaign's model.

    Args:
        settings: Gives the tracking URI: SQLite and files under the home unless it says otherwise.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def register(
        self,
        model: UpliftModel,
        folder: Path,
        metrics: Mapping[str, float],
        reports: Mapping[str, Path] | Sequence[Path] = (),
        alias: str = CHALLENGER,
    ) -> str:
        """Log a model as a new version, and give it an alias.

        Args:
            model: What ``folder`` holds.
            folder: Where it was saved.
            metrics: Estimates by name; characters that MLflow refuses are replaced.
            reports: Files to keep with the run, under their own names or those of a mapping.
            alias: Of the new version, taken from whichever had it.

        Returns:
            The version.
        """
        campaign = model.campaign
        name = _registered(campaign.name)
        files = reports if isinstance(reports, Mapping) else {path.name: path for path in reports}
        with self._mlflow() as mlflow:
            experiment = self._experiment(campaign.name)
            label = self.settings.run or model.name
            with mlflow.start_run(experiment_id=experiment, run_name=label) as run:
                mlflow.log_params({key: str(value)[:6000] for key, value in model.config.items()})
                mlflow.log_metrics({_metric(key): float(value) for key, value in metrics.items()})
                _log_files(mlflow, files)
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    loader_module=pyfunc.__name__,
                    data_path=str(folder),
                    signature=pyfunc.signature(campaign),
                    pip_requirements=pyfunc.requirements(),
                )
                mlflow.set_tags(_tags(model))
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name, description=campaign.description)
            made = self._client.create_model_version(
                name, logged.model_uri, run.info.run_id, tags=_tags(model), model_id=logged.model_id
            )
            self._client.set_registered_model_alias(name, alias, made.version)
        return str(made.version)

    def fetch(self, campaign_name: str, alias_or_version: str = CHAMPION) -> Path:
        """The folder of a registered model on this machine, downloaded if it isn't here.

        Raises:
            CampaignError: There is no such version or alias; lists those there are.
        """
        found = self._resolve(campaign_name, alias_or_version)
        with self._mlflow() as mlflow:
            uri = f"models:/{_registered(campaign_name)}/{found}"
            local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        return next(local.glob(f"data/*/{MODEL}")).parent

    def load(self, campaign_name: str, alias_or_version: str = CHAMPION) -> UpliftModel:
        """A registered model; its ``meta["version"]`` says which. Errors as :meth:`fetch`."""
        found = self._resolve(campaign_name, alias_or_version)
        model = UpliftModel.load(self.fetch(campaign_name, found))
        model.meta["version"] = found
        return model

    def promote(self, campaign_name: str, version: str) -> None:
        """Make a version champion; the champion becomes ``previous``.

        Raises:
            CampaignError: There is no such version.
        """
        name, made = _registered(campaign_name), self._resolve(campaign_name, version)
        aliases = self._aliases(campaign_name)
        champion = aliases.get(CHAMPION)
        if champion == made:
            return
        with self._mlflow():
            if champion is not None:
                self._client.set_registered_model_alias(name, PREVIOUS, champion)
            self._client.set_registered_model_alias(name, CHAMPION, made)
            if aliases.get(CHALLENGER) == made:
                self._client.delete_registered_model_alias(name, CHALLENGER)

    def rollback(self, campaign_name: str) -> str:
        """Swap champion and previous; a second rollback undoes the first.

        Returns:
            The version that is champion now.

        Raises:
            CampaignError: There is no previous champion.
        """
        aliases = self._aliases(campaign_name)
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous in (None, champion):
            only = f"only version {champion} has decided" if champion else "it has no champion"
            raise CampaignError(
                f"{campaign_name}: there is nothing to roll back to, {only}; "
                "a version becomes previous when the next one is promoted"
            )
        name = _registered(campaign_name)
        with self._mlflow():
            # What decides moves first: stopped in between, the rollback has happened.
            self._client.set_registered_model_alias(name, CHAMPION, previous)
            self._client.set_registered_model_alias(name, PREVIOUS, champion)
        return str(previous)

    def version_of(self, campaign_name: str, alias: str) -> str | None:
        """The version that has an alias, or None."""
        return self._aliases(campaign_name).get(alias)

    def describe(self, campaign_name: str) -> list[dict[str, Any]]:
        """Every version, newest first: version, aliases, created_at, run_id, metrics, and its tags."""
        aliases = self._aliases(campaign_name)
        described = []
        for found in self._versions(campaign_name):
            made, born = str(found.version), found.creation_timestamp
            with self._mlflow():
                run = self._client.get_run(found.run_id)
            described.append(
                {
                    **found.tags,
                    "version": made,
                    "aliases": [alias for alias, holder in aliases.items() if holder == made],
                    "created_at": pd.Timestamp(born, unit="ms", tz="UTC").isoformat(),
                    "run_id": found.run_id,
                    "metrics": dict(run.data.metrics),
                }
            )
        return described

    def _resolve(self, campaign_name: str, alias_or_version: str) -> str:
        wanted, aliases = str(alias_or_version), self._aliases(campaign_name)
        if wanted in aliases:
            return aliases[wanted]
        known = [str(found.version) for found in self._versions(campaign_name)]
        if wanted in known:
            return wanted
        there = f"give {choices([*aliases, *known])}" if known else "it has no model yet: train one"
        raise CampaignError(f"{campaign_name}: there is no model version '{wanted}'; {there}")

    def _aliases(self, campaign_name: str) -> dict[str, str]:
        name = _registered(campaign_name)
        with self._mlflow():
            found = self._client.search_registered_models(f"name = '{name}'")
        return {alias: str(made) for model in found for alias, made in model.aliases.items()}

    def _versions(self, campaign_name: str) -> list[Any]:
        name = _registered(campaign_name)
        with self._mlflow():
            found = self._client.search_model_versions(f"name = '{name}'")
        return sorted(found, key=lambda each: -int(each.version))

    def _experiment(self, campaign_name: str) -> str:
        """The campaign's experiment, made if it is new; its artifacts are under the home."""
        name = _registered(campaign_name)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = self.settings.tracking_uri is None
        place = self.settings.folder("mlflow", "artifacts", name).as_uri() if local else None
        return str(self._client.create_experiment(name, artifact_location=place))

    @cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.settings.mlflow_uri)

    @contextmanager
    def _mlflow(self) -> Iterator[Any]:
        """MLflow, quiet and looking at our registry; its errors become ours."""
        os.environ.update(QUIET)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own 7 take minutes
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        warnings.filterwarnings("ignore", module=r"mlflow\.")  # notes to its own developers
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        uri = self.settings.mlflow_uri
        if self.settings.tracking_uri is None:
            self.settings.folder("mlflow")
        mlflow.set_tracking_uri(uri)
        try:
            yield mlflow
        except (MlflowException, SQLAlchemyError) as error:
            reason = str(error).splitlines()[0].partition(" (Caused by")[0]
            raise RemoteError(f"MLflow at {uri}: {reason}") from error


def code_version() -> str:
    """The package's version, and the commit where it runs from a checkout (``+dirty`` if changed)."""
    try:
        release = version("updraft")
    except PackageNotFoundError:
        release = "0"
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed: a repository further up is somebody else's
        return release
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return release
    return f"{release}+{found.stdout.strip()}"


def _registered(campaign_name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", campaign_name):
        raise CampaignError(f"{campaign_name!r} is no campaign's name")
    return f"updraft-{campaign_name}"


def _tags(model: UpliftModel) -> dict[str, str]:
    about = {
        "campaign_hash": model.campaign.hash,
        "code_version": code_version(),
        **model.meta,
        "net": model.name,
        "price": repr(float(model.price)),
    }
    return {key: str(value) for key, value in about.items()}


def _metric(name: str) -> str:
    """A name that MLflow takes: ``lift@30`` is ``lift_at_30``."""
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_"))


def _log_files(mlflow: Any, files: Mapping[str, Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, path in files.items():
            shutil.copyfile(path, Path(folder) / name)
        if files:
            mlflow.log_artifacts(folder, "reports")
