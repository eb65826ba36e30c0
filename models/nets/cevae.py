"""CEVAE: a variational autoencoder whose latents stand for confounders seen through proxies.

Louizos et al. 2017, "Causal Effect Inference with Deep Latent-Variable Models" (equations 2-8). The
model generates features, treatment and outcomes from z ~ N(0, I):

    p(x | z),  p(t | z),  p(y | t, z)

and is fitted by the evidence bound of q(z | x, t, y), with q(t | x) and q(y | x, t) beside it to fill
in what a new unit has not had yet (equation 8). Our version has A arms and K outcomes: t is the arm,
a softmax in p(t | z) and q(t | x); p(y | t, z), q(y | x, t) and q(z | x, t, y) have a head for each
arm, as the paper's have one for t = 0 and one for t = 1.

Where the paper is silent we chose:

* An arm is one of A, whatever its factors: with many arms each head sees few rows.
* Features. Numeric ones are Gaussian with unit variance, which is what the encoder standardised them
  to (but see ``kl``); categories are softmax.
* Outcomes. Count and continuous ones are Gaussian, as standardised; binary ones Bernoulli, or
  Gaussian under ``loss="mse"``. What was not observed has no term in the bound.
* ``see_outcomes=false``: q(z | x, t, y) is given what q(y | x, t) expects in place of y, in training
  as for a new unit. Any q gives a bound; one that sees y copies it into z. ``true`` is the paper's.
* Answers average p(y | do(a), z) over q(t | x) q(z | x, t, y(x, t)). The arms are summed exactly; z
  is fixed normal draws, the same for each unit, and their mirror images; or its mean. So an answer
  is repeatable and no row depends on another.
* Training takes z at a draw and at its mirror image, mean + noise and mean - noise; evaluation at its
  mean, so that validation is repeatable.
* ``kl`` weighs KL(q || p(z)) and p(t | z). It is 0.1 so that z keeps single features that moderate an
  effect: under the paper's bound, ``kl=1``, what is worth less than its nats is forgotten, and a
  trial's effects look all the same. But a rich z tells arms apart, and then adjusts for less: give
  ``kl=1`` for logs that were not randomized, where features are many noisy copies of a confounder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import MLP, FeatureVector, StackedMLP
from models.nets.base import LOSSES, Net, of_arm
from models.space import Config, OneOf, Span, choice, flag, integer, real

LOWEST, HIGHEST = -5.0, 2.0  # logarithm of a posterior's spread


@dataclass(frozen=True)
class CEVAEConfig(Config):
    """Settings of CEVAE."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    latent: int = integer(16, 1, 1024, "Width of z.", search=OneOf(8, 16, 32))
    width: int = integer(64, 2, 4096, "Width of a hidden layer.", search=OneOf(32, 64, 128))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout in the networks of arms.", search=Span(0.0, 0.3))
    reconstruction: float = real(
        1.0, 1e-6, 1e4, "Weight of p(x | z).", search=Span(0.1, 1.0, log=True)
    )
    kl: float = real(
        0.1, 0.0, 1e3, "Weight of KL(q(z) || p(z)) and p(t | z).", search=OneOf(0.03, 0.1, 0.3)
    )
    see_outcomes: bool = flag(False, "Whether q(z | x, t, y) sees y, or what q(y | x, t) expects.")
    samples: int = integer(8, 0, 1024, "Draws of z in an answer, in pairs; 0 is its mean.")
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class FeatureLikelihood(nn.Module):
    """-log p(x | z) but for constants, one a row, from a hidden layer: [B, w] -> [B]."""

    column: Tensor
    offsets: Tensor

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        sizes = torch.tensor(shape.categories, dtype=torch.int64)
        column = torch.arange(len(sizes)).repeat_interleave(sizes)
        self.register_buffer("column", column, persistent=False)
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
        self.mean = nn.Linear(width, shape.numeric) if shape.numeric else None
        self.logits = nn.Linear(width, len(column)) if len(column) else None

    def forward(self, hidden: Tensor, x_num: Tensor, x_cat: Tensor) -> Tensor:
        loss = hidden.new_zeros(len(hidden), dtype=torch.float32)
        if self.mean is not None:
            loss = loss + 0.5 * (self.mean(hidden).float() - x_num).square().sum(1)
        if self.logits is not None:
            logits = self.logits(hidden).float()
            given = logits.gather(1, x_cat + self.offsets)
            loss = loss + (self.normalizers(logits) - given).sum(1)
        return loss

    def normalizers(self, logits: Tensor) -> Tensor:
        """log-sum-exp of each column's categories: [B, all categories] -> [B, F_c]."""
        at = self.column.expand(len(logits), -1)
        top = logits.detach().new_full((len(logits), len(self.offsets)), -torch.inf)
        top = top.scatter_reduce(1, at, logits.detach(), "amax")
        sums = torch.zeros_like(top).scatter_add(1, at, (logits - top.gather(1, at)).exp())
        return sums.log() + top


