"""M3TN: a mixture of experts with a gate a treatment, and each treatment's uplift as an output.

Sun & Chen 2024, "M3TN: Multi-gate Mixture-of-Experts based Multi-valued Treatment Network for Uplift
Modeling". The representation of treatment t is phi_t = sum_e g_t,e(x) E_e(x) (multi-gate mixture of
experts, Ma et al. 2018, a treatment in place of a task). The response is re-parametrised: a head on
phi_0 answers y(0), a head on phi_t the uplift tau_t, and y(t) = y(0) + tau_t, both trained by the
squared error of the observed response. Where the paper is silent we chose:

* Experts. Residual networks over the feature tokens (:class:`models.layers.ResidualExperts`), as in
  MTMT, which compares with this net.
* Heads are linear, so that reading an expert and mixing experts commute: each expert is read once
  for every head and the gates weigh the numbers, and no phi_t is ever made. An arm costs a column of
  two matrices, which suits hundreds of arms.
* Several outcomes. A gate and a head for every treatment and outcome.
* Binary outcomes under ``loss="bce"``: y(0) and uplift are added as logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.catalog import Entry, Supports
from models.data import Shape
from models.explicit import ExplicitNet
from models.layers import FeatureTokens, Heads, MMoE
from models.nets.base import LOSSES, NetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class M3TNConfig(NetConfig):
    """Settings of M3TN."""

    width: int = integer(16, 2, 512, "Width of a feature's token.", search=OneOf(8, 16, 24))
    experts: int = integer(4, 1, 64, "Experts that the treatments share.", search=Span(2, 6))
    blocks: int = integer(1, 1, 16, "Residual blocks in an expert.", search=Span(1, 2))
    hidden: int = integer(64, 2, 4096, "Width inside a block.", search=OneOf(32, 64))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout inside the blocks.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes (the paper has mse).")


class M3TN(ExplicitNet):
    """A natural response and uplifts, read off experts that each of them mixes in its own way."""

    chains = True
    trunk = ("tokens", "mixture.experts")

    def __init__(self, shape: Shape, config: M3TNConfig) -> None:
        super().__init__(shape, config.loss)
        heads, width = shape.arms * shape.outcome_count, shape.features * config.width
        self.tokens = FeatureTokens(shape, config.width)
        self.mixture = MMoE(
            heads, config.experts, width, config.hidden, config.blocks, config.dropout
        )
        self.heads = Heads(heads, width)

    def tiers(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tokens(x_num, x_cat).flatten(1)
        read = self.mixture.experts.read(x, self.heads.weight.T)  # [E, B, A * K]
        mixed = torch.einsum("bhe,ebh->bh", self.mixture.gates(x), read) + self.heads.bias
        answers = mixed.unflatten(1, (self.shape.arms, -1))
        return answers[:, 0], answers[:, 1:]

    def parts(self, x_num: Tensor, x_cat: Tensor) -> dict[str, Tensor]:
        """``natural`` and ``effects`` of the outcomes, and ``gates`` [B, A, K, E]: how much each
        arm's uplift (at 0 the natural response) takes from each expert; they sum to 1.
        """
        gates = self.mixture.gates(self.tokens(x_num, x_cat).flatten(1))
        arms = gates.unflatten(1, (self.shape.arms, -1)).float()
        return {**super().parts(x_num, x_cat), "gates": arms}


ENTRY = Entry(
    name="m3tn",
    net=M3TN,
    config=M3TNConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Sun & Chen 2024, M3TN: Multi-gate Mixture-of-Experts based Multi-valued Treatment Network",
)
