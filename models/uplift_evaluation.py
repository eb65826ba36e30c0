"""How well a model ranks units, on explored rows of units that it never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from campaigns.errors import DataError
from campaigns.spec import Campaign
from models.metrics import (
    Curve,
    UpliftRow,
    cost_curve,
    normal_interval,
    qini_curve,
    uplift_curve,
    uplift_table,
)
from models.split import TEST, folds
from models.uplift_model import UpliftModel

METRICS = ("ate", "qini_perfect", "auuc", "lift@30")
CURVES: dict[str, Callable[..., Curve]] = {
    "uplift": uplift_curve,
    "qini": qini_curve,
    "cost": cost_curve,
}
GRID = np.linspace(0, 1, 41)  # points of a drawn curve
REPLICATES = 60  # of a curve's band
BINS = 10


@dataclass(frozen=True)
class Band:
    """A curve and its bootstrap band, on a grid of x in 0..1."""

    kind: str
    arm: str
    outcome: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Deciles:
    """Units in ten bins of predicted uplift, least first: what was predicted and what was observed."""

    arm: str
    outcome: str
    predicted: list[float]
    observed: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class UpliftEvaluation:
    """What :func:`evaluate_uplift` found.

    Attributes:
        rows: Held-out explored rows.
        table: Every metric of every arm and outcome, with its interval.
        bands: Uplift, Qini and cost curves.
        deciles: Calibration of the predicted uplift.
    """

    rows: int
    table: list[UpliftRow]
    bands: list[Band]
    deciles: list[Deciles]

    @property
    def estimates(self) -> dict[str, float]:
        """The estimates by name, as a registry logs them."""
        return {
            f"{row.metric.replace('@', '_at_')}.{row.arm}.{row.outcome}": row.interval.estimate
            for row in self.table
            if np.isfinite(row.interval.estimate)
        }

    @property
    def summary(self) -> str:
        """The best-known number in one line."""
        qini = [row for row in self.table if row.metric == "qini_perfect"]
        told = ", ".join(f"{r.arm}/{r.outcome} {r.interval.estimate:.3f}" for r in qini)
        return f"Qini (normalized) on {self.rows:,} held-out rows: {told}"

    def to_json(self) -> str:
        """The whole as JSON."""
        return json.dumps(asdict(self))


def evaluate_uplift(
    model: UpliftModel, frame: pd.DataFrame, campaign: Campaign, *, seed: int = 0
) -> UpliftEvaluation:
    """Metrics, curves and calibration of a model's uplifts.

    Args:
        model: The model; it never saw units of the test fold.
        frame: A decision frame.
        campaign: With features spelled out.
        seed: Of the bootstrap.

    Raises:
        DataError: No held-out explored row has an outcome.
    """
    trial = frame["explored"].to_numpy() & ~frame["holdout"].to_numpy()
    rows = frame[trial & (folds(frame["unit_id"], campaign.name) == TEST)]
    names = list(campaign.outcomes)
    y = rows[names].to_numpy(dtype=np.float64)
    if not len(rows) or not np.isfinite(y).any():
        raise DataError(
            f"{campaign.name}: no held-out explored row has an outcome; log more decisions"
        )
    predicted = model.predict(rows)
    given, propensity = rows["arm"].to_numpy(), rows["explored_propensity"].to_numpy()
    arms = campaign.arm_table
    table = uplift_table(
        predicted,
        y,
        given,
        propensity,
        arm_names=arms.names,
        outcome_names=names,
        metrics=METRICS,
        confidence=campaign.gate.confidence,
        seed=seed,
    )
    bands, deciles = [], []
    for a, arm in enumerate(arms.names[1:], start=1):
        for k, outcome in enumerate(names):
            used = ((given == a) | (given == 0)) & np.isfinite(y[:, k])
            if not ((given[used] == a).any() and (given[used] == 0).any()):
                continue
            score = predicted[used, a, k] - predicted[used, 0, k]
            contrast = y[used, k], score, given[used] == a, propensity[used]
            bands += list(_bands(arm, outcome, *contrast, campaign.gate.confidence, seed))
            deciles.append(_deciles(arm, outcome, *contrast, campaign.gate.confidence))
    return UpliftEvaluation(len(rows), table, bands, deciles)


def _bands(
    arm: str,
    outcome: str,
    y: np.ndarray,
    score: np.ndarray,
    treated: np.ndarray,
    propensity: np.ndarray,
    confidence: float,
    seed: int,
) -> Iterator[Band]:
    weights = np.random.default_rng(seed).poisson(1.0, (REPLICATES, len(y))).astype(np.float64)
    for kind, curve in CURVES.items():
        drawn = curve(y, score, treated, propensity=propensity)
        scale = len(y) if kind == "qini" else 1  # per unit, as the others are
        draws = [
            _on_grid(curve(y, score, treated, propensity=propensity, weight=w)) for w in weights
        ]
        low, high = np.nanquantile(
            np.array(draws) / scale, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0
        )
        lists = (_finite(values) for values in (_on_grid(drawn) / scale, low, high))
        yield Band(kind, arm, outcome, GRID.tolist(), *lists)


def _on_grid(curve: Curve) -> np.ndarray:
    """The curve at GRID's x; a cost curve can turn back, so that its x are sorted first."""
    order = np.argsort(curve.x, kind="stable")
    return np.interp(GRID, curve.x[order], curve.y[order])


def _finite(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.nan_to_num(values)]


def _deciles(
    arm: str,
    outcome: str,
    y: np.ndarray,
    score: np.ndarray,
    treated: np.ndarray,
    propensity: np.ndarray,
    confidence: float,
) -> Deciles:
    order = np.argsort(score, kind="stable")
    found: list[tuple[float, float, float, float]] = []
    for rows in np.array_split(order, min(BINS, len(order))):
        t, c = rows[treated[rows]], rows[~treated[rows]]
        if len(t) < 2 or len(c) < 2:
            continue
        effect, variance = 0.0, 0.0
        for sign, group in ((1, t), (-1, c)):
            weight = 1 / propensity[group]
            mean = np.average(y[group], weights=weight)
            effect += sign * mean
            variance += float(np.sum((weight * (y[group] - mean)) ** 2) / weight.sum() ** 2)
        interval = normal_interval(float(effect), variance**0.5, confidence)
        found.append((float(score[rows].mean()), interval.estimate, interval.low, interval.high))
    columns = [list(column) for column in zip(*found)] or [[], [], [], []]
    return Deciles(arm, outcome, *columns)
