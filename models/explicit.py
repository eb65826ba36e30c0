"""Nets that model uplift explicitly: a natural response and, added to it, each treated arm's effect.

A difference of two predicted responses inherits the noise of both; an effect with an output of its
own is learned, and regularised, as such. :mod:`models.nets.euen`, :mod:`models.nets.efin` and
:mod:`models.nets.m3tn` differ in how they read the two off the features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.data import Batch, Shape
from models.nets.base import Net, of_arm


class ExplicitNet(Net):
    """A net whose links are a natural response plus effects; a subclass answers :meth:`tiers`.

    Args:
        shape: The campaign's shape.
        loss: As :class:`Net` has it. Under ``"bce"`` a binary outcome's parts add up as logits.
        stop: Treated rows teach the effects only: their natural response is taken as it is, so that
            it stays what control rows say it is.
    """

    def __init__(self, shape: Shape, loss: str = "mse", stop: bool = False) -> None:
        super().__init__(shape, loss)
        self.stop = stop

    def tiers(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, Tensor]:
        """Natural response [B, K] and effects of the treated arms [B, A - 1, K], in link space."""
        raise NotImplementedError

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Natural response and effect of each row's own arm, both [B, K].

        What it says of a control row's effect is not used.
        """
        natural, effects = self.tiers(batch.x_num, batch.x_cat)
        return natural, of_arm(effects, treatment(batch.arm))

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        natural, effects = self.tiers(x_num, x_cat)
        natural = natural.unsqueeze(1)
        return torch.cat([natural, natural + effects], dim=1)

    def factual(self, batch: Batch) -> Tensor:
        return self.respond_given(*self.given(batch), batch.arm)

    def respond_given(self, natural: Tensor, effect: Tensor, arm: Tensor) -> Tensor:
        """Links [B, K] of rows that were given ``arm`` [B]."""
        base = natural.detach() if self.stop else natural
        return torch.where(arm[:, None] > 0, base + effect, natural)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the given arm: the terms ``control`` and ``treated`` and their sum."""
        return self.response_terms(self.factual(batch), batch)

    def response_terms(self, links: Tensor, batch: Batch) -> dict[str, Tensor]:
        """``loss``, ``control`` and ``treated`` of factual links [B, K], averaged over the rows."""
        row_loss = self.outcome_loss(links, batch).sum(1)
        treated = row_loss * (batch.arm > 0)
        control = row_loss - treated
        return {"loss": row_loss.mean(), "control": control.mean(), "treated": treated.mean()}

    def parts(self, x_num: Tensor, x_cat: Tensor) -> dict[str, Tensor]:
        """``natural`` [B, K] and ``effects`` [B, A - 1, K], on the scale of the outcomes."""
        outcomes = self.potential_outcomes(x_num, x_cat)
        return {"natural": outcomes[:, 0], "effects": outcomes[:, 1:] - outcomes[:, :1]}


def treatment(arm: Tensor) -> Tensor:
    """Place of each row's arm among the treated ones, [B]; that of a control row is the first."""
    return arm.clamp(min=1) - 1
