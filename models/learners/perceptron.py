"""Networks over encoded features: the other base learner of the meta-learners.

A model is a multilayer perceptron of one answer, or a number where the rows show nothing but an
average. It starts at the average (its last layer at 0), and is trained until held-out rows stop
improving; the weights of the best epoch are kept. Ids are embedded; an id that was not learned has
the embedding 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import MLP
from models.learners.boosting import (
    FEW,
    MOST_IDS,
    BoostConfig,
    Model,
    Sample,
    Trees,
    constant,
    weighty,
)
from models.space import Config, OneOf, Span, integer, real

FEW_EPOCHS = 5  # of training, where held-out rows are too few to say when to stop
STEPS = 120  # an epoch, if batches of 128 to 4096 rows make as many


@dataclass(frozen=True)
class PerceptronConfig(Config):
    """Settings of networks of outcomes, and of effects, which are simpler, and noisier."""

    learning_rate: float = real(
        0.002, 1e-6, 1.0, "Rate of AdamW.", search=Span(5e-4, 5e-3, log=True)
    )
    weight_decay: float = real(
        0.1, 0.0, 100.0, "Decoupled decay of AdamW.", search=Span(0.01, 1.0, log=True)
    )
    epochs: int = integer(50, 1, 100_000, "Most passes over the rows.")
    patience: int = integer(5, 1, 100_000, "Epochs without improvement before it stops.")
    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    layers: int = integer(2, 1, 16, "Hidden layers.", search=Span(1, 3))
    width: int = integer(64, 2, 4096, "Width of a hidden layer.", search=OneOf(32, 64, 128))
    effect_width: int = integer(
        32, 2, 4096, "Width of a hidden layer of effects.", search=OneOf(16, 32, 64)
    )


@dataclass(frozen=True)
class CrossFitPerceptronConfig(PerceptronConfig):
    """Settings of learners whose nuisances must not have seen the rows that they are used on."""

    folds: int = integer(3, 2, 50, "Parts of the units; each is answered by models of the others.")


@dataclass
class Perceptron:
    """A trained network, as arrays.

    Attributes:
        categorical: Which features are ids.
        tables: The embedding of each of them, [255, d].
        layers: Weights [out, in] and biases [out], first to last.
        mean, scale: Of the targets that it learned; a probability's are those of its link.
        rate: Whether it answers a probability.
        epochs: It was trained for.
    """

    categorical: list[int]
    tables: list[np.ndarray]
    layers: list[tuple[np.ndarray, np.ndarray]]
    mean: float
    scale: float
    rate: bool
    epochs: int

    def predict(self, x: np.ndarray) -> np.ndarray:
        """What it expects of rows [N, F], [N]."""
        numeric = np.delete(x, self.categorical, axis=1)
        ids = [table[x[:, at].astype(int)] for at, table in zip(self.categorical, self.tables)]
        hidden = np.concatenate([numeric, *ids], axis=1)
        for place, (weight, bias) in enumerate(self.layers):
            hidden = (np.maximum(hidden, 0.0) if place else hidden) @ weight.T + bias
        link = self.mean + self.scale * hidden[:, 0]
        return np.asarray(1.0 / (1.0 + np.exp(-link)) if self.rate else link)

    def __str__(self) -> str:
        return f"{self.epochs} epoch{'s' if self.epochs != 1 else ''}"


@dataclass(frozen=True)
class Perceptrons:
    """Networks as a base learner (:class:`models.learners.boosting.Base`)."""

    config: PerceptronConfig
    categorical: Sequence[int]
    seed: int

    @property
    def classes(self) -> Trees:
        """Who is given what is learned by boosted trees here too."""
        return Trees(BoostConfig(), self.categorical, self.seed)

    def with_ids(self, columns: Sequence[int]) -> Perceptrons:
        """The same, with more features that are ids."""
        return Perceptrons(self.config, [*self.categorical, *columns], self.seed)

    def fit(
        self, rows: Sample, held_out: Sample, *, rate: bool = False, effects: bool = False
    ) -> Model:
        """A network of the targets' mean."""
        used, stopping = weighty(rows), weighty(held_out)
        if (known := constant(rows, used)) is not None:
            return known
        mean, scale = _standard(used, rate)
        width = self.config.effect_width if effects else self.config.width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = _Net(used.x.shape[1], list(self.categorical), width, self.config)
            stop = len(stopping) >= FEW
            epochs = _train(net, used, stopping if stop else None, mean, scale, rate, self.config)
        return net.arrays(mean, scale, rate, epochs) if epochs else used.mean


