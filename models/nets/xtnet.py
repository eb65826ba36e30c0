"""XTNet: basic effects of single treatments, and cross effects under dynamic masks.

Paper: "Cross-Treatment Effect Estimation for Multi-Category, Multi-Valued Causal Inference via
Dynamic Neural Masking" (sections 4.1-4.5). On a shared bottom phi(x),

    y(t | x) = BasicNet(x, beta(t)) + EffectNet(x, t),

BasicNet answers the effect of the dominant treatment beta(t), EffectNet what treatments do to each
other, its weights W_l multiplied by masks M_l(t) that are linear in the treatment vector t. The loss
is the factual loss plus lambda times a Sinkhorn distance between the treatment groups' phi. Where
the paper is silent we chose:

* Treatment vector. One entry for each level of each factor that isn't control, 1 where the arm has
  it: t [V]. A mask is M_l(t) = 1 + sum_v t_v m_{l,v}, so arms share all that their levels share and
  a campaign of hundreds of arms has parameters for V levels.
* BasicNet. Natural response and an effect for each level given alone.
* Dominance. beta(t) is, for each unit and outcome, the factor whose effect alone is the largest in
  size. Where two tie with one sign the answer doesn't jump. ``dominance=False`` adds up the effects
  of all factors instead.
* Cross effects are those of two factors or more: EffectNet counts only where the arm has as many
  away from control. That tells the two nets apart: what is seen of an arm with one is BasicNet's.
* Isolated treatments. The paper trains BasicNet on rows with one factor away from control first.
  Ours is a term of the loss that counts those rows again (``isolated``), not a phase: it has no
  schedule to tune or resume, small batches can't miss it, and the shared bottom is never trained
  for one part alone. The rows of combinations train both nets: where arms are many, isolated rows
  are few (10 arms of 243), and BasicNet by them alone would be mostly noise for EffectNet to undo.
* Balance. Arms can outnumber a batch's rows, so groups are formed a factor at a time: the rows of
  each level against those of the factor's control, averaged over factors. The divergence is
  :func:`models.balance.sinkhorn` (log domain, squared distances, envelope gradient) of at most
  ``balance_rows`` rows a batch. Lambda is small, as a trial is balanced but for chance.
* Without masks, EffectNet's weights are the same for all t, which it then reads beside phi.
* One factor has no cross effects: BasicNet alone.

All arms are answered from weights made for each arm, [A, width, width], and units [A, B, width],
in blocks of arms where those are many; training computes the given arm only: as masks are linear in t, a layer is one matmul of t (x) h.
Rows see each other in the loss (``couples_rows``), never in an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.balance import imbalance
from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import MLP, uniform
from models.nets.base import LOSSES, Net, NetConfig
from models.representation import Representation
from models.space import OneOf, Span, choice, flag, integer, real

SPREAD = 0.5  # standard deviation of a level's mask about 1 before training
LARGEST = 2**24  # units of EffectNet that are in memory at a time: rows x arms x width
START = 0.1  # the last layer's weights before training, of their usual size


@dataclass(frozen=True)
class XTNetConfig(NetConfig):
    """Settings of XTNet; the last three are the ablations."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Width of the shared bottom.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Layers of the shared bottom.", search=Span(1, 3))
    hidden: int = integer(64, 2, 4096, "Width inside BasicNet.")
    effect_width: int = integer(32, 2, 4096, "Width inside EffectNet.", search=OneOf(16, 32, 64))
    effect_layers: int = integer(2, 1, 16, "Masked layers of EffectNet, its output among them.")
    dropout: float = real(0.0, 0.0, 0.9, "Dropout of bottom and BasicNet.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")
    isolated: float = real(
        0.1,
        0.0,
        1e6,
        "Weight of isolated treatments' rows beyond their own.",
        search=Span(0.0, 1.0),
    )
    imbalance: float = real(
        0.01, 0.0, 1e6, "Weight (lambda) of the imbalance.", search=Span(1e-4, 1.0, log=True)
    )
    balance_rows: int = integer(256, 2, 1_000_000, "Most rows of a batch in the imbalance.")
    masks: bool = flag(True, "EffectNet's weights are masked by the treatments.")
    balance: bool = flag(True, "The imbalance is in the loss.")
    dominance: bool = flag(True, "The basic effect is the dominant treatment's, not their sum.")


