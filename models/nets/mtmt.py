"""MTMT: tiered treatment effects for several treatments and several outcomes.

Paper: "MTMT: Tiered Treatment Effect Decomposition for Multi-Task Uplift Modeling" (equations 2-9).
Where it is silent we chose:

* Experts. The paper takes ResNet18; ours are small residual networks over the feature tokens
  (:class:`models.layers.ResidualExperts`), so that phi^k keeps one token a feature, as eq. 6 needs.
* Other encoders, which the paper allows if their dimensions fit. ``ple``: the experts of an outcome
  apart from shared ones, ``experts`` in all for each outcome, half of them its own (one level of
  Tang et al. 2020, :class:`models.experts.Extraction`). ``apem``: patterns at inducing points, at a
  cost linear in the features (:class:`models.patterns.PatternEncoder`). ``resnet`` and ``mlp`` are
  one network for all outcomes.
* Single-task form (the paper's tables 1 and 4): ``multi_task`` off makes a net an outcome that
  shares nothing with the others, each with one residual network in place of the mixture. Members of
  an ensemble then share nothing either.
* Weights. The projections of eq. 6 and the heads are per task; the base and the incremental path
  each have their own; the two enhancers are shared by the tasks. Control levels have no embedding.
* First weights. Training starts with heads of 0, everybody at the average response and at no effect:
  effects drawn at random have to be unlearned first, for which rare outcomes leave too few rows.
* Several factors. The "secondary treatment" is the arm: the sum of its levels' embeddings.
* Binary outcomes under ``loss="bce"``: natural response, base and increment are added as logits.
* One treated arm has no increment: base alone, as the paper's single-treatment runs.
* Without interaction (table 3), psi = (epsilon phi^T) phi / T: two plain matrix products.
* Without tiers, the base path alone has one head an arm. Without tasks, one phi (the mean over
  tasks) carries a joint path with one head an outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.experts import Extraction
from models.layers import (
    MLP,
    ArmEmbedding,
    FeatureTokens,
    Heads,
    MMoE,
    ResidualExperts,
    Stacked,
    softmax,
    uniform,
)
from models.nets.base import LOSSES, Net, NetConfig
from models.patterns import PatternEncoder, advance
from models.products import matmul
from models.space import OneOf, Span, choice, flag, integer, real


@dataclass(frozen=True)
class MTMTConfig(NetConfig):
    """Settings of MTMT; the flags after ``centre`` are the ablations of table 3."""

    width: int = integer(16, 2, 512, "Width of a feature's token.", search=OneOf(8, 16, 24))
    experts: int = integer(4, 1, 64, "Experts of the encoder.", search=Span(2, 6))
    blocks: int = integer(1, 1, 16, "Residual blocks in an expert.", search=Span(1, 2))
    hidden: int = integer(64, 2, 4096, "Width inside a block.", search=OneOf(32, 64))
    enhancer_width: int = integer(64, 2, 4096, "Width inside an enhancer.", search=OneOf(32, 64))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout inside the blocks.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes (eq. 9 has mse).")
    centre: bool = flag(True, "Increments sum to 0 over the treated arms: base is their mean.")
    encoder: str = choice(
        "mmoe", ("mmoe", "ple", "apem", "resnet", "mlp"), "Encoder of the user's features."
    )
    points: int = integer(16, 1, 1024, "Inducing points of the apem encoder.")
    trees: int = integer(
        4, 0, 64, "Bags of boosted trees that have two thirds of the answer; 0: none."
    )
    multi_task: bool = flag(True, "One net for all outcomes, not one an outcome.")
    interaction: bool = flag(True, "Co-attention of treatment and features (eq. 6).")
    enhancer: bool = flag(True, "MLPs on the treatment-aware features (eq. 7).")
    tiered: bool = flag(True, "Base and incremental effects, each on a path of its own.")
    task_wise: bool = flag(True, "Effects estimated per outcome, not jointly.")


class SharedEncoder(nn.Module):
    """One network for all tasks, no gates: [B, F] -> [B, K, F]."""

    def __init__(self, tasks: int, network: nn.Module) -> None:
        super().__init__()
        self.tasks, self.network = tasks, network

    def forward(self, x: Tensor) -> Tensor:
        encoded = self.network(x)
        return encoded.reshape(len(x), 1, -1).expand(-1, self.tasks, -1)


class PLEEncoder(nn.Module):
    """Experts of each task and experts of all, a gate a task: [B, F] -> [B, K, F]."""

    def __init__(
        self, tasks: int, experts: int, width: int, hidden: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        own = max(experts // 2, 1)
        shared = max(experts - own, 1)
        every = ResidualExperts(tasks * own + shared, width, hidden, blocks, dropout)
        gate = Stacked(tasks, width, own + shared)
        self.extraction = Extraction(tasks, own, shared, experts=every, gate=gate)

    def forward(self, x: Tensor) -> Tensor:
        return self.extraction(x).transpose(0, 1)


def encoder(config: MTMTConfig, tasks: int, tokens: int) -> nn.Module:
    """The user feature encoder, [B, F] -> [B, K, F]: eq. 2-3, or another in its place."""
    width = tokens * config.width
    sizes = (width, config.hidden, config.blocks, config.dropout)
    if config.encoder == "mmoe":
        return MMoE(tasks, config.experts, *sizes)
    if config.encoder == "ple":
        return PLEEncoder(tasks, config.experts, *sizes)
    if config.encoder == "apem":
        return PatternEncoder(tasks, tokens, config.width, config.points, config.hidden)
    if config.encoder == "resnet":
        return SharedEncoder(tasks, ResidualExperts(1, *sizes))
    hidden = [config.hidden] * config.blocks
    return SharedEncoder(tasks, MLP(width, hidden, width, config.dropout))


class EffectPath(nn.Module):
    """A path from treatments to effects: projections of eq. 6, enhancer and heads of eq. 7.

    The key projection is folded into the query and the value projection follows the weighted sum:
    the numbers of eq. 6, with matmuls over Q treatments in place of T tokens.

    Args:
        tasks: K outcomes.
        heads: H effects read from each treatment: 1, or A - 1 without tiers.
        bias: Whether heads have one; centring would take it away again.
    """

    def __init__(self, config: MTMTConfig, tasks: int, heads: int = 1, bias: bool = True) -> None:
        super().__init__()
        width, hidden = config.width, [config.enhancer_width]
        self.tasks, self.paths = tasks, tasks if config.task_wise else 1
        sizes = (self.paths, width, width)
        self.query = uniform(*sizes, fan=width) if config.interaction else None
        self.key = uniform(*sizes, fan=width) if config.interaction else None
        self.value = uniform(*sizes, fan=width) if config.interaction else None
        self.enhancer = MLP(width, hidden, width) if config.enhancer else nn.Identity()
        self.weight = uniform(tasks, width, heads, fan=width)
        self.bias = nn.Parameter(torch.zeros(heads, tasks)) if bias else None

    def ask(self, treatments: Tensor) -> Tensor:
        """What treatments [Q, d] look for in a token, [paths, Q, d]."""
        if self.query is None or self.key is None:
            return treatments.expand(self.paths, -1, -1)
        return treatments @ self.query @ self.key.mT

    def effects(self, answer: Tensor) -> Tensor:
        """Effects [B, Q * H, K] of the attention's answer [B, paths, Q, d]."""
        psi = answer
        if self.value is not None:
            psi = torch.einsum("bkqd,kde->bkqe", answer, self.value)
        refined = self.enhancer(psi).expand(-1, self.tasks, -1, -1)
        effects = torch.einsum("bkqd,kdh->bqhk", refined, self.weight)
        return (effects if self.bias is None else effects + self.bias).flatten(1, 2)


