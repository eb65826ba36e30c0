"""T-learner of boosted trees: a model of its own for each arm.

Künzel et al. 2019, "Metalearners for estimating heterogeneous treatment effects using machine
learning". No arm borrows from another: unbiased by them, and noisier.
"""

from __future__ import annotations

import numpy as np

from models.catalog import Entry, Supports
from models.learners.boosting import BoostConfig, answer
from models.learners.meta import MetaLearner, Models
from models.learners.problem import Problem


class TBoost(MetaLearner):
    """One model an arm."""

    def fit_outcome(self, problem: Problem) -> Models:
        arms = [0, *problem.seen]
        return {
            "arms": arms,
            "outcome": [problem.outcome(f"arm {arm}", problem.given(arm)) for arm in arms],
        }

    def answer_outcome(self, models: Models, x: np.ndarray) -> np.ndarray:
        control = answer(models["outcome"][0], x)
        outcomes = np.repeat(control[:, None], self.shape.arms, axis=1)
        for arm, model in zip(models["arms"][1:], models["outcome"][1:]):
            outcomes[:, arm] = answer(model, x)
        return outcomes


ENTRY = Entry(
    name="t_boost",
    net=TBoost,
    config=BoostConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Künzel et al. 2019, Metalearners for estimating heterogeneous treatment effects",
)
