"""T-learner: a network of its own for each arm, none of them sharing anything.

Künzel et al. 2019, "Metalearners for estimating heterogeneous treatment effects using machine
learning". The arms' networks are stacked weights: one batched matmul a layer answers all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.catalog import Entry, Supports
from models.data import Shape
from models.layers import CategoryEmbedding, StackedMLP
from models.nets.base import LOSSES, Net, NetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class TLearnerConfig(NetConfig):
    """Settings of the T-learner."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Width of a hidden layer.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Hidden layers.", search=Span(1, 4))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class TLearner(Net):
    """One network an arm."""

    chains = True

    def __init__(self, shape: Shape, config: TLearnerConfig) -> None:
        super().__init__(shape, config.loss)
        table = shape.arms * config.embedding  # each arm embeds the categories for itself
        self.embedding = CategoryEmbedding(shape.categories, table) if shape.categories else None
        width = shape.numeric + len(shape.categories) * config.embedding
        hidden = [config.width] * config.layers
        self.networks = StackedMLP(shape.arms, width, hidden, shape.outcome_count, config.dropout)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        x = x_num
        if self.embedding is not None:
            arms = self.shape.arms
            own = self.embedding(x_cat).unflatten(-1, (arms, -1))  # [B, F_c, A, d]
            own = own.permute(2, 0, 1, 3).flatten(2)
            x = torch.cat([x_num.expand(arms, *x_num.shape), own], dim=-1)
        return self.networks(x).transpose(0, 1)


ENTRY = Entry(
    name="t_learner",
    net=TLearner,
    config=TLearnerConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Künzel et al. 2019, Metalearners for estimating heterogeneous treatment effects",
)
