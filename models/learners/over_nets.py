"""What makes a meta-learner of boosted trees one of networks: another base learner."""

from __future__ import annotations

from models.learners.meta import MetaLearner
from models.learners.perceptron import Perceptrons


class OverNets(MetaLearner):
    """Comes before the meta-learner that it changes."""

    def base(self, categorical: list[int], seed: int) -> Perceptrons:
        """What fits its regressions: networks."""
        return Perceptrons(self.config, categorical, seed)
