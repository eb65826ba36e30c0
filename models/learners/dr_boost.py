"""DR-learner of boosted trees: effects regressed on doubly robust pseudo-outcomes.

Kennedy 2023, "Towards optimal doubly robust estimation of heterogeneous causal effects",
equation 2 and algorithm 1, for each treated arm a against control:

    Gamma_b = mu_b(X) + 1[A = b] / e_b(X) (Y - mu_b(X))
    tau_a(x) = E[Gamma_a - Gamma_0 | X = x], a regression over all rows

with cross-fitted mu and e: the effect is right to first order even where one of the two is off.

Where the paper is silent we chose: rows of all folds enter one regression, each with nuisances that
haven't seen it, in place of an average of regressions; rows of a third arm take part with
mu_a - mu_0; control's outcome is mu_0, the mean over the folds.
"""

from __future__ import annotations

import numpy as np

from models.catalog import Entry, Supports
from models.learners.boosting import CrossFitConfig, answer
from models.learners.meta import MetaLearner, Models
from models.learners.problem import Pair, Problem, mean_answer


class DRBoost(MetaLearner):
    """Pseudo-outcomes of every row, regressed."""

    def fit_outcome(self, problem: Problem) -> Models:
        shares = problem.assignment()[1]
        control, values = problem.cross_fit("control", problem.given(0))
        base = self._robust(problem, 0, values, shares)
        everyone = np.ones(len(problem.rows), bool), np.ones(len(problem.held_out), bool)
        effects = []
        for arm in problem.seen:
            _, values = problem.cross_fit(f"arm {arm}", problem.given(arm))
            gamma = self._robust(problem, arm, values, shares)
            psi = gamma[0] - base[0], gamma[1] - base[1]
            effects.append(problem.effect(f"effect of arm {arm}", psi, everyone))
        return {"arms": problem.seen, "control": control, "effects": effects}

    @staticmethod
    def _robust(problem: Problem, arm: int, expected: Pair, shares: Pair) -> Pair:
        """Gamma of an arm, of every row."""
        rows, held_out = (
            mu + (part.arm == arm) / e[:, arm] * (part.y - mu)
            for part, mu, e in zip(problem.both, expected, shares)
        )
        return rows, held_out

    def answer_outcome(self, models: Models, x: np.ndarray) -> np.ndarray:
        control = mean_answer(models["control"], x)
        outcomes = np.repeat(control[:, None], self.shape.arms, axis=1)
        for arm, model in zip(models["arms"], models["effects"]):
            outcomes[:, arm] += answer(model, x)
        return outcomes


ENTRY = Entry(
    name="dr_boost",
    net=DRBoost,
    config=CrossFitConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Kennedy 2023, Towards optimal doubly robust estimation of heterogeneous causal effects",
)
