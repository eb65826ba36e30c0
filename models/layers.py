"""Blocks that the nets are put together from.

Sizes in the docstrings: B rows, T feature tokens, d width, F = T * d, A arms, K outcomes, G any
number of parallel copies. Copies (experts, heads, arms) are one stacked weight and one batched
matmul, never a Python loop. No block keeps statistics of a batch, so rows never see each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.data import Batch, Shape
from models.products import affine

QUIET = 0.05  # spread of the first embeddings: at 1, ids seen seldom are learned by heart


def uniform(*size: int, fan: int) -> nn.Parameter:
    """A weight drawn as ``nn.Linear`` draws its own, for an input of ``fan`` values."""
    bound = 1.0 / math.sqrt(fan)
    return nn.Parameter(torch.empty(size).uniform_(-bound, bound))


def softmax(x: Tensor) -> Tensor:
    """Softmax along the last axis: torch's own takes ten times as long where that is short."""
    return x.movedim(-1, 0).softmax(0).movedim(0, -1).contiguous()


class CategoryEmbedding(nn.Module):
    """Ids of all categorical columns in one table: [B, F_c] int64 -> [B, F_c, d]."""

    offsets: Tensor

    def __init__(self, categories: Sequence[int], width: int) -> None:
        super().__init__()
        starts = torch.tensor([0, *categories]).cumsum(0)
        self.register_buffer("offsets", starts[:-1], persistent=False)
        self.table = nn.Embedding(int(starts[-1]), width)
        nn.init.normal_(self.table.weight, std=QUIET)

    def forward(self, x_cat: Tensor) -> Tensor:
        ids = x_cat + self.offsets
        if ids.is_cuda:
            return self.table(ids)
        # the same numbers; on a CPU its gradient takes a fifth of the time of that of nn.Embedding
        return self.table.weight.index_select(0, ids.flatten()).unflatten(0, ids.shape)


class FeatureTokens(nn.Module):
    """One token a feature: a numeric one its value times a vector plus another, a category its own.

    [B, F_n] and [B, F_c] -> [B, T, d], T = F_n + F_c (Gorishniy et al. 2021, FT-Transformer).
    """

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.count, self.width = shape.features, width
        self.weight = nn.Parameter(torch.randn(shape.numeric, width)) if shape.numeric else None
        self.bias = nn.Parameter(torch.randn(shape.numeric, width)) if shape.numeric else None
        self.embedding = CategoryEmbedding(shape.categories, width) if shape.categories else None

    def forward(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        tokens = []
        if self.weight is not None and self.bias is not None:
            tokens.append(torch.addcmul(self.bias, x_num[..., None], self.weight))
        if self.embedding is not None:
            tokens.append(self.embedding(x_cat))
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens, dim=-2)


class FeatureVector(nn.Module):
    """Numeric features beside the embeddings of the categories: -> [B, width].

    Attributes:
        width: F_n + F_c * d, what the next layer takes.
    """

    def __init__(self, shape: Shape, embedding: int) -> None:
        super().__init__()
        self.width = shape.numeric + len(shape.categories) * embedding
        self.embedding = (
            CategoryEmbedding(shape.categories, embedding) if shape.categories else None
        )

    def forward(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        if self.embedding is None:
            return x_num
        return torch.cat([x_num, self.embedding(x_cat).flatten(1)], dim=-1)


class Treatments(nn.Module):
    """What arms and rows are made of: a column a level other than control, one for a whole dose.

    The column of a level is 1 where it is given, that of a dose holds where it lies in its range,
    0 to 1. Control is 0 everywhere.

    Attributes:
        incidence: The columns of the arms, [A, L].
        continuous: Whether a column is that of a dose, [L].

    Args:
        levels: Level of each factor in each arm, [A][C].
        doses: As :class:`Shape` has them.
    """

    incidence: Tensor
    continuous: Tensor
    factor: Tensor

    def __init__(
        self, levels: Sequence[Sequence[int]], doses: Sequence[Sequence[float]] = ()
    ) -> None:
        super().__init__()
        columns, continuous, factors = [], [], []
        for factor, given in enumerate(zip(*levels)):
            positions = doses[factor] if doses else ()
            if positions:
                added = [[positions[level] for level in given]]
            else:
                added = [[float(g == level) for g in given] for level in range(1, max(given) + 1)]
            columns += added
            continuous += [bool(positions)] * len(added)
            factors += [factor] * len(added)
        self.factors, self.dosed = len(levels[0]), any(continuous)
        incidence = torch.tensor(columns, dtype=torch.float32).T.contiguous()
        self.register_buffer("incidence", incidence, persistent=False)
        self.register_buffer("continuous", torch.tensor(continuous), persistent=False)
        self.register_buffer("factor", torch.tensor(factors), persistent=False)

    def given(self, batch: Batch) -> Tensor:
        """The columns of what rows were given, the exact doses among them: [B, L]."""
        rows = self.incidence[batch.arm]
        if not self.dosed:
            return rows
        dose = batch.dose.expand(-1, self.factors)[:, self.factor]
        return torch.where(self.continuous & (dose >= 0), dose, rows)


class ArmEmbedding(Treatments):
    """Embeddings of arms as the sum over factors of their levels' embeddings: -> [A, d].

    A level's vector is shared by every arm that has it, so an arm seen seldom (or never) is made of
    parts that are known. Control levels have no vector: they add nothing. A dose has one vector,
    which its number multiplies.

    Args:
        levels: Level of each factor in each arm, [A][C].
        width: d.
        doses: As :class:`Shape` has them; left out, a dose's levels are levels like others.
    """

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        width: int,
        doses: Sequence[Sequence[float]] = (),
    ) -> None:
        super().__init__(levels, doses)
        self.table = nn.Parameter(torch.randn(len(self.continuous), width))

    def forward(self) -> Tensor:
        return self.incidence @ self.table

    def rows(self, batch: Batch) -> Tensor:
        """Embeddings of what rows were given, [B, d]."""
        return self.given(batch) @ self.table


