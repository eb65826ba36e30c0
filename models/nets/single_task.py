"""Single task: a network of its own for each outcome, none of them sharing anything.

The baseline of "Adaptive Pattern Extraction Multi-Task Learning for Multi-Step Conversion
Estimations" (section 4.1.2), with the treatment among the fields. The outcomes' networks are stacked
weights, embeddings included: one batched matmul a layer answers all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models.catalog import Entry, Supports
from models.conversion import ConversionNet, Treated, TreatedFields, TreatedMLP
from models.data import Shape
from models.nets.base import LOSSES, NetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class SingleTaskConfig(NetConfig):
    """Settings of the single-task networks."""

    embedding: int = integer(8, 1, 256, "Width of a category's or arm's embedding.")
    width: int = integer(64, 2, 4096, "Width of a hidden layer.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Hidden layers.", search=Span(1, 3))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class SingleTask(ConversionNet):
    """One network an outcome."""

    trunk = ("fields.embedding", "networks.0.features")

    def __init__(self, shape: Shape, config: SingleTaskConfig) -> None:
        super().__init__(shape, config.loss)
        tasks, hidden = shape.outcome_count, [config.width] * config.layers
        self.fields = TreatedFields(shape, config.embedding, copies=tasks)
        self.networks = TreatedMLP(tasks, self.fields.widths, hidden, 1, config.dropout)

    def answer(self, rows: Treated) -> Tensor:
        return self.networks(rows).squeeze(-1).T


ENTRY = Entry(
    name="single_task",
    net=SingleTask,
    config=SingleTaskConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Adaptive Pattern Extraction Multi-Task Learning for Multi-Step Conversion Estimations, "
    "a network an outcome",
)
