"""X-learner of networks; :mod:`models.learners.x_boost` has its formulas and our choices."""

from __future__ import annotations

from models.catalog import Entry, Supports
from models.learners.over_nets import OverNets
from models.learners.perceptron import PerceptronConfig
from models.learners.x_boost import XBoost


class XLearner(OverNets, XBoost):
    """Imputed effects, regressed in both arms."""


ENTRY = Entry(
    name="x_learner",
    net=XLearner,
    config=PerceptronConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Künzel et al. 2019, Metalearners for estimating heterogeneous treatment effects",
)
