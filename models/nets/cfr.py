"""CFR: TARNet whose representation of treated and control units is made alike.

Shalit, Johansson & Sontag 2017, "Estimating individual treatment effect: generalization bounds and
algorithms", eq. 3 and algorithm 1: the factual loss plus alpha times an integral probability metric
between the representations of the treated and of control. Where the paper is silent, or has one
treatment, we chose:

* Arms. Each treated arm against control, averaged by the arms' shares of the treated rows
  (:func:`models.balance.imbalance`).
* Scale. The representation is standardised inside the penalty (the authors' code divides it by its
  norm), so that shrinking it gains nothing.
* Measures. ``wasserstein`` is a Sinkhorn divergence of squared distances with the gradient of the
  envelope theorem, as the paper's own is entropic; ``mmd`` the distance of means, ``mmd_rbf``
  Gaussian.
* Rows. Pairs of rows cost their square, so the penalty looks at ``balance_rows`` of a batch at most,
  evenly spaced; the authors' batches have 100.

In a trial the arms' features are alike already, and what the penalty sees is chance: alpha is small
by default and may be 0. Rows see each other in the loss (``couples_rows``), never in an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models.balance import MEASURES, imbalance
from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.nets.base import of_arm
from models.nets.tarnet import TARNet, TARNetConfig
from models.space import OneOf, Span, choice, integer, real


@dataclass(frozen=True)
class CFRConfig(TARNetConfig):
    """Settings of CFR: TARNet's, and the penalty's."""

    penalty: str = choice(
        "wasserstein", MEASURES, "How far apart arms are.", search=OneOf("mmd_rbf", "wasserstein")
    )
    alpha: float = real(0.01, 0.0, 1e6, "Weight of the penalty.", search=Span(1e-4, 1.0, log=True))
    balance_rows: int = integer(512, 2, 1_000_000, "Most rows of a batch in the penalty.")


class CFR(TARNet):
    """A balanced representation under a head an arm."""

    couples_rows = True

    def __init__(self, shape: Shape, config: CFRConfig) -> None:
        super().__init__(shape, config)
        self.penalty, self.alpha, self.most = config.penalty, config.alpha, config.balance_rows

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 3: the terms ``factual`` and ``imbalance`` and their weighted sum."""
        phi = self.representation(batch.x_num, batch.x_cat)
        factual = self.factual_loss(of_arm(self.answer(phi), batch.arm), batch)
        apart = imbalance(self.penalty, phi, batch.arm, batch.weight, self.shape.arms, self.most)
        return {
            "loss": factual + self.alpha * apart,
            "factual": factual,
            "imbalance": apart,
        }


ENTRY = Entry(
    name="cfr",
    net=CFR,
    config=CFRConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Shalit et al. 2017, Estimating individual treatment effect: "
    "generalization bounds and algorithms",
)
