"""Dose response: effects as smooth curves over a dose, monotone in it for every unit if asked to.

Arms of a dose's grid have an order and distances, which a net of unordered arms must learn anew for
each. Here an effect is a curve over the dose d (scaled to 0 at control, 1 at the largest), whose
coefficients are read off the unit, so that every dose learns from all rows:

    links^k(x, a) = f^k(x) + sum_c g_c^k(x, d_c(a)) + sum_l h_l^k(x) 1[l in a]

    g(x, d) = r(x) sum_j softmax_j(v(x)) I_j(d)    response: monotone, increasing or decreasing
    g(x, d) = sum_j w_j(x) I_j(d)                  response: free

I_j are the I-splines of Ramsay 1988, "Monotone regression splines in action", which rise from 0 to 1.
Sums with shares (the softmax) rise too, so r is the effect of the largest dose and its sign the
direction, for this unit and outcome: ``monotone`` learns it, ``increasing`` (softplus) and
``decreasing`` know it. Under ``loss="bce"`` curves add up as logits; the sigmoid keeps the order. The
last term has the levels l of factors without an order. Factors' effects are additive, as M3E2's.

Training starts from the averages and no effect. Rows are learned from at the dose that was given, not that of the nearest arm. Weights don't depend on
the grid: the same net answers any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.explicit import ExplicitNet
from models.layers import MLP, Treatments
from models.nets.base import LOSSES, NetConfig
from models.representation import Representation
from models.space import OneOf, Span, choice, integer, real
from models.splines import i_splines

STRETCH = 3.0  # of effects as they are read: so that a short training reaches large ones
RESPONSES = ("monotone", "increasing", "decreasing", "free")


@dataclass(frozen=True)
class DoseResponseConfig(NetConfig):
    """Settings of the dose response net."""

    response: str = choice("monotone", RESPONSES, "How effects may go with a dose, for each unit.")
    pieces: int = integer(2, 1, 32, "Pieces of a curve over a dose.", search=Span(1, 4))
    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Width of the representation.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Layers of the representation.", search=Span(1, 3))
    hidden: int = integer(32, 2, 4096, "Width of a head's layers.", search=OneOf(16, 32, 64))
    head_layers: int = integer(1, 0, 16, "Hidden layers of a head.", search=Span(0, 2))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class DoseResponse(ExplicitNet):
    """A natural response, and effects that are curves over doses."""

    trunk = ("representation",)
    zeroed = ("read_natural.weight", "read_effect.weight", "read_effect.bias")
    ordered: Tensor
    others: Tensor

    def __init__(self, shape: Shape, config: DoseResponseConfig) -> None:
        super().__init__(shape, config.loss)
        self.response, self.pieces = config.response, config.pieces
        self.treatments = Treatments(shape.levels, shape.doses)
        continuous = self.treatments.continuous
        self.register_buffer("ordered", continuous.nonzero().squeeze(1), persistent=False)
        self.register_buffer("others", (~continuous).nonzero().squeeze(1), persistent=False)
        curves = i_splines(torch.zeros(()), config.pieces).shape[-1]
        self.sizes = [len(self.ordered) * curves, len(self.others), len(self.ordered)]
        if config.response == "free":
            self.sizes[2] = 0
        self.representation = Representation(
            shape, config.embedding, config.width, config.layers, config.dropout
        )
        hidden = [config.hidden] * config.head_layers
        width, outcomes = [config.width, *hidden][-1], shape.outcome_count
        self.natural, self.effect = (
            nn.Sequential(MLP(config.width, hidden[:-1], width, config.dropout), nn.ReLU())
            if hidden
            else nn.Identity()
            for _ in range(2)
        )
        self.read_natural = nn.Linear(width, outcomes)
        self.read_effect = nn.Linear(width, outcomes * sum(self.sizes))

    def tiers(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, Tensor]:
        phi = self.representation(x_num, x_cat)
        arms = self.columns(self.treatments.incidence[1:])
        natural = self.read_natural(self.natural(phi))
        return natural, torch.einsum("bkm,am->bak", self.coefficients(phi), arms)

    def factual(self, batch: Batch) -> Tensor:
        phi = self.representation(batch.x_num, batch.x_cat)
        rows = self.columns(self.treatments.given(batch))
        natural = self.read_natural(self.natural(phi))
        return natural + torch.einsum("bkm,bm->bk", self.coefficients(phi), rows)

    def columns(self, treatments: Tensor) -> Tensor:
        """I_j of each dose, then the levels that are given, [..., M], of :class:`Treatments`."""
        doses, levels = (treatments[..., index] for index in (self.ordered, self.others))
        return torch.cat([i_splines(doses, self.pieces).flatten(-2), levels], dim=-1)

    def coefficients(self, phi: Tensor) -> Tensor:
        """What each column adds to the links, [B, K, M], for representations [B, d]."""
        answers = self.read_effect(self.effect(phi)).float()
        answers = answers.unflatten(1, (self.shape.outcome_count, -1))
        curves, levels, reach = answers.split(self.sizes, dim=-1)
        if self.response == "free":
            curves = STRETCH * curves
        else:
            shares = curves.unflatten(-1, (len(self.ordered), -1)).softmax(-1)
            curves = (self._reach(STRETCH * reach)[..., None] * shares).flatten(-2)
        return torch.cat([curves, levels], dim=-1)

    def _reach(self, reach: Tensor) -> Tensor:
        """r, the effect of the largest dose."""
        if self.response == "monotone":
            return reach
        size = functional.softplus(reach, beta=4.0)  # starts near 0, at half the slope
        return size if self.response == "increasing" else -size


ENTRY = Entry(
    name="dose_response",
    net=DoseResponse,
    config=DoseResponseConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, dose=True, needs=("dose",)),
    paper="Ramsay 1988, Monotone regression splines in action; curves read off the unit are ours",
)
