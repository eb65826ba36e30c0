"""ESCM2: ESMM whose conditional steps also learn from an unbiased risk over all rows.

Wang et al. 2022, "ESCM2: entire space counterfactual multi-task model for post-click conversion rate
estimation", with the treatment among the fields. ESMM's P(buy | click) is free where nobody clicks,
and nothing but its product with P(click) is looked at; ESCM2 adds the risk of r = P(buy | click) itself. With o the
click, c = P(click) and delta the cross-entropy of r,

* ``ips``: mean_i o delta / c;
* ``dr``: mean_i [delta~ + o (delta - delta~) / c] with delta~ an imputed error, and the imputation's
  own risk mean_i o (delta - delta~)^2 / c.

The loss is click + ``counterfactual`` * risk + ``product`` * click-and-buy.

Where the paper is silent we chose:

* A chain of any length: each step's risk weighs the rows that took the step before by the chance,
  all earlier steps together, that they would.
* The chance is a weight, so it has no gradient (or the net would lower its risk by promising more
  clicks), and it is clipped from below.
* The imputed error is the cross-entropy of r against an imputed conversion r~ (Wang et al. 2019,
  "Doubly robust joint learning for recommendation on data missing not at random"), so that it
  teaches r on rows without a click. Then delta - delta~ = (r~ - y) logit(r). Each risk trains one
  of the two: r~ is fixed in the first, r in the second.
* ``ips`` is the default: each row's term of it is at least 0, where that of ``dr`` falls without end
  on a row that is told apart from all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.catalog import Entry, Supports
from models.chains import log_reached
from models.conversion import Treated, TreatedMLP
from models.data import Batch, Shape
from models.nets.esmm import ESMM, ESMMConfig
from models.space import OneOf, Span, choice, real


@dataclass(frozen=True)
class ESCM2Config(ESMMConfig):
    """Settings of ESCM2."""

    risk: str = choice("ips", ("ips", "dr"), "Estimator of the conditional steps' risk.")
    counterfactual: float = real(
        0.1, 0.0, 100.0, "Weight of that risk.", search=Span(0.01, 1.0, log=True)
    )
    product: float = real(1.0, 0.0, 100.0, "Weight of the products, steps after the first.")
    clip: float = real(0.02, 1e-6, 1.0, "Least chance to weigh by.", search=OneOf(0.01, 0.02, 0.1))


class ESCM2(ESMM):
    """ESMM with a counterfactual risk, and a tower of imputed conversions for it."""

    def __init__(self, shape: Shape, config: ESCM2Config) -> None:
        super().__init__(shape, config)
        self.config = config
        later, hidden = max(len(self.steps) - 1, 0), [config.width] * config.layers
        self.imputation = (
            TreatedMLP(later, self.fields.widths, hidden, 1, config.dropout)
            if config.risk == "dr" and later
            else None
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The ``outcomes``' losses (products weighed), the ``risk`` and, if ``dr``, ``imputation``."""
        rows = self.fields.given(batch)
        towers = self.answer(rows)
        by_outcome = self.outcome_loss(towers, batch).mean(0)
        scale = torch.ones_like(by_outcome).index_fill(0, self.steps[1:], self.config.product)
        outcomes = (by_outcome * scale).sum()
        terms = {
            "outcomes": outcomes,
            **self._risks(rows, (towers.float() + self.start)[:, self.steps], batch),
        }
        risks = sum(
            (term for name, term in terms.items() if name != "outcomes"), outcomes.new_zeros(())
        )
        return {"loss": outcomes + self.config.counterfactual * risks, **terms}

    def _risks(self, rows: Treated, conditional: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Risks of the steps after the first, [J - 1], of their logits [N, J]."""
        logits = conditional[:, 1:]
        y, seen = batch.y[:, self.steps], batch.y_mask[:, self.steps] > 0
        took = torch.where(seen[:, :-1], y[:, :-1], 0.0)
        known = seen[:, :-1] & seen[:, 1:]
        y = torch.where(seen[:, 1:], y[:, 1:], 0.0)
        chance = log_reached(conditional.detach())[:, :-1].exp().clamp(min=self.config.clip)
        inverse = took * known * batch.weight[:, None] / chance
        error = functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        if self.imputation is None:
            return {"risk": (inverse * error).mean(0).sum()}
        imputed = self.imputation(rows).squeeze(-1).T.float() + self.start[self.steps[1:]]
        target = imputed.detach().sigmoid()
        guess = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # a row whose click was not seen says nothing of the error, but has one
        risk = (guess * batch.weight[:, None] + inverse * (error - guess)).mean(0).sum()
        missed = (imputed.sigmoid() - y) * logits.detach()
        return {"risk": risk, "imputation": (inverse * missed.square()).mean(0).sum()}


ENTRY = Entry(
    name="escm2",
    net=ESCM2,
    config=ESCM2Config,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True, needs=("sequence",)),
    paper="Wang et al. 2022, ESCM2: entire space counterfactual multi-task model for post-click "
    "conversion rate estimation",
)
