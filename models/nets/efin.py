"""EFIN: what a unit would do anyway by self-attention, what a treatment adds by the treatment's own.

Liu et al. 2023, "Explicit Feature Interaction-aware Uplift Network for Online Marketing". Its four
modules, for feature tokens e_j and a treatment's embedding e^t:

* Feature encoder: a token a feature, and a vector a treatment.
* Self-interaction: softmax(Q K^T / sqrt(d)) V over the tokens, concatenated, then an MLP: y(0).
* Treatment-aware interaction: attention alpha_j = softmax_j(w . relu(W_1 e^t + W_2 e_j + b)), the sum
  e^xt = sum_j alpha_j e_j, then an MLP: the uplift tau_t. The response is y(t) = y(0) + tau_t.
* Intervention constraint: a linear head on e^xt learns the reversed label, 1 where the row is
  control, so that e^xt is alike in the two groups.

Reversing a label does not do that by itself: head and e^xt learn it together, and telling control
from treated is telling treated from control. ``constraint="flipped"`` is the paper's loss and code
none the less; ``"reversal"`` reverses the gradient between head and e^xt instead (Ganin & Lempitsky
2015), which does what the paper asks for. In a trial both find nothing to tell. Logged decisions of
a policy differ in their features for a reason, so balance costs information there: a small weight.
Where the paper is silent, or made for one treatment, we chose:

* Several heads of self-attention, and the tokens added to what it finds (``residual``): a softmax
  averages, and an average of d numbers can't hold more than d features.
* The natural response learns from control rows alone (``stop``), as in the authors' code.
* Several arms and factors. An arm's vector is the sum of its levels' (:class:`ArmEmbedding`). The
  uplift's MLP reads it beside e^xt: else two arms that look at the same features would be the same
  arm. With one treated arm it is a constant, and the net is the paper's.
* The constraint is on "treated at all": one attention by the mean vector of the treated arms, the
  same for every row (a row's own arm would give its label away). With one treated arm, its own.
* Several outcomes share the interactions; each has its output of both MLPs.
* Binary outcomes under ``loss="bce"``: y(0) and uplift are added as logits.
* Ablations. Without ``self_interaction`` the MLP reads the tokens as they are; without
  ``treatment_aware`` e^xt is the tokens' mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from campaigns.errors import CampaignError
from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.explicit import ExplicitNet, treatment
from models.layers import MLP, ArmEmbedding, FeatureTokens, softmax
from models.nets.base import LOSSES, NetConfig
from models.space import OneOf, Span, choice, flag, integer, real

CONSTRAINTS = ("flipped", "reversal", "none")
LARGEST = 2**24  # numbers in a tensor of rows x arms x features x width, which no matmul stands for


@dataclass(frozen=True)
class EFINConfig(NetConfig):
    """Settings of EFIN; the flags at the end are ablations."""

    width: int = integer(16, 2, 512, "Width of a feature's token.", search=OneOf(8, 16, 32))
    heads: int = integer(2, 1, 64, "Heads of the self-attention; they divide the width.")
    hidden: int = integer(64, 2, 4096, "Width of a hidden layer.", search=OneOf(32, 64, 128))
    layers: int = integer(2, 1, 16, "Hidden layers of each MLP.", search=Span(1, 3))
    dropout: float = real(0.0, 0.0, 0.9, "Dropout after a hidden layer.", search=Span(0.0, 0.3))
    loss: str = choice("bce", LOSSES, "Loss of binary outcomes (the authors' code has mse).")
    stop: bool = flag(True, "Treated rows leave the natural response alone.", search=True)
    constraint: str = choice("flipped", CONSTRAINTS, "How treated and control are made alike.")
    constraint_weight: float = real(0.1, 0.0, 100.0, "Weight of the constraint in the loss.")
    residual: bool = flag(True, "Tokens are added to what the self-attention finds.")
    self_interaction: bool = flag(True, "Self-attention over the features.")
    treatment_aware: bool = flag(True, "A treatment's own attention over the features.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise CampaignError(f"heads: {self.heads} don't divide a width of {self.width}")


class SelfInteraction(nn.Module):
    """Self-attention over the tokens: [B, T, d] -> [B, T, d]."""

    def __init__(self, width: int, heads: int, residual: bool) -> None:
        super().__init__()
        self.heads, self.residual = heads, residual
        self.project = nn.Linear(width, 3 * width)

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, heads, T, d / heads]."""
        query, key, value = self.project(tokens).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return query.transpose(-2, -3), key.transpose(-2, -3), value.transpose(-2, -3)

    def attention(self, tokens: Tensor) -> Tensor:
        """Weights [B, heads, T, T]; they sum to 1 over the last."""
        query, key, _ = self.split(tokens)
        return softmax(query @ key.mT / math.sqrt(query.shape[-1]))

    def forward(self, tokens: Tensor) -> Tensor:
        found = functional.scaled_dot_product_attention(*self.split(tokens))
        found = found.transpose(-2, -3).flatten(-2)
        return tokens + found if self.residual else found


