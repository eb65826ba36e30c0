"""R-learner of networks; :mod:`models.learners.r_boost` has its formulas and our choices."""

from __future__ import annotations

from models.catalog import Entry, Supports
from models.learners.over_nets import OverNets
from models.learners.perceptron import CrossFitPerceptronConfig
from models.learners.r_boost import RBoost


class RLearner(OverNets, RBoost):
    """Residuals of the outcome on residuals of the treatment."""


ENTRY = Entry(
    name="r_learner",
    net=RLearner,
    config=CrossFitPerceptronConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Nie & Wager 2021, Quasi-oracle estimation of heterogeneous treatment effects",
)
