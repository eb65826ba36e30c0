"""DESCN: responses learned in the space of all rows, tied together by a pseudo effect.

Zhong et al. 2022, "DESCN: Deep Entire Space Cross Networks for Individual Treatment Effect
Estimation". A shared network carries a propensity head pi, a response head mu and a pseudo effect
head tau. What a row says of an arm that it wasn't given is that y 1[t = a] is 0, and
E[y 1[t = a] | x] = pi_a(x) mu_a(x): so every row teaches every arm's response (entire space network),
with no bias by who is treated. The cross network has mu_0 + tau predict treated rows and mu_1 - tau
control rows, so that responses of small groups learn from large ones:

    L = w_pi L_pi + w_e (L_ESTR + L_ESCR) + w_x (L_CrossTR + L_CrossCR)

Uplift is mu_a - mu_0; tau is a means of training. Where the paper is silent, or made for one
treatment, we chose:

* Several arms and outcomes. pi is a softmax over arms; every arm has an entire space loss, and a
  response and a pseudo effect for each outcome. A control row's cross loss is the mean over arms.
* Which pi. ``propensity="logged"`` takes the given arm's from the log and is the default: there it is
  known, and a learned pi would move to make up for errors of mu in their product. What the log
  doesn't tell, how the rest falls to the other arms, is shared as the head has it (with two arms
  there is nothing to share). Without logged propensities (all 1) the losses become those of the
  given arm. ``learned`` is the paper's, gradient and all.
* Other outcomes than binary ones under ``loss="bce"``. The squared error of the product, divided by
  pi (a constant to the gradient) as the variance of y 1[t = a] goes with it, of y less its mean: a
  response near 0 makes for less noise. Multiplied out, it is sum_a pi_a mu_a^2 - 2 y mu_t and a
  constant: the given arm's squared error with mu_t^2 replaced by its mean over arms.
* The cross network adds tau to links: logits under ``bce``, as in the authors' code.
* Averages are over all rows, where the authors' cross losses average over each group. Rows aren't
  weighted by the size of their group; a campaign's own weights apply.
* ``response_weight`` adds the given arm's own loss (L_TR + L_CR of the paper's X-network). The
  paper's DESCN goes without, and so do we by default; a search tries both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.layers import MLP, StackedMLP
from models.nets.base import LOSSES, Net, NetConfig, of_arm
from models.representation import Representation
from models.space import OneOf, Span, choice, integer, real

LEAST = 0.001  # no arm is less probable, nor more probable than 1 less it


@dataclass(frozen=True)
class DESCNConfig(NetConfig):
    """Settings of DESCN."""

    embedding: int = integer(8, 1, 256, "Width of a category's embedding.")
    width: int = integer(64, 2, 4096, "Width of the shared network.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Layers of the shared network.", search=Span(1, 3))
    hidden: int = integer(64, 2, 4096, "Width of a head's layers.", search=OneOf(16, 32, 64))
    head_layers: int = integer(1, 0, 16, "Hidden layers of a head.", search=Span(0, 2))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes.")
    propensity: str = choice("logged", ("logged", "learned"), "The pi of the entire space losses.")
    propensity_weight: float = real(0.5, 0.0, 1e6, "Weight of predicting the arm, w_pi.")
    entire_weight: float = real(1.0, 0.0, 1e6, "Weight of the entire space losses, w_e.")
    cross_weight: float = real(
        1.0, 0.0, 1e6, "Weight of the cross losses, w_x.", search=Span(0.1, 1.0, log=True)
    )
    response_weight: float = real(
        0.0, 0.0, 1e6, "Weight of the given arm's own loss.", search=OneOf(0.0, 1.0)
    )


class DESCN(Net):
    """Entire space network and cross network on one representation."""

    trunk = ("representation",)

    def __init__(self, shape: Shape, config: DESCNConfig) -> None:
        super().__init__(shape, config.loss)
        self.config = config
        self.representation = Representation(
            shape, config.embedding, config.width, config.layers, config.dropout
        )
        hidden, outcomes = [config.hidden] * config.head_layers, shape.outcome_count
        sizes = (config.width, hidden, outcomes, config.dropout)
        self.propensity = MLP(config.width, hidden, shape.arms, config.dropout)
        self.responses = StackedMLP(shape.arms, *sizes)
        self.effects = StackedMLP(shape.arms - 1, *sizes)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        return self.responses(self.representation(x_num, x_cat)).transpose(0, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``propensity``, ``entire``, ``cross`` and ``response``, and their weighted sum."""
        phi = self.representation(batch.x_num, batch.x_cat)
        links, effects = self.responses(phi).transpose(0, 1).float(), self.effects(phi).float()
        logits = self.propensity(phi).float()
        told = functional.cross_entropy(logits, batch.arm, reduction="none")
        chances = self.chances(logits.softmax(-1), batch)
        terms = {
            "propensity": (told * batch.weight).mean(),
            "entire": self.entire(links, chances, batch).mean(),
            "cross": self.cross(links, effects, batch).mean(),
            "response": self.outcome_loss(of_arm(links, batch.arm), batch).sum(1).mean(),
        }
        config = self.config
        total = config.propensity_weight * terms["propensity"]
        total = total + config.entire_weight * terms["entire"]
        total = total + config.cross_weight * terms["cross"]
        return {"loss": total + config.response_weight * terms["response"], **terms}

    def chances(self, learned: Tensor, batch: Batch) -> Tensor:
        """pi of every arm, [B, A], from the head's [B, A] and what the log says of the given arm."""
        if self.config.propensity == "logged":
            given, learned = self.given(batch.arm), learned.detach()
            others = (learned * ~given).clamp_min(1e-12) * ~given
            share = others / others.sum(1, keepdim=True)
            known = batch.propensity[:, None]
            learned = torch.where(given, known, (1 - known) * share)
        return learned.clamp(LEAST, 1 - LEAST)

    def entire(self, links: Tensor, chances: Tensor, batch: Batch) -> Tensor:
        """Loss of pi_a mu_a for y 1[t = a], summed over arms and outcomes: [B]."""
        given, pi = self.given(batch.arm)[..., None], chances[..., None]
        y = torch.where(batch.y_mask > 0, batch.y, 0.0)[:, None]
        logit, target = links + self.start, torch.where(given, y, 0.0)
        log_product = pi.log() + functional.logsigmoid(logit)
        entropy = -target * log_product - (1 - target) * torch.log1p(-pi * logit.sigmoid())
        squared = (pi * links - torch.where(given, y - self.start, 0.0)).square() / pi.detach()
        row_loss = torch.where(self.logistic, entropy, squared).sum(1) * batch.y_mask
        return row_loss.sum(1) * batch.weight

    def cross(self, links: Tensor, effects: Tensor, batch: Batch) -> Tensor:
        """Loss of mu_0 + tau_a for rows of arm a and of mu_a - tau_a for control rows: [B].

        ``links`` are [B, A, K], ``effects`` [A - 1, B, K].
        """
        natural, treated = links[:, 0], links[:, 1:].transpose(0, 1)
        control = (batch.arm == 0)[:, None]
        pseudo = torch.where(control, treated - effects, natural + effects)
        row_loss = self.outcome_loss(pseudo, replace(batch, y=batch.y.expand_as(pseudo))).sum(-1)
        share = torch.where(control, 1 / len(effects), self.given(batch.arm)[:, 1:].float())
        return (row_loss * share.T).sum(0)

    def given(self, arm: Tensor) -> Tensor:
        """Whether each arm is the one that was given, [B, A]."""
        return arm[:, None] == torch.arange(self.shape.arms, device=arm.device)

    def parts(self, x_num: Tensor, x_cat: Tensor) -> dict[str, Tensor]:
        """``propensities`` [B, A] as learned, and ``pseudo`` [B, A - 1, K]: the effects that the
        cross network adds to control, on the scale of the outcomes.
        """
        phi = self.representation(x_num, x_cat)
        natural = self.responses(phi).transpose(0, 1)[:, :1]
        pseudo = self.respond(torch.cat([natural, natural + self.effects(phi).transpose(0, 1)], 1))
        return {
            "propensities": self.propensity(phi).float().softmax(-1),
            "pseudo": pseudo[:, 1:] - pseudo[:, :1],
        }


ENTRY = Entry(
    name="descn",
    net=DESCN,
    config=DESCNConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Zhong et al. 2022, DESCN: Deep Entire Space Cross Networks for Individual Treatment "
    "Effect Estimation",
)
