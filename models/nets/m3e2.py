"""M3E2: additive effects of simultaneous treatments, learned beside their propensities.

Paper: "M3E2: Multi-gate Mixture-of-experts for Multi-treatment Effect Estimation" (Aoki, Chen and
Ester; sections 3.1-3.4, equation 2). A treatment is a level of a factor, or a dose: so an arm is the
set of its treatments and its effect is the sum of theirs; an arm that was never given is answered from
its parts. :class:`M3E2Core` takes any matrix of treatments, continuous ones too; :class:`M3E2` gives it
the levels and doses of a campaign. A dose is one treatment, its number scaled to 0 (control) to 1: its
effect is linear in it, its propensity head the mean of a normal density.

Where the paper is silent we chose:

* X1 and X2. A campaign doesn't say which of its features are proxies of hidden confounders. By
  default both are all features: the latents alone would lose what the bottleneck drops, such as what
  moderates an effect, and X1 alone has no latents. ``share`` and ``overlap`` give the paper's
  other splits: X1 = {} is ``share=1, overlap=false``, X2 = {} is ``share=0``.
* The autoencoder reconstructs the features as the net reads them. The target has no gradient: an
  embedding that must be reconstructed would otherwise shrink to nothing.
* RMSE. Losses are means of squares, without the root: the root of a batch's mean is not a mean over
  rows, so shards would not add up. The minimum over any one term is the same.
* Experts are networks of one hidden layer, h_k a linear layer with a ReLU, p_k a linear layer on H_k
  (a logit of a binary treatment, the mean of a continuous one at unit variance).
* ``weights="balanced"`` multiplies a task's weight by (its loss / its first loss)^(1/2) (Liu, Liang
  and Gitter 2019). Losses are running averages up to the step before, from the training's start:
  so the weights of a step don't depend on its rows. Validation takes the fixed weights.
* n of the L2 term is the number of weights, so that lambda means the same at any width.
* K outcomes. Each has its own row of Phi; they share H.
* ``heterogeneous`` (not in the paper) adds V_l H to tau_l: effects stay additive over treatments,
  and may differ between units, without which no unit could be told from another. ``false`` is the
  paper: tau_l alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import (
    FeatureVector,
    Heads,
    Stacked,
    StackedMLP,
    Treatments,
    softmax,
    uniform,
)
from models.nets.base import LOSSES, Net
from models.space import Config, OneOf, Span, choice, flag, integer, real

PACE = 0.05  # how fast the running losses of balanced weights move


@dataclass(frozen=True)
class M3E2Config(Config):
    """Settings of M3E2."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    latent: int = integer(8, 1, 1024, "Width of the autoencoder's latents L.")
    hidden: int = integer(64, 2, 4096, "Width inside the autoencoder and the experts.")
    width: int = integer(32, 2, 1024, "Width of an expert and of H_k.", search=OneOf(16, 32, 64))
    experts: int = integer(4, 1, 64, "Experts.", search=Span(2, 6))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout inside the experts.", search=Span(0.0, 0.3))
    share: float = real(1.0, 0.0, 1.0, "X2: this share of the features, in their order.")
    overlap: bool = flag(True, "X1 is all features, not only those outside of X2.")
    heterogeneous: bool = flag(True, "Effects may differ between units; false is the paper's tau.")
    weights: str = choice("fixed", ("fixed", "balanced"), "Weights of the losses of equation 2.")
    alpha: float = real(1.0, 0.0, 1e3, "Weight of the outcomes' losses.")
    beta: float = real(0.1, 0.0, 1e3, "Weight of the propensities' losses.", search=OneOf(0.1, 1.0))
    gamma: float = real(0.1, 0.0, 1e3, "Weight of the autoencoder's loss.")
    decay: float = real(1e-4, 0.0, 1e3, "Weight of the L2 term (lambda).")
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


