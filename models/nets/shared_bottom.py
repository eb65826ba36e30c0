"""Shared bottom: one network reads the fields, a tower an outcome answers.

Caruana 1997, "Multitask learning", with the treatment among the fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.catalog import Entry, Supports
from models.conversion import ConversionNet, Treated, TreatedFields, TreatedMLP
from models.data import Shape
from models.layers import StackedMLP
from models.nets.base import LOSSES, NetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class SharedBottomConfig(NetConfig):
    """Settings of the shared bottom and its towers."""

    embedding: int = integer(8, 1, 256, "Width of a category's or arm's embedding.")
    width: int = integer(128, 2, 4096, "Width of the bottom.", search=OneOf(64, 128, 256))
    layers: int = integer(1, 1, 16, "Hidden layers of the bottom.", search=Span(1, 3))
    tower: int = integer(32, 2, 4096, "Width of a tower's hidden layer.", search=OneOf(32, 64))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class SharedBottom(ConversionNet):
    """A bottom for all outcomes and a tower for each."""

    trunk = ("fields.embedding", "bottom.0.features")

    def __init__(self, shape: Shape, config: SharedBottomConfig) -> None:
        super().__init__(shape, config.loss)
        width, hidden = config.width, [config.width] * config.layers
        self.fields = TreatedFields(shape, config.embedding)
        self.bottom = TreatedMLP(1, self.fields.widths, hidden, width, config.dropout)
        self.towers = StackedMLP(shape.outcome_count, width, [config.tower], 1, config.dropout)

    def answer(self, rows: Treated) -> Tensor:
        read = torch.relu(self.bottom(rows)[0])
        return self.towers(read).squeeze(-1).T


ENTRY = Entry(
    name="shared_bottom",
    net=SharedBottom,
    config=SharedBottomConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Caruana 1997, Multitask learning",
)
