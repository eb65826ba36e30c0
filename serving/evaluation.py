"""What each policy would have earned on the same held-out explored rows, inside the same budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from campaigns.errors import DataError
from campaigns.frame_file import FrameFile
from campaigns.objective import arm_costs, budget_per_unit, realised, value_and_cost
from campaigns.spec import Campaign
from models.metrics import Interval, PolicyValue, cross_fit_outcome_model, policy_value
from models.metrics.ope_estimators import ESTIMATORS, Estimator
from models.split import TEST, folds
from serving.policy.allocation import allocate
from serving.policy.ration import ration

NOBODY, BEST_ARM, RANDOM = "nobody", "everybody-best-arm", "random"
LEAST_ROWS = 50


@dataclass(frozen=True)
class HeldOut:
    """The explored rows of units that no model was trained on, and what they earned.

    Attributes:
        rows: Decision frame, N rows.
        reward: Worth of the outcomes less ``min_return`` times the cost, [N].
        q_hat: Reward that a cross-fitted model expects of every arm, [N, A].
        costs: Expected cost of every arm, [N, A], that policies are budgeted by.
        budget_per_unit: The campaign's budget for one decision.
    """

    rows: pd.DataFrame
    reward: np.ndarray
    q_hat: np.ndarray
    costs: np.ndarray
    budget_per_unit: float

    @property
    def budget(self) -> float:
        return self.budget_per_unit * len(self.rows)


@dataclass(frozen=True)
class PolicyScore:
    """One policy's off-policy value.

    Attributes:
        name: What people call it.
        value: Per unit, in the budget's unit, with its interval (doubly robust).
        cost: Expected cost per unit.
        policy: Its action probabilities, [N, A].
        price: lambda of an allocation; None for the others.
        contributions: One a held-out row, [N]; their mean is the value.
        warning: Why the value should be read with care, or None.
    """

    name: str
    value: Interval
    cost: float
    policy: np.ndarray
    price: float | None
    contributions: np.ndarray
    warning: str | None

    @property
    def mix(self) -> np.ndarray:
        """Share of units that get each arm, [A]."""
        return np.asarray(self.policy.mean(axis=0))

    def warned(self, sentence: str) -> PolicyScore:
        """The same, with one more thing to read it with care for."""
        return replace(self, warning=" ".join(filter(None, [self.warning, sentence])))


@dataclass(frozen=True)
class Estimate:
    """A policy's value by one estimator: per unit, with its interval, and what speaks against it."""

    name: Estimator
    value: Interval
    effective_rows: float
    warning: str | None


def held_out(
    frame: pd.DataFrame,
    campaign: Campaign,
    *,
    seed: int = 0,
    everybody: bool = False,
    features: FrameFile | None = None,
) -> HeldOut:
    """The rows that policies are judged on.

    Args:
        frame: A decision frame.
        campaign: With features spelled out.
        seed: Of the cross-fitted outcome model.
        everybody: Take the explored rows of all units, where what is judged is no model of ours.
        features: Where those rows' features are read, by the frame's index; None: they are in the frame.

    Raises:
        DataError: There are too few to judge anything.
    """
    test = everybody | (folds(frame["unit_id"], campaign.name) == TEST)
    trial = frame["explored"].to_numpy() & ~frame["holdout"].to_numpy()
    outcomes = frame[list(campaign.outcomes)].to_numpy(dtype=np.float64)
    worth, paid = realised(outcomes, frame["arm"].to_numpy(), campaign)
    reward = worth - campaign.budget.min_return * paid
    used = test & trial & np.isfinite(reward)
    rows = frame[used]
    if features is not None:
        rows = rows.join(features.take(rows.index.to_numpy(), campaign.features.names))
    rows = rows.reset_index(drop=True)
    if len(rows) < LEAST_ROWS:
        kind = "explored" if everybody else "held-out explored"
        raise DataError(
            f"{campaign.name}: {len(rows)} {kind} rows with complete outcomes; "
            f"an evaluation needs at least {LEAST_ROWS}: log more randomized decisions"
        )
    arms = len(campaign.arm_table)
    return HeldOut(
        rows=rows,
        reward=reward[used],
        q_hat=cross_fit_outcome_model(
            _numeric_features(rows, campaign),
            rows["arm"],
            reward[used],
            rows["explored_propensity"],
            arms=arms,
            folds=3,
            seed=seed,
        ),
        costs=np.broadcast_to(arm_costs(frame, campaign), (len(rows), arms)),
        budget_per_unit=budget_per_unit(campaign, frame["decided_at"]),
    )