class _Net(nn.Module):
    """The network while it is trained: features [N, F] -> [N]."""

    def __init__(
        self, features: int, categorical: list[int], width: int, config: PerceptronConfig
    ) -> None:
        super().__init__()
        self.categorical = categorical
        self.numeric = [place for place in range(features) if place not in set(categorical)]
        self.tables = nn.ParameterList(torch.zeros(MOST_IDS, config.embedding) for _ in categorical)
        first = len(self.numeric) + len(categorical) * config.embedding
        self.layers = MLP(first, [width] * config.layers, 1)
        nn.init.zeros_(self.linear[-1].weight)
        nn.init.zeros_(self.linear[-1].bias)

    @property
    def linear(self) -> list[nn.Linear]:
        return [layer for layer in self.layers.modules() if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        ids = [table[x[:, at].long()] for at, table in zip(self.categorical, self.tables)]
        answers: Tensor = self.layers(torch.cat([x[:, self.numeric], *ids], dim=1))
        return answers[:, 0]

    def arrays(self, mean: float, scale: float, rate: bool, epochs: int) -> Perceptron:
        layers = [
            (each.weight.detach().numpy(), each.bias.detach().numpy()) for each in self.linear
        ]
        tables = [table.detach().numpy() for table in self.tables]
        return Perceptron(self.categorical, tables, layers, mean, scale, rate, epochs)


def _standard(rows: Sample, rate: bool) -> tuple[float, float]:
    """Where answers start, and the unit that they are learned in."""
    mean = rows.mean
    if rate:
        share = min(max(mean, 1e-4), 1.0 - 1e-4)
        return float(np.log(share / (1.0 - share))), 1.0
    return mean, float(np.sqrt(np.average((rows.y - mean) ** 2, weights=rows.weight)))


def _train(
    net: _Net,
    rows: Sample,
    held_out: Sample | None,
    mean: float,
    scale: float,
    rate: bool,
    config: PerceptronConfig,
) -> int:
    """Train; leaves the best epoch's weights, and tells how many it took: 0 is the average's."""
    x, y, weight = _tensors(rows)
    size = int(2 ** np.clip(round(np.log2(max(len(rows), 1) / STEPS)), 7, 12))
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )

    def loss(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        link = mean + scale * net(x)
        if rate:
            each = functional.binary_cross_entropy_with_logits(link, y, reduction="none")
        else:
            each = ((link - y) / scale).square()
        return (each * weight).sum() / weight.sum()

    @torch.no_grad()
    def judged() -> float:
        return 0.0 if held_out is None else float(loss(*_tensors(held_out)))

    best, least, kept = 0, judged(), _copy(net)
    for epoch in range(1, (config.epochs if held_out is not None else FEW_EPOCHS) + 1):
        for part in torch.randperm(len(rows)).split(size):
            optimizer.zero_grad(set_to_none=True)
            loss(x[part], y[part], weight[part]).backward()
            optimizer.step()
        now = judged()
        if held_out is None or now < least:
            best, least, kept = epoch, now, _copy(net)
        elif epoch - best >= config.patience:
            break
    net.load_state_dict(kept)
    return best


def _tensors(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    x, y, weight = (
        torch.from_numpy(np.ascontiguousarray(part, np.float32))
        for part in (sample.x, sample.y, sample.weight)
    )
    return x, y, weight


def _array(weight: Tensor) -> np.ndarray:
    """In float64, so that an answer doesn't depend on the rows that come with it."""
    return weight.detach().numpy().astype(np.float64)


def _copy(net: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in net.state_dict().items()}
