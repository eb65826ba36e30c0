"""EUEN: an explicit uplift network beside a network for the natural response.

Ke et al. 2021, "Addressing Exposure Bias in Uplift Modeling for Large-scale Online Advertising".
The control net answers the natural response, the uplift net the effect itself, and a treated row's
response is their sum. The paper's EEUEN multiplies the effect by the probability that a treated unit
was exposed to the treatment, learned from an exposure label. A campaign's log has no such label, so
this is its response part: effects are of giving the arm (intent to treat), whoever saw it.
Where the paper is silent, or made for one treatment, we chose:

* Several arms and outcomes. One uplift net, with an output for every treated arm and outcome: arms
  share what they learn about who can be moved. The control net has an output an outcome.
* The control net learns from control rows alone (``stop``), as in code that goes by the paper: the
  gradient of a treated row stops at the natural response. Worth turning off where control is rare.
* The two nets share nothing, not even the embeddings of categories. Layers are equally wide.
* Binary outcomes under ``loss="bce"``: natural response and effect are added as logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.catalog import Entry, Supports
from models.data import Shape
from models.explicit import ExplicitNet
from models.layers import MLP, FeatureVector
from models.nets.base import LOSSES, NetConfig
from models.space import OneOf, Span, choice, flag, integer, real


@dataclass(frozen=True)
class EUENConfig(NetConfig):
    """Settings of EUEN."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Width of a hidden layer.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Hidden layers of each net.", search=Span(1, 4))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    stop: bool = flag(True, "Treated rows leave the control net alone.", search=True)
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class Tower(nn.Module):
    """A network of its own over the features: [B, F_n] and [B, F_c] -> [B, out]."""

    def __init__(self, shape: Shape, config: EUENConfig, out: int) -> None:
        super().__init__()
        self.features = FeatureVector(shape, config.embedding)
        hidden = [config.width] * config.layers
        self.network = MLP(self.features.width, hidden, out, config.dropout)

    def forward(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        return self.network(self.features(x_num, x_cat))


class EUEN(ExplicitNet):
    """A control net and an uplift net."""

    chains = True

    def __init__(self, shape: Shape, config: EUENConfig) -> None:
        super().__init__(shape, config.loss, config.stop)
        outcomes = shape.outcome_count
        self.control = Tower(shape, config, outcomes)
        self.uplift = Tower(shape, config, (shape.arms - 1) * outcomes)

    def tiers(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, Tensor]:
        effects = self.uplift(x_num, x_cat)
        return self.control(x_num, x_cat), effects.unflatten(1, (self.shape.arms - 1, -1))


ENTRY = Entry(
    name="euen",
    net=EUEN,
    config=EUENConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Ke et al. 2021, Addressing Exposure Bias in Uplift Modeling for Large-scale Online Advertising",
)
