"""How well a model ranks units, on explored rows of units that it never saw; or somebody's scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from campaigns.errors import DataError
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from models.convention_table import convention_rows, default_metrics
from models.hidden_confounding import Confounding, hidden_confounding
from models.metrics import Curve, UpliftRow, uplift_table
from models.metrics.curves import every_curve
from models.metrics.trial import check_trial
from models.policy_points import PolicyPoints, policy_points
from models.split import TEST, folds
from models.uplift_deciles import Deciles, uplift_deciles
from models.uplift_model import UpliftModel

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
    """What :func:`evaluate_uplift` or :func:`evaluate_scores` found.

    Attributes:
        rows: Explored rows, held out or all of them.
        table: Every metric of every arm and outcome, with its interval.
        bands: Uplift, Qini and cost curves.
        deciles: Calibration of the predicted uplift.
        confounding: What could be hidden behind the effects; None in files of earlier versions.
        policy: What a greedy spend buys, by its cost; None where it isn't defined.
        held_out: The rows' units are those that no model of ours was trained on.
    """

    rows: int
    table: list[UpliftRow]
    bands: list[Band]
    deciles: list[Deciles]
    confounding: Confounding | None = None
    policy: PolicyPoints | None = None
    held_out: bool = True

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
        kind = "held-out" if self.held_out else "randomized"
        return f"Qini (normalized) on {self.rows:,} {kind} rows: {told}"

    def to_json(self) -> str:
        """The whole as JSON."""
        return json.dumps(asdict(self))


def evaluate_uplift(
    model: UpliftModel,
    frame: pd.DataFrame,
    campaign: Campaign,
    *,
    metrics: Sequence[str] | None = None,
    convention: str = "updraft",
    seed: int = 0,
) -> UpliftEvaluation:
    """Metrics, curves and calibration of a model's uplifts, and what could be hidden behind them.

    Args:
        model: The model; it never saw units of the test fold.
        frame: A decision frame.
        campaign: With features spelled out.
        metrics: Names in the convention; default: its best-known ones.
        convention: Whose numbers, see :mod:`models.metrics.conventions`.
        seed: Of the bootstrap.

    Raises:
        DataError: No held-out explored row has an outcome, or no metric has such a name.
    """
    test = folds(frame["unit_id"], campaign.name) == TEST
    frame = frame if test.all() else frame[test]
    explored = explored_rows(frame)
    rows = frame if explored.all() else frame[explored]
    _require_outcomes(rows, campaign, "held-out explored row")
    predicted = model.predict(rows)
    value, cost = value_and_cost(predicted, campaign)
    measure = _Measure(campaign, metrics, convention, seed)
    table, bands, deciles = measure(predicted, rows)
    return UpliftEvaluation(
        len(rows),
        table,
        bands,
        deciles,
        hidden_confounding(frame, campaign, seed=seed),
        policy_points(value, cost, rows, campaign, seed=seed),
    )


def evaluate_scores(
    scores: np.ndarray,
    costs: np.ndarray,
    frame: pd.DataFrame,
    campaign: Campaign,
    *,
    metrics: Sequence[str] | None = None,
    convention: str = "updraft",
    seed: int = 0,
) -> UpliftEvaluation:
    """The same of scores that come from anywhere, on all explored rows.

    Args:
        scores: Higher is treated first, [N, A]; control's are 0. Taken as effects on every outcome, so
            that calibration says something only of an outcome that they are effects on.
        costs: Of each arm over control, [A].
        frame: A decision frame, N rows.
        campaign, metrics, convention, seed: As in :func:`evaluate_uplift`.
    """
    trial = explored_rows(frame)
    rows, scored = frame[trial], scores[trial]
    _require_outcomes(rows, campaign, "explored row")
    measure = _Measure(campaign, metrics, convention, seed, centred=True)
    table, bands, deciles = measure(
        np.repeat(scored[:, :, None], len(campaign.outcomes), axis=2), rows
    )
    return UpliftEvaluation(
        len(rows),
        table,
        bands,
        deciles,
        hidden_confounding(frame, campaign, seed=seed),
        policy_points(scored, costs, rows, campaign, seed=seed),
        held_out=False,
    )


def explored_rows(frame: pd.DataFrame) -> np.ndarray:
    """Which rows of a decision frame were drawn at random, [N] bool; held-out units weren't."""
    return np.asarray(frame["explored"].to_numpy() & ~frame["holdout"].to_numpy())


def _require_outcomes(rows: pd.DataFrame, campaign: Campaign, kind: str) -> None:
    if not np.isfinite(rows[list(campaign.outcomes)].to_numpy(dtype=np.float64)).any():
        raise DataError(f"{campaign.name}: no {kind} has an outcome; log more decisions")


@dataclass(frozen=True)
class _Measure:
    """Table, bands and deciles of predictions.

    Attributes:
        centred: Calibration leaves the outcomes' level out, which scores don't know.
    """

    campaign: Campaign
    metrics: Sequence[str] | None
    convention: str
    seed: int
    centred: bool = False

    def __call__(
        self, predicted: np.ndarray, rows: pd.DataFrame
    ) -> tuple[list[UpliftRow], list[Band], list[Deciles]]:
        """Of predictions [N, A, K]."""
        arms, names = self.campaign.arm_table, list(self.campaign.outcomes)
        confidence, seed = self.campaign.gate.confidence, self.seed
        y = rows[names].to_numpy(dtype=np.float64)
        level = np.nanmean(y, axis=0) if self.centred else np.zeros(len(names))
        given, propensity = rows["arm"].to_numpy(), rows["explored_propensity"].to_numpy()
        table = (uplift_table if self.convention == "updraft" else self._others)(
            predicted,
            y,
            given,
            propensity,
            arm_names=arms.names,
            outcome_names=names,
            metrics=self.metrics or default_metrics(self.convention),
            confidence=confidence,
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
                bands += list(_bands(arm, outcome, *contrast, confidence, seed))
                tenths, error = uplift_deciles(
                    arm,
                    outcome,
                    y[seen, k] - level[k],
                    predicted[seen, :, k],
                    given[seen],
                    propensity[seen],
                    treated=a,
                    confidence=confidence,
                    seed=seed,
                )
                deciles.append(tenths)
                table.append(error)
        return table, bands, deciles

    def _others(self, *arrays: np.ndarray, **options: Any) -> list[UpliftRow]:
        return convention_rows(self.convention, *arrays, **options)


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
    trial = check_trial(y, score, treated, propensity=propensity)  # sorted once for all replicates
    rng = np.random.default_rng(seed)
    draws: dict[str, list[np.ndarray]] = {}
    for _ in range(REPLICATES):
        weight = rng.poisson(1.0, len(y)).astype(np.uint8)
        for kind, curve in every_curve(trial.points(weight[None])).items():
            draws.setdefault(kind, []).append(_on_grid(curve))
    for kind, drawn in every_curve(trial.points()).items():
        scale = len(y) if kind == "qini" else 1  # per unit, as the others are
        low, high = np.nanquantile(
            np.array(draws[kind]) / scale, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0
        )
        lists = (_finite(values) for values in (_on_grid(drawn) / scale, low, high))
        yield Band(kind, arm, outcome, GRID.tolist(), *lists)


def _on_grid(curve: Curve) -> np.ndarray:
    """The curve at GRID's x; a cost curve can turn back, so that its x are sorted first."""
    order = np.argsort(curve.x, kind="stable")
    return np.interp(GRID, curve.x[order], curve.y[order])


def _finite(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.nan_to_num(values)]