def constant_policies(log: HeldOut, frame: pd.DataFrame, campaign: Campaign) -> list[PolicyScore]:
    """Nobody, everybody the best arm, and a random arm, each kept to the budget by lot.

    The best arm is chosen on the rows that are not held out, so that it isn't flattered.
    """
    arms = len(campaign.arm_table)
    count = len(log.rows)
    best = best_arm(frame, campaign)
    return [
        _score(NOBODY, _constant(0, count, arms), log, campaign),
        _score(BEST_ARM, _rationed(_constant(best, count, arms), log), log, campaign),
        _score(RANDOM, _rationed(np.full((count, arms), 1 / arms), log), log, campaign),
    ]


def model_policy(name: str, predicted: np.ndarray, log: HeldOut, campaign: Campaign) -> PolicyScore:
    """The policy that allocates by a model's predictions [N, A, K] within the budget."""
    value, cost = value_and_cost(predicted, campaign)
    chosen = allocate(value, cost, log.budget, min_return=campaign.budget.min_return)
    policy = np.eye(len(campaign.arm_table))[chosen.arm]
    return _score(name, policy, log, campaign, price=chosen.price, cost=cost)


def score_policy(
    name: str, scores: np.ndarray, log: HeldOut, campaign: Campaign, *, worth: bool = False
) -> PolicyScore:
    """The policy that allocates by scores [N, A] within the budget.

    Args:
        name: What people call it.
        scores: Higher is treated first; an arm may be given where its score is above 0.
        log: The rows.
        campaign: Gives ``min_return``.
        worth: Scores are expected values in the budget's unit, so ``min_return`` is asked of them;
            else they are gains on a scale of their own.
    """
    floor = campaign.budget.min_return if worth else 0.0
    chosen = allocate(scores, log.costs, log.budget, min_return=floor)
    policy = np.eye(len(campaign.arm_table))[chosen.arm]
    return _score(name, policy, log, campaign, price=chosen.price)


def by_every_estimator(score: PolicyScore, log: HeldOut, campaign: Campaign) -> list[Estimate]:
    """A policy's value by each estimator of :mod:`models.metrics.ope_estimators`."""
    found = []
    for name in ESTIMATORS:
        each = policy_value(
            score.policy,
            log.reward,
            log.rows["arm"],
            log.rows["explored_propensity"],
            q_hat=log.q_hat,
            estimator=name,
            confidence=campaign.gate.confidence,
        )
        found.append(Estimate(name, each.interval, each.effective_rows, each.warning))
    return found


def best_arm(frame: pd.DataFrame, campaign: Campaign) -> int:
    """The arm with the highest mean reward on the explored rows that are not held out."""
    rows = frame[
        (folds(frame["unit_id"], campaign.name) != TEST)
        & frame["explored"].to_numpy()
        & ~frame["holdout"].to_numpy()
    ]
    arm = rows["arm"].to_numpy()
    worth, paid = realised(rows[list(campaign.outcomes)].to_numpy(dtype=np.float64), arm, campaign)
    reward = worth - campaign.budget.min_return * paid
    weight = np.where(np.isfinite(reward), 1 / rows["explored_propensity"].to_numpy(), 0.0)
    count = len(campaign.arm_table)
    total = np.bincount(arm, weight * np.nan_to_num(reward), minlength=count)
    mass = np.bincount(arm, weight, minlength=count)
    return int(np.argmax(np.where(mass > 0, total / np.maximum(mass, 1e-12), -np.inf)))


def _score(
    name: str,
    policy: np.ndarray,
    log: HeldOut,
    campaign: Campaign,
    *,
    price: float | None = None,
    cost: np.ndarray | None = None,
) -> PolicyScore:
    estimate: PolicyValue = policy_value(
        policy,
        log.reward,
        log.rows["arm"],
        log.rows["explored_propensity"],
        q_hat=log.q_hat,
        confidence=campaign.gate.confidence,
    )
    spent = log.costs if cost is None else cost
    return PolicyScore(
        name=name,
        value=estimate.interval,
        cost=float((policy * spent).sum(axis=1).mean()),
        policy=policy,
        price=price,
        contributions=estimate.contributions,
        warning=estimate.warning,
    )


def _rationed(policy: np.ndarray, log: HeldOut) -> np.ndarray:
    return ration(policy, log.costs, log.budget).probabilities


def _constant(arm: int, count: int, arms: int) -> np.ndarray:
    return np.broadcast_to(np.eye(arms)[arm], (count, arms))


def _numeric_features(rows: pd.DataFrame, campaign: Campaign) -> np.ndarray:
    """Features for trees: numbers as they are, categories as codes (-1 is missing)."""
    codes = [pd.factorize(rows[name], sort=True)[0] for name in campaign.features.categorical]
    return np.column_stack([*(rows[name] for name in campaign.features.numeric), *codes])
