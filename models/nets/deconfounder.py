"""The deconfounder: what several treatments have in common stands in for hidden confounders.

Wang and Blei 2019, "The blessings of multiple causes": fit a factor model to the treatments, take
the posterior mean of its factors as a substitute confounder z-hat, and fit an outcome model on the
treatments, z-hat and the covariates. Only a confounder that moves several treatments leaves a trace
in them, so it makes no sense with one factor. A treatment is a level of a factor.

Factor model, linear with Gaussian factors, given covariates x:

    z ~ N(0, I),  T | z, x ~ p(T; Lambda z + B x + b)

* a campaign's arm: p(arm) is proportional to exp(sum of its levels' entries of Lambda z + B x + b)
  over the campaign's arms. Where they are all combinations, that is one logistic (or softmax) model
  a factor; where arms are listed, factors that exclude each other by design don't look confounded;
* a matrix of treatments (:class:`FactorModel` by itself): Bernoulli or Gaussian columns. Gaussian
  ones without covariates are probabilistic PCA (Tipping and Bishop 1999).

Inference is variational and deterministic: q(z | T, x) is Gaussian, its mean linear in T and x, and
the expected logarithm of the normalizer is bounded by a tilted Jensen inequality (Knowles and Minka
2011). For Gaussian columns nothing is bounded away: the optimum is the PCA (Lucas et al. 2019).

Where the paper is silent, or leaves a choice, we chose:

* Two losses, one training. The paper fits the factor model first, then the outcomes, because a
  substitute that has seen the outcome is no confounder any more. Here both are trained at once and
  the outcomes' gradient stops at z-hat: the factor model learns what it would have learned alone,
  and there is one training, one checkpoint, one schedule.
* Outcome model: a network of x and the arm, plus a linear term W z-hat. The average over p(z) that
  the potential outcome takes is then its value at E[z] = 0, on the outcome's link scale, exactly.
* The prior of z is what keeps it honest: where treatments are independent given x, as in a trial
  of all combinations, the bound is best at Lambda = 0, z-hat vanishes and nothing is adjusted.
* Identification is the paper's own weak point (Ogburn et al. 2019; Zheng et al. 2021): z-hat is a
  function of T and x. What tells W z-hat from the effects of T is that W is small where it can be,
  which gradient descent from W = 0 sees to. With few treatments expect little of it.
* The factors are checked by their bound: :meth:`FactorModel.bound` on held-out rows against that of
  a model trained without loadings. The paper's predictive check asks for more, by simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import MLP, ArmEmbedding, FeatureVector
from models.nets.base import LOSSES, Net
from models.space import Config, OneOf, Span, choice, integer, real

STEPS = 8  # towards the best bound; it is a bound after any number


@dataclass(frozen=True)
class DeconfounderConfig(Config):
    """Settings of the deconfounder."""

    factors: int = integer(2, 1, 256, "Width of the substitute confounder.", search=Span(1, 4))
    embedding: int = integer(8, 1, 256, "Width of a category's or arm's embedding.")
    width: int = integer(128, 2, 4096, "Width of a hidden layer.", search=OneOf(64, 128, 256))
    layers: int = integer(2, 1, 16, "Hidden layers.", search=Span(1, 4))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    factor_weight: float = real(0.1, 1e-6, 1e3, "Weight of the factor model's loss.")
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")


def tilted_logsumexp(mean: Tensor, loading: Tensor) -> Tensor:
    """An upper bound of E log sum_a exp(mean_a + loading_a z), z ~ N(0, I): [B].

    Jensen's inequality after taking c z out of the sum, whose mean is 0, for any c: log sum_a
    exp(mean_a + |loading_a - c|^2 / 2) + |c|^2 / 2. At its best, c is the loadings' mean under
    those weights; c = 0 is Jensen's own. Knowles and Minka 2011 have it for independent logits.

    Args:
        mean: [B, A].
        loading: [A, d].
    """
    own = 0.5 * loading.square().sum(1)
    with torch.no_grad():
        # the objective is convex in c and bends by no more than this: every step comes down
        bend = 1.0 + (loading - loading.mean(0)).square().sum(1).max()
        c = torch.zeros_like(mean[:, :1] * loading[:1])
        for _ in range(STEPS):
            centre = (mean + own - c @ loading.mT).softmax(1) @ loading
            c = c + (centre - c) / bend
    return 0.5 * c.square().sum(1) + (mean + own - c @ loading.mT).logsumexp(1)


def tilted_softplus(mean: Tensor, variance: Tensor) -> Tensor:
    """An upper bound of E log(1 + exp(r)), r ~ N(mean [B, L], variance [L]): [B, L].

    :func:`tilted_logsumexp` of one logit against 0, where c is a share of the logit's deviation.
    """
    with torch.no_grad():
        share = torch.zeros_like(mean)
        for _ in range(STEPS):
            chance = (mean + (0.5 - share) * variance).sigmoid()
            share = share + (chance - share) / (1.0 + 0.25 * variance)
    top = functional.softplus(mean + (0.5 - share) * variance)
    return 0.5 * share.square() * variance + top


class FactorModel(nn.Module):
    """A linear factor model of treatments: bounds their likelihood, infers their common factors.

    Sizes: B rows, L treatments, d factors, F covariates.

    Args:
        treatments: L.
        factors: d.
        covariates: F; 0 for a model of the treatments alone.
        family: ``bernoulli`` or ``gaussian``; a known list of arms goes by Bernoulli parameters.
    """

    def __init__(
        self, treatments: int, factors: int, covariates: int = 0, family: str = "bernoulli"
    ) -> None:
        super().__init__()
        self.loading = nn.Parameter(0.1 * torch.randn(treatments, factors))  # Lambda
        self.intercept = nn.Parameter(torch.zeros(treatments))
        self.slope = nn.Linear(covariates, treatments, bias=False) if covariates else None
        self.infer = nn.Linear(treatments + covariates, factors)
        nn.init.zeros_(self.infer.weight)  # starts at the prior: z-hat is 0 until factors help
        nn.init.zeros_(self.infer.bias)
        self.log_spread = nn.Parameter(torch.zeros(factors))  # of q(z | T, x)
        self.log_noise = nn.Parameter(torch.zeros(treatments)) if family == "gaussian" else None

    def posterior(self, treatments: Tensor, x: Tensor | None = None) -> Tensor:
        """The mean of q(z | T, x), the substitute confounder: [B, L] (and [B, F]) -> [B, d]."""
        given = treatments if x is None else torch.cat([treatments, x], dim=-1)
        return self.infer(given)

    def predictors(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Lambda z + B x + b: [B, d] (and [B, F]) -> [B, L]."""
        linear = z @ self.loading.mT + self.intercept
        return linear if self.slope is None or x is None else linear + self.slope(x)

    def bound(
        self, treatments: Tensor, x: Tensor | None = None, arms: Tensor | None = None
    ) -> Tensor:
        """A lower bound of log p(T | x), one a row: [B].

        Args:
            treatments: [B, L].
            x: Covariates, [B, F].
            arms: The treatments' values that are possible, [A, L]; None where columns are free.
        """
        mean = self.posterior(treatments, x)
        predictors = self.predictors(mean, x).to(self.loading.dtype)
        loading = self.loading * self.log_spread.exp()  # Lambda S^(1/2)
        if self.log_noise is not None:
            variance = (2.0 * self.log_noise).exp()
            squared = (treatments - predictors).square() + loading.square().sum(1)
            fit = -0.5 * (squared / variance + variance.log() + math.log(2.0 * math.pi)).sum(1)
        elif arms is None:
            top = tilted_softplus(predictors, loading.square().sum(1))
            fit = (treatments * predictors - top).sum(1)
        else:
            top = tilted_logsumexp(predictors @ arms.mT, arms @ loading)
            fit = (treatments * predictors).sum(1) - top
        return fit - self.divergence(mean.to(self.loading.dtype))

    def divergence(self, mean: Tensor) -> Tensor:
        """KL(q(z) || N(0, I)) of posterior means [B, d]: [B]."""
        spread = (2.0 * self.log_spread).exp()
        return 0.5 * (mean.square() + spread - 1.0 - 2.0 * self.log_spread).sum(1)