class MTMT(Net):
    """Multi-treatment multi-task uplift network."""

    chains = True
    trunk = ("tokens", "encoder")
    zeroed = ("natural.weight", "base.weight", "increment.weight")

    def __init__(self, shape: Shape, config: MTMTConfig) -> None:
        super().__init__(shape, config.loss)
        self.config = config
        self.single = nn.ModuleList([] if config.multi_task else single_tasks(shape, config))
        if not config.multi_task:
            return
        tasks, width, treated = shape.outcome_count, config.width, shape.arms - 1
        several = config.tiered and treated > 1
        self.tokens = FeatureTokens(shape, width)
        self.encoder = encoder(config, tasks, shape.features)
        self.natural = Heads(tasks, shape.features * width)
        self.base_treatment = nn.Parameter(torch.randn(1, width))
        self.base = EffectPath(config, tasks, heads=1 if config.tiered else treated)
        self.arm_treatments = ArmEmbedding(shape.levels, width) if several else None
        bias = not config.centre
        self.increment = EffectPath(config, tasks, bias=bias) if several else None

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        if not self.config.multi_task:
            return torch.cat([net.links(x_num, x_cat) for net in self.alone()], dim=-1)
        natural, base, increments = self.tiers(self.encode(x_num, x_cat))
        return torch.cat([natural, natural + base + increments], dim=1)  # eq. 8, every arm

    def alone(self) -> list[MTMT]:
        """The nets of the single-task form, one an outcome."""
        return [cast(MTMT, net) for net in self.single]

    def encode(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """phi of every task, one row a feature token: [B, K, T, d] (eq. 2)."""
        tokens = self.tokens(x_num, x_cat)
        return self.encoder(tokens.flatten(1)).unflatten(-1, tokens.shape[1:])

    def ask(self) -> Tensor:
        """The queries of the base treatment, then of each arm with a path: [paths, Q, d]."""
        asked = [self.base.ask(self.base_treatment)]
        if self.increment is not None and self.arm_treatments is not None:
            asked.append(self.increment.ask(self.arm_treatments()[1:]))
        return torch.cat(asked, dim=1)

    def tiers(self, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The terms of eq. 8 in link space: natural [B, 1, K], base [B, 1, K] ([B, A - 1, K] without
        tiers) and increments [B, A - 1, K].
        """
        natural = self.natural(phi.flatten(2)).unsqueeze(1)
        answer = self.interact(phi)
        base = self.base.effects(answer[:, :, :1])
        if self.increment is None:
            return natural, base, base.new_zeros(len(base), self.shape.arms - 1, base.shape[-1])
        increments = self.increment.effects(answer[:, :, 1:])
        if self.config.centre:
            increments = increments - increments.mean(1, keepdim=True)
        return natural, base, increments

    def interact(self, phi: Tensor) -> Tensor:
        """Tokens summed by the attention that each treatment pays them, [B, paths, Q, d] (eq. 6)."""
        return matmul(self.attention(phi), self.shared(phi))

    def attention(self, phi: Tensor) -> Tensor:
        """The weights of eq. 6, [B, paths, Q, T]; they sum to 1 over the tokens."""
        products = matmul(self.ask(), self.shared(phi).mT)
        if not self.config.interaction:
            return products / phi.shape[-2]
        return softmax(products / math.sqrt(phi.shape[-1]))

    def shared(self, phi: Tensor) -> Tensor:
        """phi of the effect paths: one a task, or one for all (their mean)."""
        return phi if self.config.task_wise else phi.mean(1, keepdim=True)

    def terms(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, ...]:
        """The terms of eq. 8 as in :meth:`tiers`, and the attention of eq. 6, [B, Q, paths, T]."""
        if not self.config.multi_task:
            each = zip(*(net.terms(x_num, x_cat) for net in self.alone()))
            return tuple(torch.cat(terms, dim=2) for terms in each)
        phi = self.encode(x_num, x_cat)
        return *self.tiers(phi), self.attention(phi).transpose(1, 2)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 9, averaged over rows: the terms ``control`` and ``treated`` and their sum."""
        if self.training:
            advance(self)  # selectors of the apem encoder
        row_loss = self.outcome_loss(self.factual(batch), batch).sum(1)
        treated = row_loss * (batch.arm > 0)
        control = row_loss - treated
        return {"loss": row_loss.mean(), "control": control.mean(), "treated": treated.mean()}

    def parts(self, x_num: Tensor, x_cat: Tensor) -> dict[str, Tensor]:
        """The decomposition of eq. 1, on the scale of the outcomes.

        ``natural + base + incremental`` is :meth:`potential_outcomes` of the treated arms. The
        reference y(1) is the mean over the treated arms where ``centre`` is on (increments sum to
        0) or there are no tiers, else the response to the base effect alone.

        Returns:
            ``natural`` [B, K], ``base`` [B, K], ``incremental`` [B, A - 1, K] and ``attention``
            [B, A, K, T] over the feature tokens (``Encoder.names``): of the base treatment at 0, of
            arm a at a (that of the base where arms have no path of their own).
        """
        natural, base, increments, attention = self.terms(x_num, x_cat)
        outcomes = self.respond(torch.cat([natural, natural + base + increments], dim=1))
        reference = outcomes[:, 1:].mean(1)
        if self.config.tiered and not self.config.centre:
            reference = self.respond(torch.cat([natural, natural + base], dim=1))[:, 1]
        arms, tasks = self.shape.arms, self.shape.outcome_count
        return {
            "natural": outcomes[:, 0],
            "base": reference - outcomes[:, 0],
            "incremental": outcomes[:, 1:] - reference[:, None],
            "attention": attention.expand(-1, arms, tasks, -1).float(),
        }


def single_tasks(shape: Shape, config: MTMTConfig) -> list[MTMT]:
    """A net for each outcome alone."""
    mixture = config.encoder in ("mmoe", "ple")
    alone = replace(config, multi_task=True, encoder="resnet" if mixture else config.encoder)
    plain = replace(shape, sequence=(), worth=(), costs=(), cost_outcome=None)
    return [MTMT(replace(plain, outcomes=(kind,)), alone) for kind in shape.outcomes]


ENTRY = Entry(
    name="mtmt",
    net=MTMT,
    config=MTMTConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="MTMT: Tiered Treatment Effect Decomposition for Multi-Task Uplift Modeling",
    training={"epochs": 6},  # decisions of ten in 0.6 of the time (docs/benchmarks.md, Decisions)
)
