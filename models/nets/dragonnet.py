"""Dragonnet: TARNet that also predicts the treatment, with targeted regularization.

Shi, Blei & Veitch 2019, "Adapting neural networks for the estimation of treatment effects". The
propensity head (eq. 2.2) has the trunk keep what the treatment depends on; targeted regularization
(eq. 3.1-3.2) adds a loss of the fluctuated outcome Q(t, x) + epsilon H(t, x), whose minimum in
epsilon solves the estimating equation of the average effects. Where the paper is silent, or has one
treatment, we chose:

* Arms. The propensity head is a softmax over arms, linear as the paper's. The paper's
  H = t / g - (1 - t) / (1 - g) with one epsilon targets one contrast. Ours has an epsilon for each
  arm and outcome, epsilon_a 1[t = a] / g_a(x): each targets the arm's mean outcome, so all their
  contrasts are targeted too. H is divided by A, which epsilon makes good: it is 1 in an even trial.
* Which g. ``propensity="logged"`` takes the probability of the arm given from the log, and is the
  default: where the arm was drawn the log holds the g that was used, and an estimate could only add
  error to it (a wrong g loses the double robustness that the term is there for). ``learned`` is the
  paper's own, gradient and all, for logs whose propensities are estimates at best.
* Binary outcomes under ``loss="bce"``: epsilon H is added to the logit, as in a logistic TMLE.
* Answers. Q, without epsilon, as the authors' code answers unit effects: H takes a g for every arm,
  and a log knows that of the arm given.
* g is kept above 0.02 / A: for two arms the authors' 0.01.
* Weights. The paper has alpha = beta = 1. In a trial the treatment is noise, and the trunk must not
  be made of it: alpha is 0.1 by default.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.nets.base import of_arm
from models.nets.tarnet import TARNet, TARNetConfig
from models.space import Span, choice, real

SMALLEST = 0.02  # no arm's propensity counts as less than this over A


@dataclass(frozen=True)
class DragonnetConfig(TARNetConfig):
    """Settings of Dragonnet: TARNet's, and those of the two terms it adds."""

    alpha: float = real(
        0.1, 0.0, 1e6, "Weight of predicting the arm.", search=Span(1e-3, 1.0, log=True)
    )
    beta: float = real(
        1.0, 0.0, 1e6, "Weight of targeted regularization.", search=Span(1e-2, 1.0, log=True)
    )
    propensity: str = choice("logged", ("logged", "learned"), "The g of eq. 3.1.")


class Dragonnet(TARNet):
    """A representation under a head an arm and a head that predicts the arm."""

    def __init__(self, shape: Shape, config: DragonnetConfig) -> None:
        super().__init__(shape, config)
        self.alpha, self.beta = config.alpha, config.beta
        self.logged = config.propensity == "logged"
        self.propensity = nn.Linear(config.width, shape.arms)
        self.epsilon = nn.Parameter(torch.zeros(shape.arms, shape.outcome_count))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 3.2: the terms ``factual``, ``arm`` and ``targeted`` and their weighted sum."""
        phi = self.representation(batch.x_num, batch.x_cat)
        links = of_arm(self.answer(phi), batch.arm).float()
        arm_loss = functional.cross_entropy(
            logits := self.propensity(phi).float(), batch.arm, reduction="none"
        )
        given = batch.propensity if self.logged else of_arm(logits.softmax(-1), batch.arm)
        terms = {
            "factual": self.factual_loss(links, batch),
            "arm": (arm_loss * batch.weight).mean(),
            "targeted": self.outcome_loss(links + self.fluctuation(batch.arm, given), batch)
            .sum(1)
            .mean(),
        }
        total = terms["factual"] + self.alpha * terms["arm"] + self.beta * terms["targeted"]
        return {"loss": total, **terms}

    def fluctuation(self, arm: Tensor, propensity: Tensor) -> Tensor:
        """epsilon H of eq. 3.1, [B, K], for the arms given [B] and their probabilities [B]."""
        chances = self.shape.arms * propensity
        return self.epsilon[arm] / chances.clamp_min(SMALLEST)[:, None]

    def propensities(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """The learned probability of each arm, [B, A]."""
        return self.propensity(self.representation(x_num, x_cat)).float().softmax(-1)


ENTRY = Entry(
    name="dragonnet",
    net=Dragonnet,
    config=DragonnetConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Shi et al. 2019, Adapting neural networks for the estimation of treatment effects",
)