class CEVAE(Net):
    """Causal effect variational autoencoder of A arms and K outcomes."""

    trunk = ("features", "encode")
    draws: Tensor

    def __init__(self, shape: Shape, config: CEVAEConfig) -> None:
        super().__init__(shape, config.loss)
        self.config = config
        arms, outcomes, width = shape.arms, shape.outcome_count, config.width
        latent = config.latent
        self.features = FeatureVector(shape, config.embedding)
        self.encode = nn.Sequential(MLP(self.features.width, [width], width), nn.ReLU())
        self.guess_arm = nn.Linear(width, arms)  # q(t | x)
        self.guess_outcome = StackedMLP(arms, width, [width], outcomes, config.dropout)
        self.infer = StackedMLP(arms, width + outcomes, [width], 2 * latent, config.dropout)
        self.decode = nn.Sequential(MLP(latent, [width], width), nn.ReLU())
        self.likelihood = FeatureLikelihood(shape, width)
        self.arm = MLP(latent, [width], arms)  # p(t | z)
        self.outcome = StackedMLP(arms, latent, [width], outcomes, config.dropout)
        pairs = (config.samples + 1) // 2
        half = torch.randn(pairs, latent, generator=torch.Generator().manual_seed(0))
        draws = torch.cat([half, -half]) if config.samples else torch.zeros(1, latent)
        self.register_buffer("draws", draws, persistent=False)

    def potential_outcomes(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """E of p(y | do(a), z) over what is inferred of z from the features alone: [B, A, K]."""
        hidden = self.encode(self.features(x_num, x_cat))
        chance = self.guess_arm(hidden).float().softmax(1)
        mean, spread = self.posteriors(hidden, self.imputed(hidden))  # [A, B, d], of each arm
        z = mean + spread * self.draws[:, None, None]  # [S, A, B, d]
        outcomes = self.respond(self.outcome(z.flatten(0, 2)).transpose(0, 1))
        outcomes = outcomes.unflatten(0, z.shape[:3])  # of draw, arm that was given, row: [A, K]
        expected = outcomes.mean(0) * chance.mT[..., None, None]
        return expected.sum(0)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Links at the mean of z, averaged over the arms that q(t | x) expects: [B, A, K]."""
        hidden = self.encode(self.features(x_num, x_cat))
        chance = self.guess_arm(hidden).softmax(1)
        mean, _ = self.posteriors(hidden, self.imputed(hidden))
        z = torch.einsum("ba,abd->bd", chance, mean)
        return self.outcome(z).transpose(0, 1)

    def imputed(self, hidden: Tensor) -> Tensor:
        """What q(y | x, t) expects under each arm: [B, w] -> [A, B, K]."""
        links = self.guess_outcome(hidden).float()
        return torch.where(self.logistic, (links + self.start).sigmoid(), links + self.start)

    def posteriors(self, hidden: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of q(z | x, t, y) for each arm t and outcomes y [A, B, K]: [A, B, d]."""
        arms = len(y)
        given = torch.cat([hidden.expand(arms, -1, -1), (y - self.start).to(hidden.dtype)], dim=-1)
        mean, log_spread = self.infer(given).float().chunk(2, dim=-1)
        return mean, (log_spread - 1.0).clamp(LOWEST, HIGHEST).exp()  # starts below the prior's

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Minus the bound of equation 6 and 8, by terms.

        ``outcome`` is p(y | t, z), ``features`` p(x | z), ``treatment`` p(t | z), ``kl`` what z was told;
        ``auxiliary`` is q(t | x) and q(y | x, t).
        """
        config, arm = self.config, batch.arm
        hidden = self.encode(self.features(batch.x_num, batch.x_cat))
        guessed = of_arm(self.guess_outcome(hidden).transpose(0, 1), arm)
        means = guessed.detach().float() + self.start
        means = torch.where(self.logistic, means.sigmoid(), means)
        shown = batch.y_mask * config.see_outcomes
        y = torch.where(shown > 0, batch.y, means).expand(self.shape.arms, -1, -1)
        of_all, spreads = self.posteriors(hidden, y)
        mean, spread = (of_arm(each.transpose(0, 1), arm) for each in (of_all, spreads))
        noise = torch.randn_like(spread) if self.training else torch.zeros_like(spread)
        z = torch.cat([mean + spread * noise, mean - spread * noise])
        twice = Batch(*(torch.cat([each, each]) for each in vars(batch).values()))
        links = of_arm(self.outcome(z).transpose(0, 1), twice.arm)
        divergence = 0.5 * (mean.square() + spread.square() - 1.0) - spread.log()
        features = self.likelihood(self.decode(z), twice.x_num, twice.x_cat)
        by_row = {
            "outcome": self.outcome_loss(links, twice).sum(1),
            "features": features * twice.weight,
            "treatment": self.arm_loss(self.arm(z), twice),
            "kl": divergence.sum(1) * batch.weight,
            "auxiliary": self.outcome_loss(guessed, batch).sum(1)
            + self.arm_loss(self.guess_arm(hidden), batch),
        }
        terms = {name: row.mean() for name, row in by_row.items()}
        weights = {
            "features": config.reconstruction,
            "kl": config.kl,
            "treatment": config.kl,
        }
        loss = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return {"loss": loss, **terms}

    def arm_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Weighted cross-entropy of the given arm, one a row: [B, A] -> [B]."""
        entropy = functional.cross_entropy(logits.float(), batch.arm, reduction="none")
        return entropy * batch.weight


ENTRY = Entry(
    name="cevae",
    net=CEVAE,
    config=CEVAEConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Louizos et al. 2017, Causal Effect Inference with Deep Latent-Variable Models",
)
