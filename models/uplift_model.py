"""A trained model and all that it needs to answer: saved as a folder of JSON and one file of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from campaigns.errors import DataError
from campaigns.spec import Campaign
from models.catalog import build, build_learner, entry
from models.data import OutcomeScaler, Shape
from models.encoding import Encoder
from models.inference import predict, predict_members
from models.learners.base import Learner
from models.uncertainty import CONFIDENCE, Intervals

CAMPAIGN, ENCODER, MODEL, WEIGHTS = "campaign.json", "encoder.json", "model.json", "net.pt"
FORMAT = 2  # of the folder; a newer one than we know is refused
TREES = "s_boost"  # what a net's trees are
TREES_SHARE = 2 / 3  # of the answer


@dataclass
class UpliftModel:
    """A net or a learner with its campaign, encoder and scaler.

    Attributes:
        name: Its name in the catalogue.
        config: Its settings.
        shape: What it was built for.
        encoder, scaler: Features in, outcomes out.
        net: The trained net, on the CPU, or learner.
        trees: A learner that has two thirds of the answer (:mod:`models.companion`), or None.
        campaign: With ``'*'`` in its features expanded.
        price: lambda, the return that a unit of cost must bring, at the campaign's budget.
        limit_prices: What one more unit of each of the campaign's other limits brings, by its name.
        dial: How directed draws follow from the members' disagreement; None: it was trained for none.
        meta: Where it comes from (campaign_hash, data_hash, code_version, trained_at, ...).
    """

    name: str
    config: dict[str, Any]
    shape: Shape
    encoder: Encoder
    scaler: OutcomeScaler
    net: nn.Module | Learner
    campaign: Campaign
    price: float = 0.0
    limit_prices: dict[str, float] = field(default_factory=dict)
    dial: dict[str, float] | None = None
    meta: dict[str, str] = field(default_factory=dict)
    trees: Learner | None = None

    def predict(
        self, columns: Mapping[str, np.ndarray] | pd.DataFrame, batch_size: int = 65_536
    ) -> np.ndarray:
        """Expected potential outcomes, in the outcomes' own units.

        Args:
            columns: The campaign's features by name, N values each; missing ones may be NaN or None.
                Other columns are ignored.
            batch_size: Rows at a time, which bounds the memory.

        Returns:
            [N, A, K] float64; arm 0 is control.

        Raises:
            DataError: A feature is missing or holds no numbers where it should.
        """
        table = _arrays(columns, self.campaign.features.names)
        rows = len(next(iter(table.values())))
        parts = []
        for start in range(0, max(rows, 1), batch_size):
            batch = {name: values[start : start + batch_size] for name, values in table.items()}
            encoded = self.encoder.encode(batch)
            outcomes = predict(self.net, *encoded, batch_size=batch_size)
            if self.trees is not None:
                outcomes *= 1.0 - TREES_SHARE
                outcomes += TREES_SHARE * predict(self.trees, *encoded)
            parts.append(self.scaler.restore(outcomes.astype(np.float64)))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def intervals(
        self,
        columns: Mapping[str, np.ndarray] | pd.DataFrame,
        confidence: float = CONFIDENCE,
        batch_size: int = 8_192,
    ) -> Intervals | None:
        """Where each uplift lies, by the spread of the model's members (:mod:`models.uncertainty`).

        Args:
            columns, batch_size: As for :meth:`predict`.
            confidence: Of the intervals, in (0, 1).

        Returns:
            None of a model without members or draws: it has nothing to tell it by.

        Raises:
            DataError: As :meth:`predict`.
        """
        table = _arrays(columns, self.campaign.features.names)
        parts = []
        for start in range(0, max(len(next(iter(table.values()))), 1), batch_size):
            batch = {name: values[start : start + batch_size] for name, values in table.items()}
            members = self._members(*self.encoder.encode(batch), batch_size)
            if max(map(len, members)) < 2:
                return None
            parts.append(Intervals.of(members, self._weights, self.campaign, confidence))
        return Intervals.joined(parts)

    def _members(self, x_num: np.ndarray, x_cat: np.ndarray, batch_size: int) -> list[np.ndarray]:
        """What the members of the net expect, and those of the trees, [M, N, A, K] each."""
        found = []
        for part in (self.net, self.trees):
            if part is not None:
                members = predict_members(part, x_num, x_cat, batch_size)
                if members is None:
                    members = predict(part, x_num, x_cat, batch_size)[None]
                found.append(self.scaler.restore(members.astype(np.float64)))
        return found

    def predict_members(
        self, columns: Mapping[str, np.ndarray] | pd.DataFrame, batch_size: int = 8_192
    ) -> np.ndarray | None:
        """What each member of an ensemble, or draw of a posterior, expects, [M, N, A, K] float64.

        A net's members and its trees' answer in pairs, their mean being :meth:`predict`. Arguments and
        errors as there; None of a model that has fewer than two.
        """
        table = _arrays(columns, self.campaign.features.names)
        parts = self._members(*self.encoder.encode(table), batch_size)
        if (count := max(map(len, parts))) < 2:
            return None
        several = [part[np.arange(count) % len(part)] for part in parts]
        pairs = np.average(several, axis=0, weights=self._weights)
        mean = np.average([part.mean(0) for part in parts], axis=0, weights=self._weights)
        return np.asarray(pairs + mean - pairs.mean(0))

    @property
    def _weights(self) -> list[float]:
        """Shares of the answer: the net's, and the trees'."""
        return [1.0] if self.trees is None else [1.0 - TREES_SHARE, TREES_SHARE]

    def save(self, folder: Path) -> None:
        """Write the model into a folder, made if missing: JSON and a state dict (or what a learner
        learned, by skops), no pickled objects.
        """
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format": 1 if self.trees is None else FORMAT,  # what older releases can read, they may
            "name": self.name,
            "config": self.config,
            "shape": asdict(self.shape),
            "scaler": self.scaler.to_dict(),
            "price": self.price,
            "limit_prices": self.limit_prices,
            "dial": self.dial,
            "meta": self.meta,
        }
        (folder / CAMPAIGN).write_text(self.campaign.model_dump_json(indent=1), encoding="utf-8")
        (folder / ENCODER).write_text(json.dumps(self.encoder.to_dict()), encoding="utf-8")
        if isinstance(self.net, Learner):
            self.net.save(folder)
        else:
            torch.save(self.net.state_dict(), folder / WEIGHTS)
        if self.trees is not None:
            self.trees.save(folder)
        (folder / MODEL).write_text(json.dumps(about, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> UpliftModel:
        """Read what :meth:`save` wrote; the net is on the CPU and in evaluation mode.

        Raises:
            DataError: The folder holds no model, a broken one, or one of a later release.
        """
        try:
            about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
            if about["format"] > FORMAT:
                raise DataError(
                    f"{folder}: has model format {about['format']}, this release reads {FORMAT}; "
                    "update Updraft"
                )
            campaign = Campaign.model_validate_json((folder / CAMPAIGN).read_text(encoding="utf-8"))
            encoder = json.loads((folder / ENCODER).read_text(encoding="utf-8"))
            shape = _shape(about["shape"])
            net = _restored(folder, about["name"], shape, about["config"])
            settings = trees_config(about["config"]) if about["format"] > 1 else None
            trees = None if settings is None else _restored(folder, TREES, shape, settings)
        except FileNotFoundError as error:
            raise DataError(f"{folder}: is no saved model ({error.filename} is missing)") from error
        except (ValueError, KeyError, RuntimeError, EOFError, UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(
                f"{folder}: holds a model that can't be read ({reason}); train it again"
            ) from error
        return cls(
            name=about["name"],
            config=about["config"],
            shape=shape,
            encoder=Encoder.from_dict(encoder),
            scaler=OutcomeScaler.from_dict(about["scaler"]),
            net=net,
            campaign=campaign,
            price=about["price"],
            limit_prices=about.get("limit_prices", {}),
            dial=about.get("dial"),
            meta=about["meta"],
            trees=cast("Learner | None", trees),
        )


def trees_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of the trees that belong to a net of such settings; None where it has none."""
    return {"bags": bags} if (bags := config.get("trees", 0)) else None


