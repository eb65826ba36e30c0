"""Hi-CI: an autoencoder whose latents don't tell treatments apart, and treatments by embedding.

Sharma et al. 2020, "Hi-CI: Deep Causal Inference in High Dimensions". Two networks trained together:

* decorrelation network: an autoencoder of the features; its latents z keep what the features say
  (reconstruction) but not which treatment was given: what can be read of the treatment from z
  should be its marginal distribution, p(t | z) = p(t);
* outcome network: on z and an embedding of the treatment, one vector a level, so that the number of
  treatments costs no head of its own.

The paper's treatments exclude each other. A treatment here is an arm; its embedding is the sum of
its levels', so several factors, and arms that were never given, are answered too.

Where the paper is silent we chose:

* Who reads the treatment from z. Were p(t | z), a softmax of z, trained by the decorrelation loss
  alone, it would ignore z and leave z as it is; against a reader that is trained to tell arms apart
  the encoder wins by staying a step ahead of it, and a fresh reader finds the arm again (we tried).
  But the best softmax reader answers the marginal exactly if z and the arms have no covariance, for
  that is its score at zero weights. So the loss is the covariance itself, free of scale: the share
  of each latent's variance that lies between arms, averaged over latents (0: p(t | z) = p(t)).
* That share needs several rows: rows see each other in the loss, never in the answers. In a trial it
  is (A - 1) / B by chance, and asks nothing of z.
* Reconstruction's target has no gradient (see M3E2), and is the features as the net reads them.
* What moderates an effect must pass through z, so ``latent`` is wide by default.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import MLP, ArmEmbedding, FeatureVector
from models.nets.base import LOSSES, Net
from models.space import Config, OneOf, Span, choice, integer, real

TINY = 1e-6  # variance of a latent, or weight of an arm, that counts as none


@dataclass(frozen=True)
class HiCIConfig(Config):
    """Settings of Hi-CI."""

    embedding: int = integer(8, 1, 256, "Width of a category's or level's embedding.")
    hidden: int = integer(64, 2, 4096, "Width inside the autoencoder.")
    latent: int = integer(32, 1, 1024, "Width of the latents z.", search=OneOf(16, 32, 64))
    width: int = integer(64, 2, 4096, "Width inside the outcome network.", search=OneOf(32, 64))
    layers: int = integer(2, 1, 16, "Hidden layers of the outcome network.", search=Span(1, 3))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    decorrelation: float = real(
        1.0, 0.0, 1e3, "Weight of the decorrelation loss.", search=Span(0.1, 10.0, log=True)
    )
    reconstruction: float = real(0.1, 0.0, 1e3, "Weight of the reconstruction loss.")
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class HiCI(Net):
    """Decorrelation network and outcome network."""

    trunk = ("features", "encode")
    couples_rows = True

    def __init__(self, shape: Shape, config: HiCIConfig) -> None:
        super().__init__(shape, config.loss)
        self.config = config
        self.features = FeatureVector(shape, config.embedding)
        self.encode = MLP(self.features.width, [config.hidden], config.latent)
        self.decode = MLP(config.latent, [config.hidden], self.features.width)
        self.arms = ArmEmbedding(shape.levels, config.embedding)
        self.read_latents = nn.Linear(config.latent, config.width)
        self.read_arm = nn.Linear(config.embedding, config.width, bias=False)
        hidden = [config.width] * (config.layers - 1)
        self.rest = MLP(config.width, hidden, shape.outcome_count, config.dropout)

    def latents(self, x: Tensor) -> Tensor:
        """z of the features as read: [B, F] -> [B, d]."""
        return self.encode(x).relu()

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        read = self.read_latents(self.latents(self.features(x_num, x_cat)))
        return self.rest(torch.relu(read[:, None] + self.read_arm(self.arms())))

    def outcome(self, z: Tensor, arm: Tensor) -> Tensor:
        """The links of given arms [B]: [B, d] -> [B, K]."""
        return self.rest(torch.relu(self.read_latents(z) + self.read_arm(self.arms())[arm]))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``outcome``, ``reconstruction`` and ``decorrelation``, and their weighted sum."""
        config, x = self.config, self.features(batch.x_num, batch.x_cat)
        z = self.latents(x)
        outcome = self.outcome_loss(self.outcome(z, batch.arm), batch).mean(0).sum()
        squared = (self.decode(z).float() - x.detach()).square().mean(1)
        reconstruction = (squared * batch.weight).mean()
        decorrelation = between_arms(z.float(), batch.arm, self.shape.arms, batch.weight)
        return {
            "loss": outcome
            + config.reconstruction * reconstruction
            + config.decorrelation * decorrelation,
            "outcome": outcome,
            "reconstruction": reconstruction,
            "decorrelation": decorrelation,
        }


def between_arms(z: Tensor, arm: Tensor, arms: int, weight: Tensor) -> Tensor:
    """Share of the latents' variance that lies between arms, their mean over latents: a scalar.

    The correlation ratio, from 0 to 1; a latent that doesn't vary has none.

    Args:
        z: [B, d].
        arm: [B].
        arms: A; arms without rows have no part.
        weight: Of the rows, [B].
    """
    z = z - (z * weight[:, None]).sum(0) / weight.sum()
    size = z.new_zeros(arms).index_add(0, arm, weight)
    sums = z.new_zeros(arms, z.shape[1]).index_add(0, arm, z * weight[:, None])
    between = (sums.square() / size.clamp(min=TINY)[:, None]).sum(0)
    total = (z.square() * weight[:, None]).sum(0)
    return (between / (total + TINY * weight.sum())).mean()


ENTRY = Entry(
    name="hi_ci",
    net=HiCI,
    config=HiCIConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Sharma et al. 2020, Hi-CI: Deep Causal Inference in High Dimensions",
)
