"""X-learner of boosted trees: what each arm would have done to the other arm's units.

Künzel et al. 2019, "Metalearners for estimating heterogeneous treatment effects using machine
learning", equations 7 to 10, for each treated arm a against control:

    mu_0(x) = E[Y | X = x, A = 0],  mu_a(x) = E[Y | X = x, A = a]
    D_i = Y_i - mu_0(X_i) where A_i = a,   D_i = mu_a(X_i) - Y_i where A_i = 0
    tau_1(x), tau_0(x): regressions of D on x among the treated, and among control
    tau_a(x) = g(x) tau_0(x) + (1 - g(x)) tau_1(x)

Its strength are arms of unequal size: where 85% are treated, mu_a is precise, and g gives the weight
to the effects imputed with it. No row's D comes from a model that was fit on the row.

Where the paper is silent we chose: g is the share of arm a against control, e_a / (e_0 + e_a), which
the paper recommends without saying how to estimate it; several arms are each compared with control
and share mu_0; control's outcome is mu_0.
"""

from __future__ import annotations

import numpy as np

from models.catalog import Entry, Supports
from models.learners.boosting import EffectConfig, answer
from models.learners.meta import MetaLearner, Models
from models.learners.problem import Pair, Problem, arm_shares


class XBoost(MetaLearner):
    """Imputed effects, regressed in both arms."""

    def fit_outcome(self, problem: Problem) -> Models:
        control = problem.outcome("control", problem.given(0))
        others, among_treated, among_control = [], [], []
        for arm in problem.seen:
            treated = problem.outcome(f"arm {arm}", problem.given(arm))
            above, below = self._imputed(problem, control, treated)
            among_treated.append(
                problem.effect(f"effect on those of arm {arm}", above, problem.given(arm))
            )
            among_control.append(
                problem.effect(f"effect of arm {arm} on control", below, problem.given(0))
            )
            others.append(arm)
        return {
            "arms": others,
            "control": [control],
            "among_treated": among_treated,
            "among_control": among_control,
            "assignment": problem.assignment()[0],
        }

    @staticmethod
    def _imputed(problem: Problem, control: object, treated: object) -> tuple[Pair, Pair]:
        """Y - mu_0 and mu_a - Y of every row; each counts in one of the two arms."""
        rows, held_out = problem.both
        above = (rows.y - answer(control, rows.x), held_out.y - answer(control, held_out.x))
        below = (answer(treated, rows.x) - rows.y, answer(treated, held_out.x) - held_out.y)
        return above, below

    def answer_outcome(self, models: Models, x: np.ndarray) -> np.ndarray:
        control = answer(models["control"][0], x)
        outcomes = np.repeat(control[:, None], self.shape.arms, axis=1)
        shares = arm_shares(models["assignment"], x, self.shape.arms)
        for arm, treated, untreated in zip(
            models["arms"], models["among_treated"], models["among_control"]
        ):
            g = shares[:, arm] / (shares[:, 0] + shares[:, arm])
            outcomes[:, arm] += g * answer(untreated, x) + (1.0 - g) * answer(treated, x)
        return outcomes


ENTRY = Entry(
    name="x_boost",
    net=XBoost,
    config=EffectConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Künzel et al. 2019, Metalearners for estimating heterogeneous treatment effects",
)
