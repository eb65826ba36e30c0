"""Constrained ranking: the value effect within a top share of scores, its cost held by a barrier.

Zou et al. 2020, "Heterogeneous Causal Learning for Effectiveness Optimization in User Marketing", and
"Heterogeneous Causal Learning for Optimizing Aggregated Functions in User Growth" (2507.05510). The
gate is sigmoid((s - s_q) / T) around the score s_q that leaves a share q above it; what is maximised
is the value effect within the gate, subject to its cost effect. What ranking nets share, several
arms, mini-batches and workers: :mod:`models.ranking`; the loss couples rows. Where the papers are
silent we chose:

* The sort. s_q is exact, the element of the sorted scores. Its gradient is that of the soft quantile
  that keeps the mean gate: sum_i k_i ds_i / sum_i k_i with k the gate's slope (straight through).
  So scores that all move alike move no gate.
* The constraint: the selection costs at most ``cost_share`` of what as many pairs cost on average.
  The barrier is the extended logarithmic one (Kervadec et al. 2019): -log(-z) / t inside, and a line
  of slope t from z = -1 / t^2 on, so that training may start outside.
* Operating points. One q tells the order around s_q alone. ``points`` of them are spread evenly over
  (0, 1) and their losses averaged, each in proportion to its share; 1 is the papers' single ``share``.
* T is relative to the scores' standard deviation, so that it means the same throughout training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from models.catalog import Entry, Supports
from models.data import Shape
from models.ranking import Effects, RankingConfig, RankingNet, sum_over_workers, workers
from models.space import integer, real


@dataclass(frozen=True)
class ConstrainedRankingConfig(RankingConfig):
    """Settings of constrained ranking."""

    points: int = integer(9, 1, 99, "Operating points q, spread evenly; 1: that of ``share``.")
    share: float = real(0.3, 0.01, 0.99, "q, the share that is selected, where there is one point.")
    cost_share: float = real(
        1.0, 0.01, 100.0, "Most that a selected pair costs, of the average one."
    )
    temperature: float = real(0.3, 0.01, 10.0, "T of the gate, in standard deviations of scores.")
    barrier: float = real(1.25, 0.1, 1000.0, "t of the barrier: the larger the steeper.")


class ConstrainedRanking(RankingNet):
    """Smooth top-quantile gates."""

    shares: Tensor

    def __init__(self, shape: Shape, config: ConstrainedRankingConfig) -> None:
        super().__init__(shape, config, config.points)
        self.temperature, self.barrier = config.temperature, config.barrier
        self.cost_share = config.cost_share
        even = torch.arange(1, config.points + 1) / (config.points + 1)
        shares = even if config.points > 1 else torch.tensor([config.share])
        self.register_buffer("shares", shares, persistent=False)

    def gates(self, scores: Tensor) -> Tensor:
        """sigmoid((s - s_q) / T) at every operating point, [B, Q, A - 1]."""
        everywhere = gather_rows(scores)
        width = self.temperature * everywhere.std(correction=0).clamp_min(1e-6)
        cut = quantiles(everywhere, self.shares)
        gate = ((scores[:, None] - cut[:, None]) / width).sigmoid()
        slope = (gate * (1.0 - gate)).detach()
        mass = sum_over_workers(slope.sum((0, 2))).clamp_min(1e-12)
        soft = sum_over_workers((slope * scores[:, None]).sum((0, 2))) / mass
        cut = cut + (soft - soft.detach())
        return ((scores[:, None] - cut[:, None]) / width).sigmoid()

    def objective(self, effects: Effects) -> Tensor:
        """Value of a selected pair, negative, and the barrier of its cost; the mean over the points."""
        value, cost = (each[:-1] / self.shares for each in effects.of_cohort())
        limit = self.cost_share
        return (log_barrier(cost / limit - 1.0, self.barrier) - value).mean()


def log_barrier(excess: Tensor, steepness: float) -> Tensor:
    """Of z <= 0: -log(-z) / t up to z = -1 / t^2, from there on its tangent of slope t."""
    t, edge = steepness, -1.0 / steepness**2
    inside = -(-excess.clamp_max(edge)).log() / t
    return inside + t * (excess - edge).clamp_min(0.0)


def quantiles(scores: Tensor, shares: Tensor) -> Tensor:
    """The scores that leave these shares above them, [Q]; exact, by sorting all of ``scores``."""
    ordered = scores.flatten().sort().values
    place = ((1.0 - shares) * len(ordered)).long().clamp(0, len(ordered) - 1)
    return ordered[place]


def gather_rows(scores: Tensor) -> Tensor:
    """The scores of all workers' rows, without gradient, [rows of all, A - 1]."""
    scores = scores.detach()
    if workers() == 1:
        return scores
    counts = [torch.zeros((), dtype=torch.int64, device=scores.device) for _ in range(workers())]
    dist.all_gather(counts, torch.tensor(len(scores), device=scores.device))
    most = max(int(count) for count in counts)
    padded = scores.new_zeros(most, scores.shape[1])
    padded[: len(scores)] = scores
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts)])


ENTRY = Entry(
    name="constrained_ranking",
    net=ConstrainedRanking,
    config=ConstrainedRankingConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, cost=True),
    paper="Zou et al. 2020, Heterogeneous Causal Learning for Effectiveness Optimization",
    answers="scores",
)
