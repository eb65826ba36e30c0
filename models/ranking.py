"""What ranking nets share: a cohort's aggregated effects under a gate, and effects from scores.

A ranking net scores units, not effects. A gate g_a(x) >= 0 says how much of each (unit, arm) pair is
selected, and the net is trained on what the selection gains and costs altogether:

    tau_ak = sum_{i: A=a} w_i g_a(x_i) y_ik / sum_{i: A=a} w_i g_a(x_i)
           - sum_{i: A=0} w_i g_a(x_i) y_ik / sum_{i: A=0} w_i g_a(x_i)

with w = 1 / p of the arm that was given (Hajek means, so the outcomes' shift cancels). The value of a
selection is sum_k worth_k tau_ak, its cost the arm's unit cost or the effect on the outcome that is a
cost, and arms are put together by their share of the selection, sum_i g_a(x_i) over all rows: one
cohort of (unit, arm) pairs. With one treated arm that is the papers' two-sided gating.

Sources: Du, Lee & Ghaffarizadeh 2019, "Improve User Retention with Causal Learning"; Zou et al. 2020,
"Heterogeneous Causal Learning for Effectiveness Optimization in User Marketing"; and
"Heterogeneous Causal Learning for Optimizing Aggregated Functions in User Growth" (2507.05510).
Where the papers are silent we chose:

* Mini-batches. The gate is normalised over the whole cohort, a step sees a part of it, and the ratio
  of a part's sums is another function. So the sums S (of g, of w g and of w g y) are running means
  over rows: S <- S + (S_b - S) n_b / min(n seen, ``memory``), this batch's part always as it is now.
  The objective is taken at S, its gradient as f'(S) dS_b: over a pass with still weights these
  gradients average to that of the whole cohort (compositional optimization: Wang, Fang & Liu 2017).
  What lags is S itself, by ``memory`` rows.
* Workers. S_b is averaged over the workers, each has its own rows' gradient, and averaging gradients
  gives that of all rows.
* Noise. With ``baseline`` outcomes are taken less m(x), a regression of its own on the same rows.
  Both arms lose the same in expectation, and the sums most of their variance.
* Units. Effects are relative to those of treating everyone (the gate 1, whose sums are kept
  alongside), or to ``LEAST`` standard deviations of the outcomes where those are smaller.
* Effects. After training :mod:`models.calibration` turns scores into effects, in the scores' order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from models.calibration import KNOTS, fit_curves
from models.data import Batch, Shape
from models.layers import MLP, FeatureVector
from models.nets.base import Net
from models.space import Config, OneOf, Span, flag, integer, real

LEAST = 0.02  # standard deviations of the outcomes, below which an average effect is as good as 0


@dataclass(frozen=True)
class RankingConfig(Config):
    """Settings that ranking nets share."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Width of a hidden layer.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Hidden layers.", search=Span(1, 3))
    dropout: float = real(0.1, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    baseline: bool = flag(True, "Take outcomes less what a regression expects anyway.")
    memory: int = integer(32_768, 1, 10**9, "Rows that the cohort's running sums go back.")


class Effects(NamedTuple):
    """A cohort's aggregated effects; the last of the Q + 1 gates treats everyone.

    Attributes:
        size: Mean gate, a share of the rows, [Q + 1, A - 1].
        value, cost: Effects within the gate, relative to :meth:`RankingNet.units`, [Q + 1, A - 1].
    """

    size: Tensor
    value: Tensor
    cost: Tensor

    def of_pairs(self) -> tuple[Tensor, Tensor]:
        """Value and cost of a selected pair, on average, [Q + 1] each."""
        share = self.size / self.size.sum(-1, keepdim=True).clamp_min(1e-30)
        return (share * self.value).sum(-1), (share * self.cost).sum(-1)

    def of_cohort(self) -> tuple[Tensor, Tensor]:
        """Value and cost of the selection a pair of the cohort, selected or not, [Q + 1] each."""
        return (self.size * self.value).mean(-1), (self.size * self.cost).mean(-1)


class RankingNet(Net):
    """Base of the ranking nets; a subclass answers :meth:`gates` and :meth:`objective`.

    Args:
        shape: The campaign's shape.
        config: Settings.
        gates: Q, selections that are looked at side by side.

    Attributes:
        randomized: It learns from randomized rows alone: chosen rows have no control to compare with.
    """

    couples_rows: ClassVar[bool] = True
    randomized: ClassVar[bool] = True
    running: Tensor
    seen: Tensor
    knots: Tensor
    effects: Tensor
    control: Tensor
    worth: Tensor
    unit_costs: Tensor

    def __init__(self, shape: Shape, config: RankingConfig, gates: int = 1) -> None:
        super().__init__(shape)
        self.memory = config.memory
        treated, outcomes = shape.arms - 1, shape.outcome_count
        hidden = [config.width] * config.layers
        self.features = FeatureVector(shape, config.embedding)
        self.ranker = MLP(self.features.width, hidden, treated, config.dropout)
        self.usual = Usual(shape, config) if config.baseline else None
        self.register_buffer("worth", torch.tensor(shape.values), persistent=False)
        self.register_buffer("unit_costs", torch.tensor(shape.arm_costs[1:]), persistent=False)
        self.register_buffer("running", torch.zeros(gates + 1, treated, 1 + 4 * outcomes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("knots", torch.linspace(-1.0, 1.0, KNOTS).repeat(treated, 1))
        slope = torch.linspace(-1.0, 1.0, KNOTS)[:, None].repeat(treated, 1, outcomes)
        self.register_buffer("effects", 1e-3 * slope)
        self.register_buffer("control", torch.zeros(outcomes))

    def gates(self, scores: Tensor) -> Tensor:
        """How much of each pair is selected, [B, Q, A - 1], of the treated arms' scores [B, A - 1]."""
        raise NotImplementedError

    def objective(self, effects: Effects) -> Tensor:
        """What to minimise, a scalar."""
        raise NotImplementedError

    def scores(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Scores of every arm, [B, A] within [-1, 1]; 0 for control. More is better."""
        scores = self.ranker(self.features(x_num, x_cat)).float().tanh()
        return functional.pad(scores, (1, 0))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The objective of the cohort, and the regression's loss where there is one."""
        scores = self.scores(batch.x_num, batch.x_cat)[:, 1:]
        if self.usual is None:
            objective = self.aggregate(scores, batch.y, batch)
            return {"loss": objective, "objective": objective}
        expected = self.usual(batch.x_num, batch.x_cat)
        objective = self.aggregate(scores, batch.y - expected.detach(), batch)
        squares = (expected - batch.y).square() * batch.y_mask * batch.weight[:, None]
        baseline = squares.mean(0).sum()
        return {"loss": objective + baseline, "objective": objective, "baseline": baseline}

    @torch.no_grad()
    def cohort_loss(self, rows: Batch, size: int) -> float:
        """The objective of all the rows as one cohort; the net reads ``size`` of them at a time."""
        parts = [
            rows.select(part) for part in torch.arange(len(rows)).to(rows.arm.device).split(size)
        ]
        scores = torch.cat([self.scores(part.x_num, part.x_cat)[:, 1:] for part in parts])
        y = rows.y
        if self.usual is not None:
            y = y - torch.cat([self.usual(part.x_num, part.x_cat) for part in parts])
        return float(self.aggregate(scores, y, rows))

    def aggregate(self, scores: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """The objective of scores [B, A - 1] and outcomes [B, K]; running sums in training."""
        with torch.autocast(scores.device.type, enabled=False):
            gates = self.gates(scores.float())
            sums = cohort_sums(functional.pad(gates, (0, 0, 0, 1), value=1.0), y.float(), batch)
            return self.objective(self.relative(self.remembered(sums, len(batch))))

    def remembered(self, sums: Tensor, rows: int) -> Tensor:
        """The running sums, this batch's part included, with this batch's gradient."""
        if not self.training:
            return sums
        with torch.no_grad():
            whole = mean_over_workers(sums)
            each = mean_over_workers(sums.new_tensor(rows))  # workers' parts differ by a row
            count = int((each * workers()).round())
            self.seen += count
            share = count / self.seen.clamp(count, max(self.memory, count))
            self.running.lerp_(whole, share.to(whole.dtype))
        return self.running.clone() + (sums - sums.detach())

    def relative(self, sums: Tensor) -> Effects:
        """Effects of sums [Q + 1, A - 1, 1 + 4 K], relative to :meth:`units`."""
        mass, total = sums[..., 1:].unflatten(-1, (2, 2, -1)).unbind(-2)  # [Q + 1, A - 1, 2, K]
        mean = total / torch.where(mass > 0, mass, 1.0)
        both = (mass > 0).all(-2)
        tau = torch.where(both, mean[..., 1, :] - mean[..., 0, :], 0.0)
        cost = self.unit_costs.expand(tau.shape[:2])
        if self.shape.cost_outcome is not None:
            cost = tau[..., self.shape.cost_outcome] * self.shape.cost_scale
        effects = Effects(sums[..., 0], tau @ self.worth, cost)
        value_unit, cost_unit = self.units(effects)
        return Effects(effects.size, effects.value / value_unit, effects.cost / cost_unit)

    def units(self, effects: Effects) -> tuple[Tensor, Tensor]:
        """Size of the value and of the cost of treating everyone, a pair, or the least that counts."""
        value, cost = (each[-1].detach().abs() for each in effects.of_pairs())
        paid = self.shape.cost_scale if self.shape.cost_outcome is not None else 0.0
        least = (LEAST * each + 1e-12 for each in (math.hypot(*self.shape.values), paid))
        return value.clamp_min(next(least)), cost.clamp_min(next(least))

    def finish(self, rows: Batch) -> None:
        """Learn what scores gain from randomized rows, after training: :meth:`potential_outcomes`."""
        scores = []
        with torch.no_grad():
            for part in torch.arange(len(rows)).split(65_536):
                few = rows.select(part.to(rows.arm.device)).to(self.knots.device)
                scores.append(self.scores(few.x_num, few.x_cat)[:, 1:].cpu().numpy())
        curves = fit_curves(np.concatenate(scores), rows, self.shape)
        for name, values in vars(curves).items():
            getattr(self, name).copy_(torch.as_tensor(values, dtype=torch.float32))

    def potential_outcomes(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Control's mean, and with it the effects that scores had in :meth:`finish`'s rows: [B, A, K]."""
        scores = self.scores(x_num, x_cat)[:, 1:].T.contiguous()
        above = torch.searchsorted(self.knots, scores).clamp(1, KNOTS - 1)  # [A - 1, B]
        left, right = self.knots.gather(1, above - 1), self.knots.gather(1, above)
        part = ((scores - left) / (right - left).clamp_min(1e-12)).clamp(0.0, 1.0)[..., None]
        arms = torch.arange(len(self.knots), device=above.device)[:, None]
        effects = torch.lerp(self.effects[arms, above - 1], self.effects[arms, above], part)
        outcomes = self.control + functional.pad(effects.transpose(0, 1), (0, 0, 1, 0))
        floor = torch.where(self.binary, 0.0, -torch.inf)
        return outcomes.clamp(floor, torch.where(self.binary, 1.0, torch.inf))


class Usual(nn.Module):
    """m(x): the outcomes that are to be expected whatever the arm, [B, K]."""

    def __init__(self, shape: Shape, config: RankingConfig) -> None:
        super().__init__()
        self.features = FeatureVector(shape, config.embedding)
        hidden = [config.width] * config.layers
        self.rest = MLP(self.features.width, hidden, shape.outcome_count, config.dropout)

    def forward(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        return self.rest(self.features(x_num, x_cat)).float()


def cohort_sums(gates: Tensor, y: Tensor, batch: Batch) -> Tensor:
    """Sums over rows, divided by their number, under gates [B, Q, T] (T treated arms).

    Returns:
        [Q, T, 1 + 4 K]: of g over all rows; then of w g and w g y of each outcome (where observed)
        over control, and the same over the arm's rows.
    """
    inverse = (batch.weight / batch.propensity)[:, None]
    terms = inverse * torch.cat([batch.y_mask, batch.y_mask * y], dim=1)  # [B, 2 K]
    given = functional.one_hot(batch.arm, gates.shape[-1] + 1).to(terms.dtype)
    size = torch.einsum("bqt,b->qt", gates, batch.weight)[..., None]
    control = torch.einsum("bqt,bj->qtj", gates, given[:, :1] * terms)
    treated = torch.einsum("bqt,bt,bj->qtj", gates, given[:, 1:], terms)
    return torch.cat([size, control, treated], dim=-1) / len(batch)


def workers() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_workers(values: Tensor) -> Tensor:
    """The workers' sum of a tensor; its gradient reaches every worker's part."""
    if workers() == 1:
        return values
    from torch.distributed.nn.functional import all_reduce

    return cast(Tensor, all_reduce(values))


def mean_over_workers(values: Tensor) -> Tensor:
    """The workers' mean of a tensor, without gradient."""
    if (count := workers()) == 1:
        return values.detach()
    values = values.detach().clone()
    dist.all_reduce(values)
    return values / count
