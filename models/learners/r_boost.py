"""R-learner of boosted trees: effects explain what outcomes and treatment leave unexplained.

Nie & Wager 2021, "Quasi-oracle estimation of heterogeneous treatment effects", equation 4, for each
treated arm a against control, on the rows that were given one of the two:

    m(x) = E[Y | X = x],  e(x) = P(A = a | X = x)
    tau_a = argmin sum_i [(Y_i - m(X_i)) - (1[A_i = a] - e(X_i)) tau(X_i)]^2

with cross-fitted m and e. It is a weighted regression: of (Y - m) / (1[A = a] - e), with weights
(1[A = a] - e)^2.

Where the paper is silent we chose: several arms are each compared with control, so e is
e_a / (e_0 + e_a); control's outcome is m(x) - e(x) tau_a(x), which is what the definitions say,
averaged over the arms by the weight of the rows in each comparison.
"""

from __future__ import annotations

import numpy as np

from models.catalog import Entry, Supports
from models.learners.boosting import CrossFitConfig, answer
from models.learners.meta import MetaLearner, Models
from models.learners.problem import Problem, arm_shares, mean_answer


class RBoost(MetaLearner):
    """Residuals of the outcome on residuals of the treatment."""

    def fit_outcome(self, problem: Problem) -> Models:
        assignment, shares = problem.assignment()
        means, effects, known = [], [], []
        for arm in problem.seen or [0]:
            use = problem.given(0, arm)
            models, expected = problem.cross_fit(f"control and arm {arm}", use)
            means.append(models)
            known.append(float(problem.rows.weight[use[0]].sum()))
            if arm == 0:  # nothing but control was ever given
                continue
            surprise = [
                (part.arm == arm) - share[:, arm] / (share[:, 0] + share[:, arm])
                for part, share in zip(problem.both, shares)
            ]
            target = [
                (part.y - mean) / more for part, mean, more in zip(problem.both, expected, surprise)
            ]
            effects.append(
                problem.effect(
                    f"effect of arm {arm}",
                    (target[0], target[1]),
                    use,
                    (surprise[0] ** 2, surprise[1] ** 2),
                )
            )
        return {
            "arms": problem.seen,
            "known": known,
            "means": means,
            "effects": effects,
            "assignment": assignment,
        }

    def answer_outcome(self, models: Models, x: np.ndarray) -> np.ndarray:
        shares = arm_shares(models["assignment"], x, self.shape.arms)
        effects = np.zeros((len(x), self.shape.arms))
        for arm, model in zip(models["arms"], models["effects"]):
            effects[:, arm] = answer(model, x)
        controls = [
            mean_answer(means, x)
            - effects[:, arm] * shares[:, arm] / (shares[:, 0] + shares[:, arm])
            for arm, means in zip(models["arms"] or [0], models["means"])
        ]
        control = np.average(controls, axis=0, weights=models["known"])
        return np.asarray(control[:, None] + effects)


ENTRY = Entry(
    name="r_boost",
    net=RBoost,
    config=CrossFitConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Nie & Wager 2021, Quasi-oracle estimation of heterogeneous treatment effects",
)