class Autoencoder(nn.Module):
    """Two linear layers down to the latents, two back (section 3.1): [B, F] -> [B, d], [B, F]."""

    def __init__(self, width: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(width, hidden), nn.Linear(hidden, latent))
        self.decode = nn.Sequential(nn.Linear(latent, hidden), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.encode(x)
        return latents, self.decode(latents)


class M3E2Core(nn.Module):
    """The network of figure 1 over raw covariates and treatments, binary or continuous.

    Sizes: B rows, F1 and F2 columns of X1 and X2, L treatments, K outcomes, w ``config.width``.

    Args:
        direct: F1.
        proxies: F2; 0 leaves the autoencoder out.
        continuous: Whether each treatment is continuous, [L].
        outcomes: K.
        config: ``loss``, ``embedding``, ``share`` and ``overlap`` are the caller's concern.
    """

    continuous: Tensor
    first: Tensor
    latest: Tensor
    steps: Tensor

    def __init__(
        self,
        direct: int,
        proxies: int,
        continuous: Sequence[bool],
        outcomes: int,
        config: M3E2Config,
    ) -> None:
        super().__init__()
        self.config = config
        treatments, width = len(continuous), config.width
        inputs = direct + (config.latent if proxies else 0)
        if not inputs:
            raise ValueError("X1 and X2 are both empty; give at least one covariate")
        self.autoencoder = Autoencoder(proxies, config.hidden, config.latent) if proxies else None
        self.experts = StackedMLP(config.experts, inputs, [config.hidden], width, config.dropout)
        self.gate = nn.Linear(inputs, treatments * config.experts, bias=False)
        self.heads = Stacked(treatments, width, width)
        self.propensity = Heads(treatments, width)
        self.tau = nn.Parameter(torch.zeros(treatments, outcomes))
        self.outcome = nn.Linear(width, outcomes)
        modifier = uniform(treatments, width, outcomes, fan=width)
        self.modifier = modifier if config.heterogeneous else None
        self.register_buffer("continuous", torch.tensor(continuous), persistent=False)
        tasks = outcomes + treatments + bool(proxies)
        self.register_buffer("first", torch.ones(tasks))
        self.register_buffer("latest", torch.ones(tasks))
        self.register_buffer("steps", torch.tensor(0))

    def represent(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """H of every treatment [B, L, w], and X2 as reconstructed [B, F2]."""
        x, rebuilt = x1, x2
        if self.autoencoder is not None:
            latents, rebuilt = self.autoencoder(x2)
            x = torch.cat([latents, x1], dim=-1)  # X_L1
        gates = softmax(self.gate(x).unflatten(-1, (-1, self.config.experts)))
        mixed = torch.einsum("ble,ebw->lbw", gates, self.experts(x))
        return self.heads(mixed).relu().transpose(0, 1), rebuilt

    def base(self, h: Tensor) -> Tensor:
        """What H adds to the outcomes whatever the treatment: [B, L, w] -> [B, K]."""
        return self.outcome(h.mean(1))

    def effects(self, h: Tensor) -> Tensor:
        """The effect of a unit of each treatment: [B, L, w] -> [B, L, K]."""
        if self.modifier is None:
            return self.tau.expand(len(h), -1, -1)
        return self.tau + torch.einsum("bw,lwk->blk", h.mean(1), self.modifier)

    def predict(self, h: Tensor, treatments: Tensor) -> Tensor:
        """Phi [T, H], the links of the treatments [B, L] that were given: [B, K]."""
        return self.base(h) + torch.einsum("bl,blk->bk", treatments, self.effects(h))

    def terms(
        self, h: Tensor, treatments: Tensor, x2: Tensor, rebuilt: Tensor, weight: Tensor
    ) -> list[Tensor]:
        """Losses of equation 2 but the outcomes': each treatment's [L] and the autoencoder's [1]."""
        guess = self.propensity(h).float()
        entropy = functional.binary_cross_entropy_with_logits(
            guess, treatments.clamp(0.0, 1.0), reduction="none"
        )
        by_treatment = torch.where(self.continuous, (guess - treatments).square(), entropy)
        terms = [(by_treatment * weight[:, None]).mean(0)]
        if self.autoencoder is not None:
            squared = (rebuilt.float() - x2.detach()).square().mean(1)
            terms.append((squared * weight).mean().unsqueeze(0))
        return terms

    def total(self, outcomes: Tensor, others: list[Tensor]) -> dict[str, Tensor]:
        """Equation 2 of the outcomes' losses [K] and the other :meth:`terms`."""
        config = self.config
        losses = torch.cat([outcomes, *others])
        fixed = torch.cat(
            [
                torch.full_like(part, size)
                for part, size in zip(
                    [outcomes, *others], (config.alpha, config.beta, config.gamma)
                )
            ]
        )
        weights = fixed * self.balance(losses.detach())
        squares = torch.stack([w.float().square().sum() for w in self.parameters()]).sum()
        decay = 0.5 * config.decay * squares / sum(w.numel() for w in self.parameters())
        terms = {"outcome": outcomes.sum(), "propensity": others[0].sum()}
        if len(others) > 1:
            terms["autoencoder"] = others[1].sum()
        return {"loss": (weights * losses).sum() + decay, **terms}

    @torch.no_grad()
    def balance(self, losses: Tensor) -> Tensor:
        """Factors of the tasks' weights [tasks], from the steps before this one."""
        factors = torch.ones_like(losses)
        if self.config.weights == "fixed" or not self.training:
            return factors
        if self.steps > 0:
            factors = (self.latest / self.first.clamp(min=1e-12)).sqrt()
        pace = torch.where(self.steps > 0, PACE, 1.0)
        self.latest.lerp_(losses, pace)
        self.first.copy_(torch.where(self.steps > 0, self.first, losses))
        self.steps.add_(1)
        return factors


class M3E2(Net):
    """M3E2 of a campaign: the treatments are the levels of its factors, and its doses."""

    trunk = ("features", "core.autoencoder", "core.experts", "core.gate")

    def __init__(self, shape: Shape, config: M3E2Config) -> None:
        super().__init__(shape, config.loss)
        self.features = FeatureVector(shape, config.embedding)
        widths = [1] * shape.numeric + [config.embedding] * len(shape.categories)
        self.cut = sum(widths[: round(config.share * shape.features)])
        self.after = 0 if config.overlap else self.cut
        self.treatments = Treatments(shape.levels, shape.doses)
        self.core = M3E2Core(
            self.features.width - self.after,
            self.cut,
            self.treatments.continuous.tolist(),
            shape.outcome_count,
            config,
        )

    def split(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, Tensor]:
        """X1 and X2, [B, F1] and [B, F2]."""
        x = self.features(x_num, x_cat)
        return x[:, self.after :], x[:, : self.cut]

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        h, _ = self.core.represent(*self.split(x_num, x_cat))
        arms = self.treatments.incidence.to(h.dtype)
        effects = torch.einsum("al,blk->bak", arms, self.core.effects(h))
        return self.core.base(h)[:, None] + effects

    def factual(self, batch: Batch) -> Tensor:
        h, _ = self.core.represent(*self.split(batch.x_num, batch.x_cat))
        return self.core.predict(h, self.treatments.given(batch))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 2, and its terms ``outcome``, ``propensity`` and ``autoencoder`` by themselves."""
        x1, x2 = self.split(batch.x_num, batch.x_cat)
        treatments = self.treatments.given(batch)
        h, rebuilt = self.core.represent(x1, x2)
        outcomes = self.outcome_loss(self.core.predict(h, treatments), batch).mean(0)
        others = self.core.terms(h, treatments, x2, rebuilt, batch.weight)
        return self.core.total(outcomes, others)

    def effects(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Each treatment's effect in link space, averaged over rows: [L, K].

        The treatments are the levels other than control, or a whole dose, a factor after another. Without ``heterogeneous``
        it is tau, whatever the rows.
        """
        h, _ = self.core.represent(*self.split(x_num, x_cat))
        return self.core.effects(h).float().mean(0)


ENTRY = Entry(
    name="m3e2",
    net=M3E2,
    config=M3E2Config,
    supports=Supports(arms=True, factors=True, outcomes=True, dose=True),
    paper="M3E2: Multi-gate Mixture-of-experts for Multi-treatment Effect Estimation",
)
