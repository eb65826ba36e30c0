"""What every net of the catalogue is: effects in link space, one response, one loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.chains import chain, chained, given_before
from models.data import Batch, Shape
from models.space import Config, choice, flag, integer

LOSSES = ("mse", "bce")


SHARES = ("trunk", "nothing")


@dataclass(frozen=True)
class NetConfig(Config):
    """Settings of every net; :mod:`models.ensemble` says what they do."""

    members: int = integer(1, 1, 64, "Nets that answer together, as their mean.")
    share: str = choice(
        "trunk", SHARES, "What they share: the layers that read features, or nothing."
    )
    bootstrap: bool = flag(False, "Each weighs units in its own way.")
    trees: int = integer(
        0, 0, 64, "Bags of boosted trees that have two thirds of the answer; 0: none."
    )


class Net(nn.Module):
    """Base of the nets; a subclass answers :meth:`links`, and its own losses where it has any.

    A net works in link space. An outcome's response is its link as it is; a binary outcome's under
    ``loss="bce"`` is the sigmoid of it. Binary outcomes are always within [0, 1]: under
    ``loss="mse"`` the response of control is clipped there, then control plus each arm's effect,
    so that clipping hides no effect that is possible.

    Attributes:
        trunk: The submodules that read the features, by name: what members of an ensemble share.
        zeroed: The weights that outcomes are read with, by the end of their names: 0 at the start of
            training, so that every row starts at the average.
        couples_rows: Whether the loss of a row depends on the rows that come with it.
        chains: Whether a link of a campaign's chain, under ``loss="bce"``, is that of the step given
            the one before (:mod:`models.chains`), so that no step is likelier than the one before.

    Args:
        shape: The campaign's shape.
        loss: ``"mse"``, or ``"bce"``: cross-entropy for binary outcomes, squared error for others.
    """

    trunk: ClassVar[tuple[str, ...]] = ()
    zeroed: ClassVar[tuple[str, ...]] = ()
    couples_rows: ClassVar[bool] = False
    chains: ClassVar[bool] = False
    steps: Tensor
    binary: Tensor
    logistic: Tensor
    start: Tensor

    def __init__(self, shape: Shape, loss: str = "mse") -> None:
        super().__init__()
        self.shape = shape
        binary = torch.tensor([kind == "binary" for kind in shape.outcomes])
        self.register_buffer("binary", binary, persistent=False)
        self.register_buffer("logistic", binary & (loss == "bce"), persistent=False)
        self.register_buffer("start", torch.zeros(shape.outcome_count))
        steps = chain(shape) if self.chains and loss == "bce" else ()
        self.register_buffer("steps", torch.tensor(steps, dtype=torch.int64), persistent=False)

    def links(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Every arm's outcomes in link space, less :attr:`start`: [B, A, K]."""
        raise NotImplementedError

    def factual(self, batch: Batch) -> Tensor:
        """The links of the arm that each row was given, [B, K]."""
        return of_arm(self.links(batch.x_num, batch.x_cat), batch.arm)

    def potential_outcomes(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        """Expected outcomes under every arm, [B, A, K] float32; uplift is arm a minus arm 0."""
        return self.respond(self.links(x_num, x_cat))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, a scalar to minimise, and the terms it is made of."""
        return {"loss": self.outcome_loss(self.factual(batch), batch).mean(0).sum()}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: what data-parallel wrappers call."""
        return self.loss(batch)

    def start_from(self, means: Sequence[float]) -> None:
        """Have training start at these outcomes [K] (a rate if binary) in place of 0 (or 1/2)."""
        start = torch.as_tensor(means, dtype=torch.float32, device=self.start.device)
        start = start.index_copy(0, self.steps, given_before(start, self.steps))
        self.start.copy_(torch.where(self.logistic, torch.logit(start, eps=1e-4), start))
        self.zero(self.named_parameters())

    def zero(self, weights: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Set those of the weights that are :attr:`zeroed` to 0."""
        for name, weight in weights:
            if f".{name}".endswith(tuple(f".{end}" for end in self.zeroed)):
                nn.init.zeros_(weight)

    def respond(self, links: Tensor) -> Tensor:
        """Outcomes [B, A, K] of links [B, A, K]; arm 0 must be control."""
        links = self.started(links)
        floor = torch.where(self.binary, 0.0, -torch.inf)
        top = torch.where(self.binary, 1.0, torch.inf)
        control = links[:, :1].clamp(floor, top)
        linear = (control + (links - links[:, :1])).clamp(floor, top)
        return torch.where(self.logistic, links.sigmoid(), linear)

    def started(self, links: Tensor) -> Tensor:
        """Links [..., K] with their :attr:`start`; at the steps of a chain, those of reaching them."""
        links = links.float() + self.start
        return chained(links, self.steps) if len(self.steps) else links

    def outcome_loss(self, links: Tensor, batch: Batch) -> Tensor:
        """Weighted loss of each row and outcome, [B, K]; 0 where the outcome was not observed.

        Averages over it divide by the number of rows, whatever their weights and masks, so that
        gradients averaged over equal shards are the gradient of the whole.
        """
        links = self.started(links)
        y = torch.where(batch.y_mask > 0, batch.y, 0.0)
        squared = (links - y).square()
        entropy = functional.binary_cross_entropy_with_logits(links, y, reduction="none")
        row_loss = torch.where(self.logistic, entropy, squared)
        return row_loss * batch.y_mask * batch.weight[:, None]


def of_arm(values: Tensor, arm: Tensor) -> Tensor:
    """Each row's value at its own arm: [B, A, ...] and [B] -> [B, ...]."""
    index = arm.view(-1, *[1] * (values.dim() - 1)).expand(-1, 1, *values.shape[2:])
    return values.gather(1, index).squeeze(1)
