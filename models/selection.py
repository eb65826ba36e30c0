"""How good a net is on held-out rows: what picks the best epoch and what a search compares.

``loss`` is the net's own loss, with whatever weights of tasks and terms of its own it has: it tells
the epochs of one training apart, but not two nets. ``score`` does, whatever the net: minus the loss
of the outcomes that it expects under the arms that were given,

    mean over rows of w * sum_k l(y_k, Y_k(a)),

l: cross-entropy where the net takes a binary outcome for a chance, otherwise the squared error, in
the outcomes' training units. ``effects`` looks at the effects alone: the predicted effect on what the
campaign wants, u_a(x) = v_a(x) - min_return * c_a(x), is held against doubly robust pseudo-effects
of the randomized rows,

    Gamma_a = q_a(x) + 1[A = a] / p * (U - q_a(x)),    psi_a = Gamma_a - Gamma_0,

(U: what was realised, p: the probability of the arm given, q: a cross-fitted ridge of U on x).
E[psi_a | x] is the true effect whatever q is, so the mean of (u_a - psi_a)^2 is the squared error of
the effects plus a constant that no net changes. ``effects`` is how far that lies below the same of a
net that predicts 0.

``effects`` asks the better question and gets the noisier answer. With benchmarks/models/selection, on
20,000 rows of four worlds, the snapshot of five nets that the factual loss picks is 0.036 of the
oracle's value worse than the best one, what ``effects`` picks 0.094; among one net's epochs 0.030 and
0.048. Only in the world game_bonus, where effects are large, are they level. So the factual loss
picks epochs and trials unless a campaign says otherwise.

Sources: Kennedy, "Towards optimal doubly robust estimation of heterogeneous causal effects", 2023;
Doutreligne & Varoquaux, "How to select predictive models for causal inference?", 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from campaigns.errors import DataError
from campaigns.objective import realised, value_and_cost
from campaigns.spec import Campaign
from models.data import Batch
from models.dataset import Prepared, Recipe
from models.inference import bare, predict
from models.learners.base import Learner
from models.nets.base import Net
from models.ranking import RankingNet

ROWS, CELLS = 8_192, 2**20  # that are looked at at a time, of rows x features at most
LEAST = 1e-6  # chance that is told apart from none
FEWEST = 20  # randomized rows an arm, below which effects can't be compared


@dataclass(frozen=True)
class Judge:
    """Held-out randomized rows on which nets are compared.

    Attributes:
        places: Which rows of the validation fold they are, ascending, [N].
        effects: Pseudo-effects psi of every arm over control, [N, A]; 0 for control.
    """

    places: np.ndarray
    effects: np.ndarray


def judge(prepared: Prepared) -> Judge:
    """The randomized validation rows whose outcomes were observed, with their pseudo-effects.

    Raises:
        DataError: There are too few of them.
    """
    recipe, batch = prepared.recipe, prepared.validation
    seen = batch.y_mask[:, _counted(recipe.campaign)].bool().all(dim=1)
    places = (prepared.trial & seen).nonzero().squeeze(1)
    rows = batch.select(places)
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
    q = _cross_fit(rows, recipe.shape.categories, reward, arms)
    given = np.arange(len(arm)), arm
    q[given] += (reward - q[given]) / propensity
    return Judge(places.numpy(), q - q[:, :1])


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
        """``loss``, ``score``, more of which is better, and ``effects`` where they can be measured.

        A ranking net expects no outcomes before it is finished, so its own objective is its score.
        """
        rows = self.rows
        if isinstance(net, RankingNet):
            loss = mean_loss(net, rows)
            return {"loss": loss, "score": -loss}
        predicted = predict(net, rows.x_num.cpu().numpy(), rows.x_cat.cpu().numpy())
        factual = factual_loss(net, predicted, rows)
        loss = (
            factual if isinstance(net, Learner) else mean_loss(net, rows)
        )  # a learner has no other
        measured = {"loss": loss, "score": -factual}
        if self.judge is not None:
            mine = predicted[self.judge.places].astype(np.float64)
            outcomes = self.recipe.scaler.restore(mine)
            measured["effects"] = objective(outcomes, self.judge, self.recipe.campaign)
        return measured


def factual_loss(net: nn.Module | Learner, predicted: np.ndarray, rows: Batch) -> float:
    """Loss of the outcomes that were observed, under the arms that were given.

    Args:
        net: Tells which binary outcomes it takes for chances; a learner takes none, as nets under ``mse``.
        predicted: What it expects of the rows in training units, [N, A, K].
        rows: Their arms, outcomes, masks and weights.
    """
    rows = rows.to("cpu")
    given = torch.from_numpy(predicted)[torch.arange(len(rows)), rows.arm].double()
    y = torch.where(rows.y_mask > 0, rows.y, 0.0).double()
    loss = (given - y).square()
    if isinstance(net, nn.Module):
        chance = given.clamp(LEAST, 1.0 - LEAST)
        entropy = functional.binary_cross_entropy(chance, y.clamp(0.0, 1.0), reduction="none")
        loss = torch.where(cast(Net, bare(net)).logistic.cpu(), entropy, loss)
    return float((loss * rows.y_mask * rows.weight[:, None]).sum(1).mean())


def mean_loss(net: nn.Module, rows: Batch) -> float:
    """The loss of a net over all rows, by their number; of a cohort, where it ranks one."""
    most = max(min(ROWS, CELLS // cast(Net, net).shape.features), 1)
    if isinstance(net, RankingNet):
        return net.cohort_loss(rows, most)
    total = 0.0
    for part in torch.arange(len(rows), device=rows.arm.device).split(most):
        total += float(cast(Net, net).loss(rows.select(part))["loss"]) * len(part)
    return total / len(rows)


def _counted(campaign: Campaign) -> list[int]:
    """The outcomes that the campaign's objective is made of."""
    counted = [k for k, value in enumerate(campaign.values) if value]
    if campaign.cost_outcome is not None and campaign.budget.min_return:
        counted.append(campaign.cost_outcome)
    return counted


