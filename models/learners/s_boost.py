"""S-learner of boosted trees: one model, the arm among its features.

Künzel et al. 2019, "Metalearners for estimating heterogeneous treatment effects using machine
learning". The arm enters as the levels of its factors, each a category, so that an arm that was
seldom given is made of known parts. Where a tree never splits on the treatment its effect is 0, which
is what makes the S-learner steady where effects are small, and biased towards none.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.catalog import Entry, Supports
from models.learners.boosting import BoostConfig, answer
from models.learners.meta import MetaLearner, Models
from models.learners.problem import Problem, Rows


class SBoost(MetaLearner):
    """One model over features and treatment."""

    def fit_outcome(self, problem: Problem) -> Models:
        rows, held_out = (self._with_levels(part) for part in problem.both)
        width = problem.rows.x.shape[1]
        levels = range(width, width + self.shape.factors)
        base = problem.base.with_ids(levels)
        whole = replace(problem, rows=rows, held_out=held_out, base=base)
        everyone = np.ones(len(rows), bool), np.ones(len(held_out), bool)
        return {"outcome": [whole.outcome("all arms", everyone)]}

    def answer_outcome(self, models: Models, x: np.ndarray) -> np.ndarray:
        arms = len(self._levels)
        tables = np.concatenate([np.repeat(x, arms, axis=0), np.tile(self._levels, (len(x), 1))], 1)
        return answer(models["outcome"][0], tables).reshape(len(x), arms)

    @property
    def _levels(self) -> np.ndarray:
        return np.array(self.shape.levels, np.float64)

    def _with_levels(self, rows: Rows) -> Rows:
        return replace(rows, x=np.concatenate([rows.x, self._levels[rows.arm]], axis=1))


ENTRY = Entry(
    name="s_boost",
    net=SBoost,
    config=BoostConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Künzel et al. 2019, Metalearners for estimating heterogeneous treatment effects",
)
