"""ESMM: each step of a chain given the one before, learned on all rows through their product.

Ma et al. 2018, "Entire space multi-task model: an effective approach for estimating post-click
conversion rate", with the treatment among the fields: P(click and buy) = P(click) P(buy | click), a
tower a factor, cross-entropies of click and of click-and-buy over all rows. No row is left out for
want of a click, so that P(buy | click) is not learned on clickers alone.

A chain of any length is a product of as many factors, so a step is never likelier than the one
before. Outcomes outside the chain (and amounts inside it) have a tower and no product.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models.catalog import Entry, Supports
from models.conversion import ConversionNet, Treated, TreatedFields, TreatedMLP
from models.data import Shape
from models.nets.base import NetConfig
from models.space import OneOf, Span, integer, real


@dataclass(frozen=True)
class ESMMConfig(NetConfig):
    """Settings of ESMM."""

    embedding: int = integer(8, 1, 256, "Width of a category's or arm's embedding.")
    width: int = integer(64, 2, 4096, "Width of a tower.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Hidden layers of a tower.", search=Span(1, 3))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))


class ESMM(ConversionNet):
    """Shared embeddings and a tower for each outcome."""

    chains = True
    trunk = ("fields.embedding", "towers.0.features")

    def __init__(self, shape: Shape, config: ESMMConfig) -> None:
        super().__init__(shape, "bce")
        tasks, hidden = shape.outcome_count, [config.width] * config.layers
        self.fields = TreatedFields(shape, config.embedding)
        self.towers = TreatedMLP(tasks, self.fields.widths, hidden, 1, config.dropout)

    def answer(self, rows: Treated) -> Tensor:
        return self.towers(rows).squeeze(-1).T


ENTRY = Entry(
    name="esmm",
    net=ESMM,
    config=ESMMConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True, needs=("sequence",)),
    paper="Ma et al. 2018, Entire space multi-task model: an effective approach for estimating "
    "post-click conversion rate",
)
