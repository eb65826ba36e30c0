"""DRM, the direct ranking model: scores trained on the ratio of aggregated cost and value.

Du, Lee & Ghaffarizadeh 2019, "Improve User Retention with Causal Learning"; Zou et al. 2020; and
"Heterogeneous Causal Learning for Optimizing Aggregated Functions in User Growth" (2507.05510).
Scores are a network's tanh, the gate is their softmax over the treated and over control, the whole
cohort each, and what is minimised is softplus(cost effect) / softplus(value effect). What ranking
nets share, several arms, mini-batches and workers: :mod:`models.ranking`; the loss couples rows.
Where the papers are silent we chose:

* The logarithm of the ratio, which has the same minimum and a gradient of one size throughout.
* softplus(b u) / b of effects u relative to those of treating everyone. In the outcomes' own units
  softplus would be a straight line for small effects and no bound at all for large ones.
* The regularizer. The ratio alone is best with two scores, the highest for whom value / cost is above
  the cohort's ratio rho and the lowest for the rest: it ranks nobody within either half. With a
  penalty lambda * sum_i s_i^2, scores near 0 are in proportion to r(x) - rho c(x), which orders by
  profit at one price. We weigh it by cost, lambda * sum_i c(x_i) s_i^2 (the cost effect under the gate
  s^2, known from the same sums): then they are in proportion to r(x) / c(x) - rho, which is the
  ranking that is wanted at every budget. ``EVEN`` of it isn't weighed, for those who cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.catalog import Entry, Supports
from models.data import Shape
from models.ranking import Effects, RankingConfig, RankingNet
from models.space import real

EVEN = 0.15


@dataclass(frozen=True)
class DirectRankingConfig(RankingConfig):
    """Settings of the direct ranking model."""

    sharpness: float = real(1.0, 0.01, 30.0, "Scores, within -1 and 1, are times this in softmax.")
    penalty: float = real(0.3, 0.0, 100.0, "lambda, weight of the scores' squares.")
    bend: float = real(3.0, 0.1, 100.0, "b of softplus, for effects relative to the average one.")


class DirectRanking(RankingNet):
    """Softmax gating over the cohort."""

    def __init__(self, shape: Shape, config: DirectRankingConfig) -> None:
        super().__init__(shape, config, gates=2)
        self.sharpness, self.penalty, self.bend = config.sharpness, config.penalty, config.bend

    def gates(self, scores: Tensor) -> Tensor:
        """exp of the scores, which the cohort's sums normalise, and their squares: [B, 2, A - 1]."""
        return torch.stack([(self.sharpness * (scores - 1.0)).exp(), scores.square()], dim=1)

    def objective(self, effects: Effects) -> Tensor:
        """log softplus(cost) - log softplus(value) of a selected pair, and the penalty."""
        value, cost = (log_softplus(self.bend * each[0]) for each in effects.of_pairs())
        penalty = effects.of_cohort()[1][1] + EVEN * effects.size[1].mean()
        return cost - value + self.penalty * penalty


def log_softplus(z: Tensor) -> Tensor:
    """log(log(1 + e^z)), which goes to z where z is far below 0."""
    low = z < -15.0
    return torch.where(low, z, functional.softplus(torch.where(low, 0.0, z)).log())


ENTRY = Entry(
    name="direct_ranking",
    net=DirectRanking,
    config=DirectRankingConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, cost=True),
    paper="Du et al. 2019, Improve User Retention with Causal Learning; arXiv 2507.05510",
    answers="scores",
)