class Deconfounder(Net):
    """Outcomes of arm, features and the substitute confounder of several factors."""

    trunk = ("features", "read_features")

    def __init__(self, shape: Shape, config: DeconfounderConfig) -> None:
        super().__init__(shape, config.loss)
        self.config = config
        self.features = FeatureVector(shape, config.embedding)
        self.arms = ArmEmbedding(shape.levels, config.embedding)
        levels, width = self.arms.incidence.shape[1], self.features.width
        self.factors = FactorModel(levels, config.factors, width)
        self.read_features = nn.Linear(width, config.width)
        self.read_arm = nn.Linear(config.embedding, config.width, bias=False)
        hidden = [config.width] * (config.layers - 1)
        self.rest = MLP(config.width, hidden, shape.outcome_count, config.dropout)
        self.adjust = nn.Linear(config.factors, shape.outcome_count, bias=False)  # W
        nn.init.zeros_(self.adjust.weight)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Under do(arm): z takes its prior mean, 0."""
        features = self.read_features(self.features(x_num, x_cat))
        arms = self.read_arm(self.arms())
        return self.rest(torch.relu(features[:, None] + arms))

    def substitute(self, batch: Batch) -> Tensor:
        """z-hat, the substitute confounder of the arms that were given: [B, d]."""
        x = self.features(batch.x_num, batch.x_cat)
        return self.factors.posterior(self.arms.incidence[batch.arm], x)

    def factual(self, batch: Batch) -> Tensor:
        """The links of the given arm with z at z-hat, whose gradient stops there: [B, K]."""
        features = self.read_features(self.features(batch.x_num, batch.x_cat))
        arms = self.read_arm(self.arms())
        answer = self.rest(torch.relu(features + arms[batch.arm]))
        return answer + self.adjust(self.substitute(batch).detach())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``outcome`` and ``factors`` (the negative bound), and their weighted sum."""
        outcome = self.outcome_loss(self.factual(batch), batch).mean(0).sum()
        x = self.features(batch.x_num, batch.x_cat).detach()
        given = self.arms.incidence[batch.arm]
        bound = self.factors.bound(given, x, self.arms.incidence)
        factors = -(bound * batch.weight).mean()
        loss = outcome + self.config.factor_weight * factors
        return {"loss": loss, "outcome": outcome, "factors": factors}


ENTRY = Entry(
    name="deconfounder",
    net=Deconfounder,
    config=DeconfounderConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, needs=("factors",)),
    paper="Wang and Blei 2019, The blessings of multiple causes",
)
