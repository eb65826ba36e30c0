"""Hydranet: Dragonnet for several treatments, regularized towards each effect against control.

Velasco-Regulez & Cerquides 2023, "Hydranet: a neural network for the estimation of multi-valued
treatment effects". A trunk under a head a treatment and a softmax that predicts the treatment, as in
:mod:`models.nets.dragonnet`. Targeted regularization has an epsilon for every treated arm, and

    H_a(t, x) = 1[t = a] / g_a(x) - 1[t = 0] / g_0(x)

so that the loss of Q(t, x) + sum_a epsilon_a H_a(t, x) is least in epsilon where the estimating
equation of each average effect E[Y(a) - Y(0)] holds. A control row is moved by all of them. Our
Dragonnet takes arms one by one instead, control too, and targets their mean outcomes: a larger
family, which has this one in it. Where the paper is silent we chose:

* Weights, g (from the log, by default), its floor, answers and binary outcomes as Dragonnet has
  them. Heads have two hidden layers, as the paper's; H is divided by A, which epsilon makes good.
* Several outcomes. An epsilon for every treated arm and outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.catalog import Entry, Supports
from models.data import Shape
from models.nets.dragonnet import SMALLEST, Dragonnet, DragonnetConfig
from models.space import Span, integer


@dataclass(frozen=True)
class HydranetConfig(DragonnetConfig):
    """Settings of Hydranet: Dragonnet's."""

    head_layers: int = integer(2, 0, 16, "Hidden layers of a head.", search=Span(0, 2))


class Hydranet(Dragonnet):
    """Dragonnet whose targeted regularization is about effects."""

    def __init__(self, shape: Shape, config: HydranetConfig) -> None:
        super().__init__(shape, config)
        self.epsilon = nn.Parameter(torch.zeros(shape.arms - 1, shape.outcome_count))

    def fluctuation(self, arm: Tensor, propensity: Tensor) -> Tensor:
        """sum_a epsilon_a H_a, [B, K], for the arms given [B] and their probabilities [B]."""
        signed = torch.cat([-self.epsilon.sum(0, keepdim=True), self.epsilon])
        chances = self.shape.arms * propensity
        return signed[arm] / chances.clamp_min(SMALLEST)[:, None]


ENTRY = Entry(
    name="hydranet",
    net=Hydranet,
    config=HydranetConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Velasco-Regulez & Cerquides 2023, Hydranet: a neural network for the estimation of "
    "multi-valued treatment effects",
)
