"""APEM: patterns that each row selects among its fields, what each task asks of them, and the chain.

Paper: "Adaptive Pattern Extraction Multi-Task Learning for Multi-Step Conversion Estimations"
(equations 10-23; the blocks are in :mod:`models.patterns`, with what they chose). The treatment is
one more field: a token, so that patterns, selection and tasks all see it beside the features.

Where the paper is silent or meets another setting we chose:

* Numeric fields. The paper rounds their logarithms and embeds the result; our numeric features are
  normal scores already, so :class:`models.layers.FeatureTokens` takes them as they are.
* Towers. Eq. 19's representation goes through one hidden layer an outcome.
* The chain is the binary outcomes of the campaign's sequence; without one the net is a plain
  multi-task net. The dependence loss (eq. 21 with 23) is on probabilities, of the given arm, where
  both outcomes were observed. Outcomes of the chain keep heads of their own: eq. 21 ties them
  by what they must differ by and not by products.
* Size. The paper has 64 points and 4 layers for 38 million rows; ours are fewer by default.
* All arms: patterns depend on the treatment from the first layer on, so tokens of features are made
  once and every arm then runs through the layers.
* Ablations: without the generator, self-attention over the fields; without indicators, every task
  reads the mean of the last layer's patterns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from campaigns.errors import CampaignError
from models.catalog import Entry, Supports
from models.chains import chain
from models.data import Batch, Shape
from models.layers import ArmEmbedding, FeatureTokens, StackedMLP
from models.nets.base import LOSSES, Net, NetConfig
from models.patterns import SHARPEN, Generator, PatternSelector, advance
from models.space import OneOf, Span, choice, flag, integer, real


@dataclass(frozen=True)
class APEMConfig(NetConfig):
    """Settings of APEM; the flags, and 0 for ``dependence``, are the ablations of table 4.

    Raises:
        CampaignError: A width that the heads can't split.
    """

    width: int = integer(16, 2, 512, "Width of a field's token.", search=OneOf(8, 16, 32))
    points: int = integer(16, 1, 1024, "Inducing points, patterns.", search=OneOf(8, 16, 32))
    layers: int = integer(2, 1, 16, "Layers of patterns.", search=Span(1, 3))
    heads: int = integer(2, 1, 64, "Heads of attention; they split the width.")
    hidden: int = integer(64, 2, 4096, "Width inside selectors and towers.")
    dropout: float = real(0.0, 0.0, 0.9, "Dropout in the towers.")
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")
    dependence: float = real(
        1.0, 0.0, 100.0, "Weight sigma of the dependence loss.", search=Span(0.1, 10.0, log=True)
    )
    sharpen_steps: int = integer(SHARPEN, 1, 10**9, "Steps until selections are all or nothing.")
    generator: bool = flag(True, "Patterns at inducing points, not self-attention of the fields.")
    selector: bool = flag(True, "Each row selects its patterns (eq. 11-14).")
    indicators: bool = flag(True, "Each task asks the patterns by its own indicators (eq. 18).")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise CampaignError(
                f"{type(self).__name__}: {self.heads} heads can't split a width of {self.width}; "
                "give a width that is a multiple of heads"
            )


class APEM(Net):
    """Layers of patterns, a pattern selector beside each, a tower for each outcome."""

    trunk = ("tokens", "arms", "treatment", "layers")  # patterns see the treatment: all or nothing

    def __init__(self, shape: Shape, config: APEMConfig) -> None:
        super().__init__(shape, config.loss)
        self.config, self.order = config, chain(shape)
        width, heads, tasks = config.width, config.heads, shape.outcome_count
        self.tokens = FeatureTokens(shape, width)
        self.arms = ArmEmbedding(shape.levels, width)
        self.treatment = nn.Parameter(torch.randn(width))  # control's token; levels add to it
        points = config.points if config.generator else 0
        hidden = config.hidden if config.selector else 0
        counts = [shape.features + 1, *[config.points] * (config.layers - 1)]
        self.layers = nn.ModuleList(
            Generator(count, width, points, heads, hidden, config.sharpen_steps, place == 0)
            for place, count in enumerate(counts)
        )
        asks = config.layers if config.indicators else 0
        self.selectors = nn.ModuleList(PatternSelector(tasks, width, heads) for _ in range(asks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(asks))
        self.towers = StackedMLP(tasks, width, [config.hidden], 1, config.dropout)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        tokens = self.tokens(x_num, x_cat)
        arms = (self.treatment + self.arms())[:, None].to(tokens.dtype)
        rows, count = len(tokens), len(arms)
        fields = torch.cat(
            [
                tokens.unsqueeze(1).expand(-1, count, -1, -1),
                arms.unsqueeze(0).expand(rows, -1, -1, -1),
            ],
            dim=2,
        )
        return self.answer(fields.flatten(0, 1)).unflatten(0, (rows, count))

    def factual(self, batch: Batch) -> Tensor:
        tokens = self.tokens(batch.x_num, batch.x_cat)
        arms = (self.treatment + self.arms())[batch.arm].unsqueeze(1)
        return self.answer(torch.cat([tokens, arms.to(tokens.dtype)], dim=1))

    def answer(self, fields: Tensor) -> Tensor:
        """Links less :attr:`start`, [N, K], of the tokens of features and treatment [N, T + 1, d]."""
        found = self.represent(fields)
        return self.towers(found.transpose(0, 1)).squeeze(-1).T

    def represent(self, fields: Tensor) -> Tensor:
        """What the tasks find, T_i of eq. 19: [N, T + 1, d] -> [N, K, d]."""
        patterns, found = fields, None
        for place, layer in enumerate(self.layers):
            patterns = layer(patterns)
            if not self.config.indicators:
                continue
            asked = self.selectors[place](patterns)
            found = self.norms[place](asked if found is None else found + asked)
        if found is None:
            return patterns.mean(1, keepdim=True).expand(-1, self.shape.outcome_count, -1)
        return found

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 21: the ``outcomes``' losses and the ``dependence`` of each step on the one before."""
        if self.training:
            advance(self)
        links = self.factual(batch)
        outcomes = self.outcome_loss(links, batch).mean(0).sum()
        if len(self.order) < 2 or not self.config.dependence:
            return {"loss": outcomes}
        dependence = self.dependence(links, batch).mean(0).sum()
        loss = outcomes + self.config.dependence * dependence
        return {"loss": loss, "outcomes": outcomes, "dependence": dependence}

    def dependence(self, links: Tensor, batch: Batch) -> Tensor:
        """Weighted squared error of each step's failure after the one before, [B, J - 1] (eq. 23)."""
        links = links.float() + self.start
        chances = torch.where(self.logistic, links.sigmoid(), links)[:, list(self.order)]
        y, seen = batch.y[:, list(self.order)], batch.y_mask[:, list(self.order)]
        y = torch.where(seen > 0, y, 0.0)
        error = (chances[:, :-1] - chances[:, 1:]) - (y[:, :-1] - y[:, 1:])
        return error.square() * seen[:, :-1] * seen[:, 1:] * batch.weight[:, None]


ENTRY = Entry(
    name="apem",
    net=APEM,
    config=APEMConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Adaptive Pattern Extraction Multi-Task Learning for Multi-Step Conversion Estimations",
)
