"""MMoE: experts that all outcomes share, weighed by a gate an outcome.

Ma et al. 2018, "Modeling task relationships in multi-task learning with multi-gate
mixture-of-experts": f^k(x) = sum_e g^k_e(x) E^e(x), g^k = softmax(W^k x), y^k = h^k(f^k), with the
treatment among the fields that experts and gates read. Where the paper is silent we chose: experts
end in a ReLU, gates have a bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.catalog import Entry, Supports
from models.conversion import ConversionNet, Treated, TreatedFields, TreatedInput, TreatedMLP
from models.data import Shape
from models.experts import mix
from models.layers import StackedMLP
from models.nets.base import LOSSES, NetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class MMoEConfig(NetConfig):
    """Settings of MMoE."""

    embedding: int = integer(8, 1, 256, "Width of a category's or arm's embedding.")
    experts: int = integer(4, 1, 64, "Experts.", search=Span(2, 8))
    width: int = integer(64, 2, 4096, "Width of an expert.", search=OneOf(32, 64, 128))
    layers: int = integer(1, 1, 16, "Hidden layers of an expert.")
    tower: int = integer(32, 2, 4096, "Width of a tower's hidden layer.", search=OneOf(32, 64))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class MMoENet(ConversionNet):
    """Shared experts, a gate and a tower for each outcome."""

    trunk = ("fields.embedding", "experts.0.features")

    def __init__(self, shape: Shape, config: MMoEConfig) -> None:
        super().__init__(shape, config.loss)
        tasks, width, count = shape.outcome_count, config.width, config.experts
        self.fields = TreatedFields(shape, config.embedding)
        hidden = [width] * config.layers
        self.experts = TreatedMLP(count, self.fields.widths, hidden, width, config.dropout)
        self.gates = TreatedInput(tasks, self.fields.widths, count)
        self.towers = StackedMLP(tasks, width, [config.tower], 1, config.dropout)

    def answer(self, rows: Treated) -> Tensor:
        found = mix(self.gates(rows), torch.relu(self.experts(rows)))
        return self.towers(found).squeeze(-1).T


ENTRY = Entry(
    name="mmoe",
    net=MMoENet,
    config=MMoEConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Ma et al. 2018, Modeling task relationships in multi-task learning with multi-gate "
    "mixture-of-experts",
)