def _cross_fit(
    rows: Batch, categories: tuple[int, ...], reward: np.ndarray, arms: int
) -> np.ndarray:
    """Ridge of the reward on features, one an arm, for each half of the rows from the other; [N, A].

    Its sums are gathered from pieces of rows: all of them as one table of float64 would be more
    memory than training takes.
    """
    arm, half = rows.arm.numpy(), np.arange(len(rows)) % 2
    pieces = [slice(start, start + ROWS) for start in range(0, len(rows), ROWS)]
    width = _design(rows, categories, slice(0, 0)).shape[1]
    gram = np.tile(np.eye(width), (2, arms, 1, 1))
    moment = np.zeros((2, arms, width))
    for piece in pieces:
        design = _design(rows, categories, piece)
        for side in (0, 1):
            for a in range(arms):
                learn = (half[piece] != side) & (arm[piece] == a)
                gram[side, a] += design[learn].T @ design[learn]
                moment[side, a] += design[learn].T @ reward[piece][learn]
    fitted = np.linalg.solve(gram, moment[..., None])[..., 0]
    q = np.empty((len(rows), arms))
    for piece in pieces:
        design = _design(rows, categories, piece)
        for side in (0, 1):
            q[piece][half[piece] == side] = design[half[piece] == side] @ fitted[side].T
    return q


def _design(rows: Batch, categories: tuple[int, ...], piece: slice) -> np.ndarray:
    """1, numbers and one column an id of vocabularies that are small enough, [n, .] float64."""
    numbers, ids = rows.x_num[piece].numpy(), rows.x_cat[piece].numpy()
    small = [column for column, size in enumerate(categories) if size <= 64]
    one_hot = [np.eye(categories[column])[ids[:, column]] for column in small]
    return np.concatenate([np.ones((len(numbers), 1)), numbers, *one_hot], axis=1)
