"""TARNet: one representation of the unit for all arms, and a head for each arm.

Shalit, Johansson & Sontag 2017, "Estimating individual treatment effect: generalization bounds and
algorithms": h(phi(x), t) with phi shared and h split by t, trained on the factual outcomes (eq. 3
without its penalty; ``cfr`` adds it). Where the paper is silent, or has one treatment, we chose:

* Arms and outcomes. A head an arm, with one output an outcome; with several factors every
  combination is an arm of its own.
* Activations. ReLU where the paper has ELU, as in all our nets.
* Weights. Eq. 3 weighs rows so that all arms count alike. With a head an arm that only moves what
  the trunk attends to, so it is off unless ``equal_arms`` asks for it, by 1 / (A p) with the logged
  propensity p: in a trial the paper's own weights, on other rows those that undo the policy's choice.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import StackedMLP
from models.nets.base import LOSSES, Net, NetConfig
from models.representation import Representation
from models.space import OneOf, Span, choice, flag, integer, real

HEAVIEST = 10.0  # a row that ``equal_arms`` weighs no further


@dataclass(frozen=True)
class TARNetConfig(NetConfig):
    """Settings of TARNet."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Width of the representation.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Layers of the representation.", search=Span(1, 3))
    hidden: int = integer(64, 2, 4096, "Width of a head's layers.", search=OneOf(16, 32, 64))
    head_layers: int = integer(1, 0, 16, "Hidden layers of a head.", search=Span(0, 2))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")
    equal_arms: bool = flag(False, "Weigh rows so that all arms count alike.")


class TARNet(Net):
    """A shared representation under a head an arm."""

    chains = True
    trunk = ("representation",)

    def __init__(self, shape: Shape, config: TARNetConfig) -> None:
        super().__init__(shape, config.loss)
        self.equal_arms = config.equal_arms
        self.representation = Representation(
            shape, config.embedding, config.width, config.layers, config.dropout
        )
        hidden, outcomes = [config.hidden] * config.head_layers, shape.outcome_count
        self.heads = StackedMLP(shape.arms, config.width, hidden, outcomes, config.dropout)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        return self.answer(self.representation(x_num, x_cat))

    def answer(self, phi: Tensor) -> Tensor:
        """Every arm's links [B, A, K] of representations [B, d]."""
        return self.heads(phi).transpose(0, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.factual_loss(self.factual(batch), batch)}

    def factual_loss(self, links: Tensor, batch: Batch) -> Tensor:
        """The first term of eq. 3, summed over outcomes, of the links of the given arms [B, K]."""
        row_loss = self.outcome_loss(links, batch).sum(1)
        if self.equal_arms:
            share = self.shape.arms * batch.propensity
            row_loss = row_loss / share.clamp_min(1.0 / HEAVIEST)
        return row_loss.mean()


ENTRY = Entry(
    name="tarnet",
    net=TARNet,
    config=TARNetConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Shalit et al. 2017, Estimating individual treatment effect: "
    "generalization bounds and algorithms",
)