class MLP(nn.Sequential):
    """Linear, ReLU and dropout per hidden layer, then a linear to ``out``."""

    def __init__(self, width: int, hidden: Sequence[int], out: int, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for before, after in zip([width, *hidden], hidden):
            layers += [nn.Linear(before, after), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers, nn.Linear([width, *hidden][-1], out))


class Stacked(nn.Module):
    """G linear layers side by side: [G, B, in] (or [B, in], the same for all) -> [G, B, out]."""

    def __init__(self, copies: int, width: int, out: int) -> None:
        super().__init__()
        self.weight = uniform(copies, width, out, fan=width)
        self.bias = uniform(copies, 1, out, fan=width)

    def forward(self, x: Tensor) -> Tensor:
        return affine(x, self.weight, self.bias)


class StackedMLP(nn.Sequential):
    """G MLPs side by side: [G, B, in] or [B, in] -> [G, B, out]."""

    def __init__(
        self, copies: int, width: int, hidden: Sequence[int], out: int, dropout: float = 0.0
    ) -> None:
        layers: list[nn.Module] = []
        for before, after in zip([width, *hidden], hidden):
            layers += [Stacked(copies, before, after), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers, Stacked(copies, [width, *hidden][-1], out))


class Heads(nn.Module):
    """G linear heads with one output each: [..., G, in] -> [..., G]."""

    def __init__(self, copies: int, width: int) -> None:
        super().__init__()
        self.weight = uniform(copies, width, fan=width)
        self.bias = nn.Parameter(torch.zeros(copies))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum(-1) + self.bias


class ResidualExperts(nn.Module):
    """E residual networks side by side: [B, F] -> [E, B, F].

    Each block is x + W2 relu(W1 norm(x)), a bottleneck residual block (He et al. 2016) along the
    token axis whose convolution spans all the tokens: features have no order, so a short kernel
    would only mix neighbours of an arbitrary list, and as one matmul it is also the faster one.
    """

    def __init__(self, experts: int, width: int, hidden: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.experts = experts
        self.blocks = nn.ModuleList(
            StackedMLP(experts, width, [hidden], width, dropout) for _ in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        x, hidden, last = self._inside(x)
        return x + last(hidden)

    def read(self, x: Tensor, weight: Tensor) -> Tensor:
        """What linear readers [F, H] make of every expert, [E, B, H].

        W2 and the readers are one product of weights, so that no expert's output is made.
        """
        x, hidden, last = self._inside(x)
        return x @ weight + torch.baddbmm(last.bias @ weight, hidden, last.weight @ weight)

    def mixed(self, x: Tensor, gates: Tensor) -> Tensor:
        """The experts' means by gates [B, K, E] that sum to 1: [B, K, F].

        What all experts have in common, x (with one block) and nothing else, is its own mean.
        """
        x, hidden, last = self._inside(x)
        shared = x.dim() == 2
        experts = hidden @ last.weight if shared else torch.baddbmm(x, hidden, last.weight)
        found = torch.einsum("bke,ebf->bkf", gates, experts) + gates @ last.bias.squeeze(1)
        return found + x.unsqueeze(1) if shared else found

    def _inside(self, x: Tensor) -> tuple[Tensor, Tensor, Stacked]:
        """The last block's input [B, F] or [E, B, F], its hidden layer [E, B, hidden] and its W2."""
        *before, end = cast(Sequence[StackedMLP], self.blocks)
        for block in before:  # the first block's input is the same for all: [B, F]
            x = x + block(_normed(x))
        *layers, last = end
        hidden = _normed(x)
        for layer in layers:
            hidden = layer(hidden)
        return x, hidden, cast(Stacked, last)


def _normed(x: Tensor) -> Tensor:
    """Layer norm without a scale: W1 holds it."""
    return functional.layer_norm(x, x.shape[-1:])


class MMoE(nn.Module):
    """Multi-gate mixture of experts: [B, F] -> [B, K, F] (Ma et al. 2018).

    phi^k = sum_e g^k_e E^e(x) with gates g^k = softmax(W^k x), one gate a task.
    """

    def __init__(
        self, tasks: int, experts: int, width: int, hidden: int, blocks: int, dropout: float
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.gate = nn.Linear(width, tasks * experts, bias=False)
        self.experts = ResidualExperts(experts, width, hidden, blocks, dropout)

    def gates(self, x: Tensor) -> Tensor:
        """Weight of each expert for each task, [B, K, E]; they sum to 1 over the experts."""
        return softmax(self.gate(x).unflatten(-1, (self.tasks, -1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.experts.mixed(x, self.gates(x))
