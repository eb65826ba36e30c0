"""Duality R-learner: effects fit where the decision is, at the price that spends the budget.

Du, Lee & Ghaffarizadeh 2019, "Improve User Retention with Causal Learning" (its first approach, the
Lagrangian subgradient method) over the R-learner (Nie & Wager 2021, "Quasi-oracle estimation of
heterogeneous treatment effects"), as compared with in 2507.05510. To maximise value within a budget,
units are taken by r(x) - lambda c(x); the R-learner is fit to the outcome Y^r - lambda Y^c,

    sum_i w_i (U_i - m(x_i) - sum_a (1[A_i = a] - 1/A) tau_a(x_i))^2,    U = value - lambda cost,

and lambda goes up where the units with a positive effect would spend more than the budget, and down
where they would spend less. Where the papers are silent we chose:

* Several arms. Rows count w = 1 / (A p) with p the probability of the arm that was given: among rows
  so weighted every arm has the share 1/A, so only the given arm's probability has to be known. With
  two arms and p = 1/2 this is the R-loss as it is.
* Effects of every outcome. tau_a(x) of U is worth * tau_ak(x) less lambda times the arm's cost effect;
  the loss on U is added to the R-losses of the outcomes (``decision`` is its weight, relative to the
  variance of U), so that the net answers outcomes, and errors of theirs that don't matter for the
  decision cost less than those that do.
* m(x) is a network of its own, fit to the outcomes alongside; the R-loss doesn't move it.
* The budget is a share of what it costs to give everyone with a positive value their best arm. The
  price moves by ``step`` of the average return for each whole share that is spent too much.
* It learns from randomized rows alone. The price depends on the rows before, so the loss couples rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import MLP, FeatureVector
from models.nets.base import Net
from models.ranking import mean_over_workers
from models.space import Config, OneOf, Span, integer, real

MOST = 10.0  # weight of a row, at most


@dataclass(frozen=True)
class DualityRLearnerConfig(Config):
    """Settings of the duality R-learner."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Width of a hidden layer.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Hidden layers.", search=Span(1, 3))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    cost_share: float = real(0.3, 0.01, 1.0, "The budget, of what all units worth it would cost.")
    decision: float = real(1.0, 0.0, 100.0, "Weight of the R-loss of value less price times cost.")
    step: float = real(0.05, 0.0, 10.0, "How fast the price moves.")


class DualityRLearner(Net):
    """R-learner of value less price times cost, and of every outcome."""

    couples_rows = True
    randomized = True
    price: Tensor
    worth: Tensor
    unit_costs: Tensor

    def __init__(self, shape: Shape, config: DualityRLearnerConfig) -> None:
        super().__init__(shape)
        self.config = config
        treated, outcomes = shape.arms - 1, shape.outcome_count
        hidden = [config.width] * config.layers
        self.mean_features = FeatureVector(shape, config.embedding)
        self.mean = MLP(self.mean_features.width, hidden, outcomes, config.dropout)
        self.features = FeatureVector(shape, config.embedding)
        self.effect = MLP(self.features.width, hidden, treated * outcomes, config.dropout)
        self.register_buffer("worth", torch.tensor(shape.values), persistent=False)
        self.register_buffer("unit_costs", torch.tensor(shape.arm_costs), persistent=False)
        self.register_buffer("price", torch.zeros(()))

    def means(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """m(x), every outcome's mean over the arms less :attr:`start`, [B, K]."""
        return self.mean(self.mean_features(x_num, x_cat)).float()

    def effects(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """tau(x) of every arm over control, 0 for control itself, [B, A, K]."""
        tau = self.effect(self.features(x_num, x_cat)).float()
        tau = tau.unflatten(1, (self.shape.arms - 1, -1))
        return torch.cat([torch.zeros_like(tau[:, :1]), tau], dim=1)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        tau = self.effects(x_num, x_cat)
        return self.means(x_num, x_cat)[:, None] + tau - tau.mean(1, keepdim=True)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``mean`` (of m), ``effects`` (R-loss of the outcomes) and ``decision``."""
        with torch.no_grad():
            row = (batch.weight / (self.shape.arms * batch.propensity)).clamp_max(MOST)
        m = self.means(batch.x_num, batch.x_cat)
        tau = self.effects(batch.x_num, batch.x_cat)
        given = torch.nn.functional.one_hot(batch.arm, self.shape.arms).float()
        centred = given - 1.0 / self.shape.arms  # [B, A]
        left = batch.y - self.start - m.detach()
        explained = torch.einsum("ba,bak->bk", centred, tau)
        seen = batch.y_mask * row[:, None]
        terms = {
            "mean": ((batch.y - self.start - m).square() * seen).mean(0).sum(),
            "effects": ((left - explained).square() * seen).mean(0).sum(),
            "decision": self.decision(left - explained, batch, row),
        }
        if self.training:
            self.ascend(tau.detach(), row)
        return {"loss": terms["mean"] + terms["effects"] + self.config.decision * terms["decision"],
                **terms}  # fmt: skip

    def decision(self, left: Tensor, batch: Batch, row: Tensor) -> Tensor:
        """R-loss of U = value - price * cost, where all that counts was observed, a scalar.

        A unit cost that is known leaves nothing to explain, so it has no part in it.
        """
        count = self.direction()
        seen = torch.where(count != 0, batch.y_mask, 1.0).prod(1)
        variance = count.square().sum().clamp_min(1e-12)  # of outcomes that are scaled to 1
        return ((left @ count).square() / variance * seen * row).mean()

    def direction(self) -> Tensor:
        """What a unit of each scaled outcome adds to U, [K]."""
        count = self.worth.clone()
        if self.shape.cost_outcome is not None:
            count[self.shape.cost_outcome] -= self.price * self.shape.cost_scale
        return count

    def value_and_cost(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Effects on value and on cost of every arm, [B, A] each."""
        if self.shape.cost_outcome is None:
            return tau @ self.worth, self.unit_costs.expand(tau.shape[:2])
        return tau @ self.worth, tau[..., self.shape.cost_outcome] * self.shape.cost_scale

    @torch.no_grad()
    def ascend(self, tau: Tensor, row: Tensor) -> None:
        """A step of the dual: spend at this price against the budget."""
        value, cost = self.value_and_cost(tau)
        best = (value - self.price * cost).argmax(1, keepdim=True)
        dearest = value.argmax(1, keepdim=True)
        spent = torch.stack(
            [
                (cost.gather(1, best).squeeze(1) * row).mean(),
                (cost.gather(1, dearest).squeeze(1) * row).mean(),
                (value.gather(1, dearest).squeeze(1) * row).mean(),
            ]
        )
        spent, most, gain = mean_over_workers(spent)
        most = most.clamp_min(1e-6 * self.shape.cost_scale)
        over = (spent / most - self.config.cost_share).clamp(-1.0, 1.0)
        self.price.add_(self.config.step * over * gain.clamp_min(0.0) / most).clamp_min_(0.0)


ENTRY = Entry(
    name="duality_r_learner",
    net=DualityRLearner,
    config=DualityRLearnerConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, cost=True),
    paper="Du et al. 2019, Improve User Retention with Causal Learning; Nie & Wager 2021",
)