class MaskedLinear(nn.Module):
    """A linear layer whose weight is multiplied by 1 + sum_v t_v m_v (section 4.4).

    Args:
        treatments: V, the length of a treatment vector t; 0 leaves the weight as it is.
        width, out: Sizes of the layer.
    """

    def __init__(self, treatments: int, width: int, out: int) -> None:
        super().__init__()
        self.weight = uniform(width, out, fan=width)
        self.bias = uniform(out, fan=width)
        masks = SPREAD * torch.randn(treatments, width, out)
        self.masks = nn.Parameter(masks) if treatments else None

    def of_rows(self, h: Tensor, t: Tensor) -> Tensor:
        """Units [B, in] under each row's own treatments [B, V]: [B, out]."""
        answer = torch.addmm(self.bias, h, self.weight)
        if self.masks is None:
            return answer
        products = (t[:, :, None] * h[:, None]).flatten(1)
        return answer + products @ (self.weight * self.masks).flatten(0, 1)

    def of_arms(self, h: Tensor, t: Tensor) -> Tensor:
        """Units [B, in] or [A, B, in] under the treatments [A, V] of each arm: [A, B, out]."""
        if self.masks is None:
            return (h @ self.weight + self.bias).expand(len(t), -1, -1)
        weight = self.weight * (1.0 + torch.einsum("av,vio->aio", t, self.masks))
        return h.expand(len(t), *h.shape[-2:]) @ weight + self.bias


class EffectNet(nn.Module):
    """Cross effects in link space: masked layers with ReLU between them.

    Args:
        treatments: V.
        width, hidden, out: Units of phi, of the layers between, and outcomes (K).
        layers: Masked layers, the last among them.
        masks: Whether there are masks; if not, a vector for each treatment is added to phi.
    """

    def __init__(
        self, treatments: int, width: int, hidden: int, out: int, layers: int, masks: bool
    ) -> None:
        super().__init__()
        sizes = [width, *[hidden] * (layers - 1), out]
        count = treatments if masks else 0
        self.layers = nn.ModuleList(MaskedLinear(count, i, o) for i, o in pairwise(sizes))
        with torch.no_grad():  # hardly a cross effect at first
            cast(MaskedLinear, self.layers[-1]).weight.mul_(START)
        self.treatments = None if masks else nn.Parameter(torch.randn(treatments, width))

    def of_rows(self, phi: Tensor, t: Tensor) -> Tensor:
        """Of each row's own treatments [B, V]: [B, K]."""
        h = phi if self.treatments is None else phi + t @ self.treatments
        first, *rest = (cast(MaskedLinear, layer) for layer in self.layers)
        h = first.of_rows(h, t)
        for layer in rest:
            h = layer.of_rows(torch.relu(h), t)
        return h

    def of_arms(self, phi: Tensor, t: Tensor) -> Tensor:
        """Of every arm's treatments [A, V]: [B, A, K]."""
        h = phi if self.treatments is None else phi + (t @ self.treatments)[:, None]
        first, *rest = (cast(MaskedLinear, layer) for layer in self.layers)
        h = first.of_arms(h, t)
        for layer in rest:
            h = layer.of_arms(torch.relu(h), t)
        return h.transpose(0, 1)


