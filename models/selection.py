"""How good a net is on held-out rows: what picks the best epoch and what a search compares.

``loss`` is the net's own loss on the outcomes that were observed. ``effects`` looks at the effects
alone: the predicted effect on what the campaign wants, u_a(x) = v_a(x) - min_return * c_a(x), is
held against doubly robust pseudo-effects of the randomized rows,

    Gamma_a = q_a(x) + 1[A = a] / p * (U - q_a(x)),    psi_a = Gamma_a - Gamma_0,

(U: what was realised, p: the probability of the arm given, q: a cross-fitted ridge of U on x).
E[psi_a | x] is the true effect whatever q is, so the mean of (u_a - psi_a)^2 is the squared error of
the effects plus a constant that no net changes. ``effects`` is how far that lies below the same of a
net that predicts 0: nets are compared on the same noise, and most of it cancels.

In the world game_bonus (three logs of 40,000 rows, 40 snapshots of MTMT, S- and T-learners on each)
the rank correlation with the true squared error, and with the true value of the policy within the
budget, was 0.93 and 0.81 for ``effects``, 0.72 and 0.62 for ``loss``, 0.63 and 0.72 for the doubly
robust off-policy value of that policy: the loss is mostly about who responds anyway, and only rows
on which two policies differ tell their values apart. So ``effects`` compares models. Which epoch of
one training to keep is another question: what tells two epochs apart is less than the noise of
``effects`` where outcomes are rare or effects small. On 20,000 rows of benchmarks' worlds rare, chain
and factorial (two logs of each) the epoch that ``loss`` picked kept 0.80, 0.80 and 0.60 of the
oracle's value at a budget of 20%, the one that ``effects`` picked 0.72, 0.72 and 0.61; on game_bonus
both kept 0.92. So ``loss`` picks the epoch unless a campaign says otherwise.

Sources: Kennedy, "Towards optimal doubly robust estimation of heterogeneous causal effects", 2023;
Doutreligne & Varoquaux, "How to select predictive models for causal inference?", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from campaigns.errors import DataError
from campaigns.objective import realised, value_and_cost
from campaigns.spec import Campaign
from models.data import Batch
from models.dataset import Prepared, Recipe
from models.inference import predict
from models.learners.base import Learner
from models.nets.base import Net
from models.ranking import RankingNet

ROWS = 8_192  # of which the loss is computed at a time
FEWEST = 20  # randomized rows an arm, below which effects can't be compared


@dataclass(frozen=True)
class Judge:
    """Held-out randomized rows on which nets are compared.

    Attributes:
        x_num, x_cat: Encoded features, [N, F_n] and [N, F_c].
        effects: Pseudo-effects psi of every arm over control, [N, A]; 0 for control.
    """

    x_num: np.ndarray
    x_cat: np.ndarray
    effects: np.ndarray


def judge(prepared: Prepared) -> Judge:
    """The randomized validation rows whose outcomes were observed, with their pseudo-effects.

    Raises:
        DataError: There are too few of them.
    """
    recipe, batch = prepared.recipe, prepared.validation
    seen = batch.y_mask[:, _counted(recipe.campaign)].bool().all(dim=1)
    rows = batch.select((prepared.trial & seen).nonzero().squeeze(1))
    arm, arms = rows.arm.numpy(), recipe.shape.arms
    counts = np.bincount(arm, minlength=arms)
    if (fewest := int(counts.min())) < FEWEST:
        name = recipe.campaign.arm_table.names[int(counts.argmin())]
        raise DataError(
            f"arm '{name}' has {fewest} randomized rows with outcomes in the validation fold; "
            f"comparing effects takes {FEWEST}: explore more"
        )
    outcomes = recipe.scaler.restore(rows.y.numpy().astype(np.float64))
    worth, cost = realised(outcomes, arm, recipe.campaign)
    reward = worth - recipe.campaign.budget.min_return * cost
    propensity = rows.propensity.numpy().astype(np.float64)
    x_num, x_cat = rows.x_num.numpy(), rows.x_cat.numpy()
    x = np.concatenate([x_num, _one_hot(x_cat, recipe.shape.categories)], axis=1)
    q = _cross_fit(x, arm, reward, arms)
    given = np.arange(len(arm)), arm
    q[given] += (reward - q[given]) / propensity
    return Judge(x_num, x_cat, q - q[:, :1])


def objective(predicted: np.ndarray, rows: Judge, campaign: Campaign) -> float:
    """How much better than "no arm has an effect" a model explains the effects; more is better.

    Args:
        predicted: Expected potential outcomes of the rows in their own units, [N, A, K].
        rows: As :func:`judge` gives them.
        campaign: Gives values, costs and the smallest return.

    Returns:
        Mean over rows of sum_a psi_a^2 - (u_a - psi_a)^2, in squared units of value.
    """
    value, cost = value_and_cost(predicted, campaign)
    effect = value - campaign.budget.min_return * cost
    return float(np.mean(np.sum(effect * (2.0 * rows.effects - effect), axis=1)))


@dataclass(frozen=True)
class Validation:
    """Measures a net on the validation fold, as ``fit`` asks for it.

    Attributes:
        rows: What the loss is computed on, on the net's device.
        judge: What the effects are held against; None where they can't be.
        recipe: Gives the outcomes' units and the campaign.
    """

    rows: Batch
    judge: Judge | None
    recipe: Recipe

    @classmethod
    def of(cls, prepared: Prepared, device: torch.device | str = "cpu") -> Validation:
        """Of a prepared frame; without effects where randomized rows are too few."""
        try:
            rows = judge(prepared)
        except DataError:
            rows = None
        return cls(prepared.validation.to(device), rows, prepared.recipe)

    def __call__(self, net: nn.Module | Learner) -> dict[str, float]:
        """``loss``, ``effects`` where they can be measured, and ``score``: effects, else -loss.

        A ranking net has no effects before it is finished, so its own objective is its score.
        """
        loss = mean_loss(net, self.rows)
        if self.judge is None or isinstance(net, RankingNet):
            return {"loss": loss, "score": -loss}
        predicted = predict(net, self.judge.x_num, self.judge.x_cat)
        outcomes = self.recipe.scaler.restore(predicted.astype(np.float64))
        effects = objective(outcomes, self.judge, self.recipe.campaign)
        return {"loss": loss, "effects": effects, "score": effects}


def mean_loss(net: nn.Module | Learner, rows: Batch) -> float:
    """The loss of a net or a learner over all rows, by their number; of a cohort, where it ranks one."""
    if isinstance(net, RankingNet):
        return net.cohort_loss(rows, ROWS)
    total = 0.0
    for part in torch.arange(len(rows), device=rows.arm.device).split(ROWS):
        total += float(cast(Net, net).loss(rows.select(part))["loss"]) * len(part)
    return total / len(rows)


def _counted(campaign: Campaign) -> list[int]:
    """The outcomes that the campaign's objective is made of."""
    counted = [k for k, value in enumerate(campaign.values) if value]
    if campaign.cost_outcome is not None and campaign.budget.min_return:
        counted.append(campaign.cost_outcome)
    return counted


def _cross_fit(x: np.ndarray, arm: np.ndarray, reward: np.ndarray, arms: int) -> np.ndarray:
    """Ridge of the reward on x, one an arm, for each half of the rows from the other; [N, A]."""
    design = np.column_stack([np.ones(len(x)), x]).astype(np.float64)
    half = np.arange(len(x)) % 2
    q = np.empty((len(x), arms))
    for side in (0, 1):
        for a in range(arms):
            rows = (half != side) & (arm == a)
            gram = design[rows].T @ design[rows] + np.eye(design.shape[1])
            q[half == side, a] = design[half == side] @ np.linalg.solve(
                gram, design[rows].T @ reward[rows]
            )
    return q


def _one_hot(ids: np.ndarray, categories: tuple[int, ...]) -> np.ndarray:
    """Columns of 0 and 1, one an id, for vocabularies that are small enough; [N, F_c] -> [N, .]."""
    small = [column for column, size in enumerate(categories) if size <= 64]
    parts = [np.eye(categories[column], dtype=np.float32)[ids[:, column]] for column in small]
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(ids), 0), np.float32)