def _restored(folder: Path, name: str, shape: Shape, config: dict[str, Any]) -> nn.Module | Learner:
    """The net or learner with what it learned."""
    if entry(name).learner:
        return build_learner(name, shape, config).load(folder)
    weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    net = build(name, shape, config)
    net.load_state_dict(weights)
    return net.eval()


def _arrays(
    columns: Mapping[str, np.ndarray] | pd.DataFrame, names: list[str]
) -> Mapping[str, np.ndarray]:
    """The features as arrays, however they came."""
    absent = [name for name in names if name not in columns]
    if absent:
        raise DataError(f"feature '{absent[0]}' is missing; the model needs {', '.join(names)}")
    if isinstance(columns, pd.DataFrame):
        return {name: columns[name].to_numpy() for name in names}
    return {name: np.atleast_1d(columns[name]) for name in names}


def _shape(saved: dict[str, Any]) -> Shape:
    """A shape from JSON, where tuples are lists."""
    return Shape(
        numeric=saved["numeric"],
        categories=tuple(saved["categories"]),
        levels=tuple(tuple(arm) for arm in saved["levels"]),
        outcomes=tuple(saved["outcomes"]),
        sequence=tuple(saved["sequence"]),
        worth=tuple(saved.get("worth", ())),
        costs=tuple(saved.get("costs", ())),
        cost_outcome=saved.get("cost_outcome"),
        cost_scale=saved.get("cost_scale", 1.0),
        doses=tuple(tuple(factor) for factor in saved.get("doses", ())),
    )