class TreatmentInteraction(nn.Module):
    """Attention that treatments pay the tokens; it answers weights and what they sum up to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ask = nn.Linear(width, width, bias=False)
        self.look = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, treatments: Tensor, tokens: Tensor) -> Tensor:
        """Weights [B, Q, T] of treatments [Q, d] (or [B, Q, d]) for tokens [B, T, d]."""
        asked, seen = self.ask(treatments).unsqueeze(-2), self.look(tokens).unsqueeze(-3)
        return softmax(self.score(torch.relu(asked + seen)).squeeze(-1))


class EFIN(ExplicitNet):
    """Explicit feature interaction-aware uplift network."""

    chains = True
    trunk = ("tokens", "self_interaction")

    def __init__(self, shape: Shape, config: EFINConfig) -> None:
        super().__init__(shape, config.loss, config.stop)
        self.config = config
        width, outcomes = config.width, shape.outcome_count
        hidden = [config.hidden] * config.layers
        self.tokens = FeatureTokens(shape, width)
        self.arms = ArmEmbedding(shape.levels, width)
        self.self_interaction: nn.Module = (
            SelfInteraction(width, config.heads, config.residual)
            if config.self_interaction
            else nn.Identity()
        )
        self.natural = MLP(shape.features * width, hidden, outcomes, config.dropout)
        self.interaction = TreatmentInteraction(width) if config.treatment_aware else None
        self.read_features = nn.Linear(width, config.hidden)
        self.read_arm = nn.Linear(width, config.hidden, bias=False)
        self.uplift = MLP(config.hidden, hidden[1:], outcomes, config.dropout)
        self.group = nn.Linear(width, 1) if config.constraint != "none" else None

    def tiers(self, x_num: Tensor, x_cat: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.tokens(x_num, x_cat)
        effects = [self.effects(arms, self.sum(arms, tokens)) for arms in self.blocks(tokens)]
        return self.respond_naturally(tokens), torch.cat(effects, dim=1)

    def blocks(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """The treated arms' vectors, as many at once as memory should hold: one block, as a rule."""
        widest = len(tokens) * max(tokens.shape[-2] * tokens.shape[-1], self.config.hidden)
        return self.arms()[1:].split(max(1, LARGEST // max(1, widest)))

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        natural, effect, _ = self.read(batch)
        return natural, effect

    def read(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Natural response and effect of each row's own arm, [B, K], and its tokens [B, T, d]."""
        tokens = self.tokens(batch.x_num, batch.x_cat)
        own = self.arms()[1:][treatment(batch.arm)].unsqueeze(1)
        effect = self.effects(own, self.sum(own, tokens)).squeeze(1)
        return self.respond_naturally(tokens), effect, tokens

    def respond_naturally(self, tokens: Tensor) -> Tensor:
        """y(0) of tokens [B, T, d], [B, K]."""
        return self.natural(self.self_interaction(tokens).flatten(-2))

    def sum(self, treatments: Tensor, tokens: Tensor) -> Tensor:
        """e^xt of treatments [Q, d] or [B, Q, d]: tokens by the attention each pays, [B, Q, d]."""
        return self.weigh(treatments, tokens) @ tokens

    def weigh(self, treatments: Tensor, tokens: Tensor) -> Tensor:
        """alpha of treatments [Q, d] or [B, Q, d], [B, Q, T]; they sum to 1 over the tokens."""
        if self.interaction is not None:
            return self.interaction(treatments, tokens)
        count = tokens.shape[-2]
        return tokens.new_full((len(tokens), treatments.shape[-2], count), 1.0 / count)

    def effects(self, treatments: Tensor, answer: Tensor) -> Tensor:
        """Uplifts [B, Q, K] of treatments and the e^xt [B, Q, d] that they found."""
        hidden = self.read_features(answer) + self.read_arm(treatments)
        return self.uplift(torch.relu(hidden))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The given arm's loss (``control``, ``treated``) and the ``constraint``, unweighted."""
        natural, effect, tokens = self.read(batch)
        terms = self.response_terms(self.respond_given(natural, effect, batch.arm), batch)
        if self.group is None:
            return terms
        told = self.tell_groups(self.group, tokens, batch.arm)
        terms["constraint"] = (told * batch.weight).mean()
        terms["loss"] = terms["loss"] + self.config.constraint_weight * terms["constraint"]
        return terms

    def tell_groups(self, head: nn.Module, tokens: Tensor, arm: Tensor) -> Tensor:
        """Cross-entropy of each row's group given e^xt of being treated at all, [B]."""
        treated, found = (arm > 0).float(), self.representation(tokens)
        if self.config.constraint == "reversal":
            found = 2 * found.detach() - found  # the same numbers, the opposite gradient
        label = treated if self.config.constraint == "reversal" else 1 - treated
        logit = head(found).squeeze(-1).float()
        return functional.binary_cross_entropy_with_logits(logit, label, reduction="none")

    def representation(self, tokens: Tensor) -> Tensor:
        """e^xt of the treated arms' mean vector, which the constraint is about: [B, d]."""
        return self.sum(self.arms()[1:].mean(0, keepdim=True), tokens).squeeze(1)

    def attention(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """What each treated arm looks at, [B, A - 1, T] over the features (``Encoder.names``)."""
        tokens = self.tokens(x_num, x_cat)
        weights = [self.weigh(arms, tokens) for arms in self.blocks(tokens)]
        return torch.cat(weights, dim=1).float()

    def self_attention(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """What each feature takes from the others for y(0), [B, heads, T, T] (itself if ablated)."""
        tokens = self.tokens(x_num, x_cat)
        if isinstance(self.self_interaction, SelfInteraction):
            return self.self_interaction.attention(tokens).float()
        count = tokens.shape[-2]
        return torch.eye(count, device=tokens.device).expand(len(tokens), 1, count, count)

    def parts(self, x_num: Tensor, x_cat: Tensor) -> dict[str, Tensor]:
        """``natural`` and ``effects`` of the outcomes, and ``attention`` [B, A - 1, T]."""
        parts = super().parts(x_num, x_cat)
        return {**parts, "attention": self.attention(x_num, x_cat)}


ENTRY = Entry(
    name="efin",
    net=EFIN,
    config=EFINConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Liu et al. 2023, Explicit Feature Interaction-aware Uplift Network for Online Marketing",
)
