"""How well a model ranks units, on explored rows of units that it never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from campaigns.errors import DataError
from campaigns.spec import Campaign
from models.hidden_confounding import Confounding, hidden_confounding
from models.metrics import (
    Curve,
    UpliftRow,
    cost_curve,
    qini_curve,
    uplift_curve,
    uplift_table,
)
from models.split import TEST, folds
from models.uplift_deciles import Deciles, uplift_deciles
from models.uplift_model import UpliftModel

METRICS = ("ate", "qini_perfect", "auuc", "lift@30")
CURVES: dict[str, Callable[..., Curve]] = {
    "uplift": uplift_curve,
    "qini": qini_curve,
    "cost": cost_curve,
}
GRID = np.linspace(0, 1, 41)  # points of a drawn curve
REPLICATES = 60  # of a curve's band


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
class UpliftEvaluation:
    """What :func:`evaluate_uplift` found.

    Attributes:
        rows: Held-out explored rows.
        table: Every metric of every arm and outcome, with its interval.
        bands: Uplift, Qini and cost curves.
        deciles: Calibration of the predicted uplift.
        confounding: What could be hidden behind the effects; None in files of earlier versions.
    """

    rows: int
    table: list[UpliftRow]
    bands: list[Band]
    deciles: list[Deciles]
    confounding: Confounding | None = None

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
    """Metrics, curves and calibration of a model's uplifts, and what could be hidden behind them.

    Args:
        model: The model; it never saw units of the test fold.
        frame: A decision frame.
        campaign: With features spelled out.
        seed: Of the bootstrap.

    Raises:
        DataError: No held-out explored row has an outcome.
    """
    trial = frame["explored"].to_numpy() & ~frame["holdout"].to_numpy()
    test = folds(frame["unit_id"], campaign.name) == TEST
    rows = frame[trial & test]
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
            seen = np.isfinite(y[:, k])
            if not {0, a} <= set(given[seen].tolist()):
                continue
            used = ((given == a) | (given == 0)) & seen
            score = predicted[used, a, k] - predicted[used, 0, k]
            contrast = y[used, k], score, given[used] == a, propensity[used]
            bands += list(_bands(arm, outcome, *contrast, campaign.gate.confidence, seed))
            tenths, error = uplift_deciles(
                arm,
                outcome,
                y[seen, k],
                predicted[seen, :, k],
                given[seen],
                propensity[seen],
                treated=a,
                confidence=campaign.gate.confidence,
                seed=seed,
            )
            deciles.append(tenths)
            table.append(error)
    confounding = hidden_confounding(frame[test], campaign, seed=seed)
    return UpliftEvaluation(len(rows), table, bands, deciles, confounding)


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
