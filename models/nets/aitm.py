"""AITM: each step of a chain is told by the step before, and may not be likelier than it.

Xi et al. 2021, "Modeling the sequential dependence among audience multi-step conversions with
multi-task learning in targeted display advertising", with the treatment among the fields. A tower
each: p_t = f_t(v). Adaptive information transfer: z_1 = p_1 and z_t = sum_u w_u h3(u) over u of p_t
and q_t = g_{t-1}(z_{t-1}), w = softmax_u(<h1(u), h2(u)> / sqrt(d)). The behavioural expectation
calibrator adds alpha * mean_i sum_t max(P(step_t) - P(step_{t-1}), 0) to the cross-entropies.

Where the paper is silent we chose:

* Each step has a transfer (h1, h2, h3, g) of its own. The recursion along the chain can't be batched.
* Outcomes outside the chain (and amounts inside it) have a tower and a head, and no transfer.
* Several arms: the calibrator looks at the arm that was given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.catalog import Entry, Supports
from models.chains import chain
from models.conversion import ConversionNet, Treated, TreatedFields, TreatedMLP
from models.data import Batch, Shape
from models.layers import Heads, softmax
from models.nets.base import NetConfig
from models.space import OneOf, Span, integer, real


@dataclass(frozen=True)
class AITMConfig(NetConfig):
    """Settings of AITM."""

    embedding: int = integer(8, 1, 256, "Width of a category's or arm's embedding.")
    width: int = integer(64, 2, 4096, "Width of a tower.", search=OneOf(32, 64, 128))
    layers: int = integer(1, 1, 16, "Hidden layers of a tower.", search=Span(1, 3))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    calibrator: float = real(0.6, 0.0, 100.0, "Weight alpha of the calibrator.")


class Transfer(nn.Module):
    """Attention over what a step finds and what the step before tells: [N, d], [N, d] -> [N, d]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tell = nn.Linear(width, width)
        self.project = nn.Linear(width, 3 * width)

    def forward(self, found: Tensor, before: Tensor) -> Tensor:
        both = torch.stack([found, torch.relu(self.tell(before)).to(found.dtype)], dim=1)
        query, key, value = self.project(both).chunk(3, dim=-1)
        weights = softmax((query * key).sum(-1) / math.sqrt(query.shape[-1]))
        return (weights[..., None] * value).sum(1)


class AITM(ConversionNet):
    """Towers, transfers along the chain, a head for each outcome."""

    trunk = ("fields.embedding", "towers.0.features")

    def __init__(self, shape: Shape, config: AITMConfig) -> None:
        super().__init__(shape, "bce")
        self.order, self.weight = chain(shape), config.calibrator
        tasks, width, hidden = shape.outcome_count, config.width, [config.width] * config.layers
        self.fields = TreatedFields(shape, config.embedding)
        self.towers = TreatedMLP(tasks, self.fields.widths, hidden, width, config.dropout)
        self.transfers = nn.ModuleList(Transfer(width) for _ in self.order[1:])
        self.heads = Heads(tasks, width)

    def answer(self, rows: Treated) -> Tensor:
        found = list(torch.relu(self.towers(rows)))
        for transfer, before, step in zip(self.transfers, self.order, self.order[1:]):
            found[step] = transfer(found[step], found[before])
        return self.heads(torch.stack(found, dim=1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies of the outcomes (``outcomes``) and the ``calibrator``."""
        links = self.factual(batch)
        outcomes = self.outcome_loss(links, batch).mean(0).sum()
        chances = (links.float() + self.start)[:, list(self.order)].sigmoid()
        excess = torch.relu(chances[:, 1:] - chances[:, :-1]).sum(1)
        calibrator = (excess * batch.weight).mean()
        loss = outcomes + self.weight * calibrator
        return {"loss": loss, "outcomes": outcomes, "calibrator": calibrator}


ENTRY = Entry(
    name="aitm",
    net=AITM,
    config=AITMConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True, needs=("sequence",)),
    paper="Xi et al. 2021, Modeling the sequential dependence among audience multi-step conversions",
)