class XTNet(Net):
    """Cross-treatment network."""

    couples_rows = True
    chains = True
    trunk = ("representation",)
    levels: Tensor
    alone: Tensor
    treatments: Tensor
    level: Tensor
    crossed: Tensor
    crosses: Tensor

    def __init__(self, shape: Shape, config: XTNetConfig) -> None:
        super().__init__(shape, config.loss)
        self.config = config
        levels = torch.tensor(shape.levels)
        sizes = torch.tensor(shape.factor_levels) - 1
        starts = sizes.cumsum(0) - sizes
        level = torch.where(levels > 0, starts + levels, 0)  # 0: control, else 1 + its place in t
        count, total = (levels > 0).sum(1), int(sizes.sum())
        treatments = functional.one_hot(level, 1 + total).sum(1)[:, 1:].float()
        tables = {
            "levels": levels,  # of each factor in each arm, [A, C]
            "level": level,  # the same, as places in the effects of BasicNet
            "treatments": treatments,  # t of each arm, [A, V]
            "alone": (count == 1).float(),  # arms with one factor away from control, [A]
            "crosses": (count > 1).float(),  # arms with several, [A]
            "crossed": (count > 1).nonzero().squeeze(1),  # their indices
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        outcomes = shape.outcome_count
        self.representation = Representation(
            shape, config.embedding, config.width, config.layers, config.dropout
        )
        self.basic = MLP(config.width, [config.hidden], (1 + total) * outcomes, config.dropout)
        sizes_of_effect = (config.width, config.effect_width, outcomes, config.effect_layers)
        several = len(self.crossed) > 0
        self.effect = EffectNet(total, *sizes_of_effect, config.masks) if several else None

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        natural, basic, cross = self.terms(self.representation(x_num, x_cat))
        return natural[:, None] + basic + cross

    def terms(self, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Natural response [B, K], basic [B, A, K] and cross effects [B, A, K] in link space."""
        natural, alone = self.single(phi)
        basic = self.combine(alone[:, self.level])
        cross = torch.zeros_like(basic)
        if self.effect is not None:
            rows = max(len(phi), 1) * self.config.effect_width
            blocks = self.treatments[self.crossed].split(max(1, LARGEST // rows))
            several = torch.cat([self.effect.of_arms(phi, block) for block in blocks], dim=1)
            cross = cross.index_copy(1, self.crossed, several.to(cross.dtype))
        return natural, basic, cross

    def single(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Natural response [B, K] and the effects of each level alone, [B, 1 + V, K]; 0 at 0."""
        answers = self.basic(phi).unflatten(-1, (-1, self.shape.outcome_count))
        return answers[:, 0], functional.pad(answers[:, 1:], (0, 0, 1, 0))

    def combine(self, effects: Tensor) -> Tensor:
        """Basic effects [..., K] of each factor's effect alone, [..., C, K] (0 where control)."""
        if not self.config.dominance:
            return effects.sum(-2)
        return torch.take_along_dim(effects, dominant(effects), -2).squeeze(-2)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``factual``, ``isolated`` and ``imbalance`` and their weighted sum."""
        phi = self.representation(batch.x_num, batch.x_cat)
        row_loss = self.outcome_loss(self.given(phi, batch.arm), batch).sum(1)
        factual, isolated = row_loss.mean(), (row_loss * self.alone[batch.arm]).mean()
        terms = {"factual": factual, "isolated": isolated}
        total = factual
        if self.effect is not None:
            total = total + self.config.isolated * isolated
        if self.config.balance:
            terms["imbalance"] = self.apart(phi, batch)
            total = total + self.config.imbalance * terms["imbalance"]
        return {"loss": total, **terms}

    def given(self, phi: Tensor, arm: Tensor) -> Tensor:
        """The links of the arm that each row was given, [B, K]."""
        natural, alone = self.single(phi)
        links = natural + self.combine(alone.take_along_dim(self.level[arm][..., None], 1))
        if self.effect is None:
            return links
        cross = self.effect.of_rows(phi, self.treatments[arm])
        return links + cross * self.crosses[arm][:, None]

    def factual(self, batch: Batch) -> Tensor:
        return self.given(self.representation(batch.x_num, batch.x_cat), batch.arm)

    def apart(self, phi: Tensor, batch: Batch) -> Tensor:
        """Sinkhorn imbalance of each factor's levels and its control, averaged over factors."""
        levels, most = self.levels[batch.arm].T, self.config.balance_rows
        values = [
            imbalance("wasserstein", phi, level, batch.weight, size, most)
            for level, size in zip(levels, self.shape.factor_levels)
        ]
        return torch.stack(values).mean()

    def parts(self, x_num: Tensor, x_cat: Tensor) -> dict[str, Tensor]:
        """The decomposition on the scale of the outcomes.

        ``natural + basic + cross`` is :meth:`potential_outcomes` of the treated arms.

        Returns:
            ``natural`` [B, K], ``basic`` [B, A - 1, K], ``cross`` [B, A - 1, K] (0 of arms with one
            factor away from control) and ``dominant`` [B, A - 1, K], the factor whose effect alone
            is the largest.
        """
        phi = self.representation(x_num, x_cat)
        natural, basic, cross = self.terms(phi)
        outcomes = self.respond(natural[:, None] + basic + cross)
        single = self.respond(natural[:, None] + basic)
        effects = self.single(phi)[1][:, self.level[1:]]
        return {
            "natural": outcomes[:, 0],
            "basic": single[:, 1:] - single[:, :1],
            "cross": outcomes[:, 1:] - single[:, 1:],
            "dominant": dominant(effects).squeeze(-2),
        }


def dominant(effects: Tensor) -> Tensor:
    """The factor (index) with the largest effect in size: [..., C, K] -> [..., 1, K]."""
    return effects.detach().abs().argmax(-2, keepdim=True)


ENTRY = Entry(
    name="xtnet",
    net=XTNet,
    config=XTNetConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Cross-Treatment Effect Estimation for Multi-Category, Multi-Valued Causal Inference "
    "via Dynamic Neural Masking",
)
