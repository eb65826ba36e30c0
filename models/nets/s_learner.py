"""S-learner: one network for all arms, the treatment among its inputs.

Künzel et al. 2019, "Metalearners for estimating heterogeneous treatment effects using machine
learning", with the treatment's levels embedded so that one network takes arms of any number and
several factors. A dose is a vector times its number, so that doses learn from each other, and those
that were logged needn't be arms. The first layer adds what it makes of the features to what it makes
of the arm, so the features are read once for all arms, and training computes the given arm only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import MLP, ArmEmbedding, FeatureVector
from models.nets.base import LOSSES, Net, NetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class SLearnerConfig(NetConfig):
    """Settings of the S-learner."""

    embedding: int = integer(8, 1, 256, "Width of a category's or arm's embedding.")
    width: int = integer(128, 2, 4096, "Width of a hidden layer.", search=OneOf(64, 128, 256))
    layers: int = integer(2, 1, 16, "Hidden layers.", search=Span(1, 4))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class SLearner(Net):
    """One network over features and treatment."""

    chains = True
    trunk = ("features", "read_features")

    def __init__(self, shape: Shape, config: SLearnerConfig) -> None:
        super().__init__(shape, config.loss)
        self.features = FeatureVector(shape, config.embedding)
        self.arms = ArmEmbedding(shape.levels, config.embedding, shape.doses)
        self.read_features = nn.Linear(self.features.width, config.width)
        self.read_arm = nn.Linear(config.embedding, config.width, bias=False)
        hidden = [config.width] * (config.layers - 1)
        self.rest = MLP(config.width, hidden, shape.outcome_count, config.dropout)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        features = self.read_features(self.features(x_num, x_cat))
        arms = self.read_arm(self.arms())
        return self.rest(torch.relu(features[:, None] + arms))

    def factual(self, batch: Batch) -> Tensor:
        features = self.read_features(self.features(batch.x_num, batch.x_cat))
        if self.arms.dosed:
            arms = self.read_arm(self.arms.rows(batch))
        else:
            arms = self.read_arm(self.arms())[batch.arm]
        return self.rest(torch.relu(features + arms))


ENTRY = Entry(
    name="s_learner",
    net=SLearner,
    config=SLearnerConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, dose=True, sequence=True),
    paper="Künzel et al. 2019, Metalearners for estimating heterogeneous treatment effects",
)
