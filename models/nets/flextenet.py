"""FlexTENet: layers with a shared and a private part for each arm, so that data decide what arms share.

Curth & van der Schaar 2021, "On inductive biases for heterogeneous treatment effect estimation",
section 4. With s the shared and p_a the private units of arm a, layer l is

    s_{l+1} = relu(W^s s_l),    p_{a,l+1} = relu(W^p_a [s_l, p_{a,l}]),

both start from x, and arm a's outcome is the sum of both parts' last (linear) layers. Shared layers
alone are one model for all arms, private ones alone a model for each; between these lie TARNet and
the like. Two penalties keep the shared part for what arms share: orthogonality, so that what reads
the same input isn't learned twice,

    R_o = sum_l sum_a |W^s_l' W^p_{a,l}|_F^2    (over the rows of W^p_a that read s_l),

and the squares of the private weights, which the paper lets be heavier than those of the shared.
Where the paper is silent, or has one treatment, we chose:

* Arms and outcomes. A private part an arm; all outcomes are outputs of the same layers. With
  several factors every combination is an arm of its own.
* Scale. Both penalties are means over arms: an arm's loss counts by its share of the rows, and many
  arms must not drown it. Shared weights decay as the optimizer says.
* Activations. ReLU where the paper has ELU, as in all our nets.
* Categories. Both parts read the same embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import FeatureVector, uniform
from models.nets.base import LOSSES, Net, NetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class FlexTENetConfig(NetConfig):
    """Settings of FlexTENet."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Shared units of a layer.", search=OneOf(32, 64, 128))
    hidden: int = integer(32, 1, 4096, "Private units of a layer and arm.", search=OneOf(16, 32))
    layers: int = integer(2, 1, 16, "Hidden layers.", search=Span(1, 3))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.")
    orthogonal: float = real(
        0.01, 0.0, 1e6, "Weight of orthogonality.", search=Span(1e-4, 1.0, log=True)
    )
    private: float = real(
        1e-3, 0.0, 1e6, "Weight of the private parts' squares.", search=Span(1e-5, 1e-2, log=True)
    )
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class FlexLayer(nn.Module):
    """Linear maps of the shared units and of every arm's private ones.

    s [B, in] and p [A, B, in_p] (None in the first layer) -> [B, out] and [A, B, out_p].

    Args:
        arms: A.
        shared: Widths in and out of the shared part.
        private: Widths in (0 in the first layer) and out of a private part.
    """

    def __init__(self, arms: int, shared: tuple[int, int], private: tuple[int, int]) -> None:
        super().__init__()
        (into, out), (own, out_own) = shared, private
        fan = into + own
        self.shared = uniform(into, out, fan=into)
        self.shared_bias = uniform(out, fan=into)
        self.reads_shared = uniform(arms, into, out_own, fan=fan)
        self.reads_own = uniform(arms, own, out_own, fan=fan) if own else None
        self.private_bias = uniform(arms, 1, out_own, fan=fan)

    def forward(self, s: Tensor, p: Tensor | None) -> tuple[Tensor, Tensor]:
        arms = len(self.reads_shared)
        private = torch.baddbmm(self.private_bias, s.expand(arms, *s.shape), self.reads_shared)
        if p is not None and self.reads_own is not None:
            private = torch.baddbmm(private, p, self.reads_own)
        return torch.addmm(self.shared_bias, s, self.shared), private

    def overlap(self) -> Tensor:
        """The layer's term of R_o, as a mean over arms."""
        return (self.shared.T @ self.reads_shared).square().sum() / len(self.reads_shared)

    def size(self) -> Tensor:
        """Squares of the private weights, as a mean over arms."""
        squares = self.reads_shared.square().sum()
        if self.reads_own is not None:
            squares = squares + self.reads_own.square().sum()
        return squares / len(self.reads_shared)


class FlexTENet(Net):
    """Shared and private layers side by side, the private ones of all arms as one."""

    chains = True
    trunk = ("features",)

    def __init__(self, shape: Shape, config: FlexTENetConfig) -> None:
        super().__init__(shape, config.loss)
        self.orthogonal, self.private, self.dropout = (
            config.orthogonal,
            config.private,
            config.dropout,
        )
        self.features = FeatureVector(shape, config.embedding)
        shared = [self.features.width, *[config.width] * config.layers, shape.outcome_count]
        private = [0, *[config.hidden] * config.layers, shape.outcome_count]
        self.layers = nn.ModuleList(
            FlexLayer(shape.arms, s, p) for s, p in zip(pairwise(shared), pairwise(private))
        )

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        shared, private = self.parts_of(x_num, x_cat)
        return (shared + private).transpose(0, 1)

    def parts_of(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, Tensor]:
        """What the shared [B, K] and the private layers [A, B, K] add to the links."""
        s, p = self.layers[0](self.features(x_num, x_cat), None)
        for layer in self.layers[1:]:
            s, p = layer(self.activate(s), self.activate(p))
        return s, p

    def activate(self, units: Tensor) -> Tensor:
        return functional.dropout(torch.relu(units), self.dropout, self.training)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``factual``, ``overlap`` (R_o) and ``private`` and their weighted sum."""
        factual = super().loss(batch)["loss"]
        with torch.autocast(factual.device.type, enabled=False):
            layers = [cast(FlexLayer, layer) for layer in self.layers]
            overlap = torch.stack([layer.overlap() for layer in layers]).sum()
            size = torch.stack([layer.size() for layer in layers]).sum()
        total = factual + self.orthogonal * overlap + self.private * size
        return {"loss": total, "factual": factual, "overlap": overlap, "private": size}


ENTRY = Entry(
    name="flextenet",
    net=FlexTENet,
    config=FlexTENetConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Curth & van der Schaar 2021, On inductive biases for heterogeneous treatment effect "
    "estimation",
)
