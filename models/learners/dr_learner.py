"""DR-learner of networks; :mod:`models.learners.dr_boost` has its formulas and our choices."""

from __future__ import annotations

from models.catalog import Entry, Supports
from models.learners.dr_boost import DRBoost
from models.learners.over_nets import OverNets
from models.learners.perceptron import CrossFitPerceptronConfig


class DRLearner(OverNets, DRBoost):
    """Pseudo-outcomes of every row, regressed."""


ENTRY = Entry(
    name="dr_learner",
    net=DRLearner,
    config=CrossFitPerceptronConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Kennedy 2023, Towards optimal doubly robust estimation of heterogeneous causal effects",
)
