"""A saved model as MLflow's pyfunc flavor sees it: a table of features in, expected outcomes out.

``mlflow.pyfunc.load_model("models:/updraft-<campaign>@champion")`` finds :func:`_load_pyfunc` here;
nothing is pickled, and all that the loader needs is Updraft itself.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from campaigns.spec import Campaign
from models.uplift_model import UpliftModel

REQUIREMENTS = ("updraft", "torch", "numpy", "pandas", "scipy", "pydantic")


class PyfuncModel:
    """What ``mlflow.pyfunc.load_model`` wraps."""

    def __init__(self, model: UpliftModel) -> None:
        self.model = model

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """Expected outcomes of N units: A * K columns named ``arm:outcome``."""
        outcomes = self.model.predict(table)
        names = output_columns(self.model.campaign)
        return pd.DataFrame(outcomes.reshape(len(table), -1), columns=names, index=table.index)


def _load_pyfunc(path: str) -> PyfuncModel:
    """The hook that MLflow calls with the model's folder."""
    return PyfuncModel(UpliftModel.load(Path(path)))


def output_columns(campaign: Campaign) -> list[str]:
    """``arm:outcome``, arms outermost, [A * K]."""
    return [f"{arm}:{outcome}" for arm in campaign.arm_table.names for outcome in campaign.outcomes]


def signature(campaign: Campaign) -> Any:
    """MLflow's signature: features in, :func:`output_columns` out.

    Said, not guessed from an example: a feature without missing values there may have some later.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    features = campaign.features
    inputs = [ColSpec("double", name) for name in features.numeric]
    inputs += [ColSpec("string", name) for name in features.categorical]
    outputs = [ColSpec("double", name) for name in output_columns(campaign)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def requirements() -> list[str]:
    """What loading needs, pinned; saying it spares MLflow a slow look at every import."""
    pinned = []
    for name in REQUIREMENTS:
        try:
            pinned.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:  # Updraft runs from a checkout that isn't installed
            continue
    return pinned
