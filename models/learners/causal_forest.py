"""Causal forest: effects of all arms from trees that split where effects differ.

Athey, Tibshirani & Wager 2019, "Generalized random forests", section 6, on residuals as in
CausalForestDML of EconML (Chernozhukov et al. 2018, "Double/debiased machine learning"):

    Y~ = Y - E[Y | X],   T~_a = 1[A = a] - e_a(X) of every treated arm, cross-fitted
    theta(x) = argmin_theta,c  sum_i alpha_i(x) (Y~_i - c - sum_a theta_a T~_ia)^2

alpha_i(x) is how often row i shares a leaf with x. Trees are honest: one half of a tree's rows finds
its splits, the other fills its leaves. EconML grows the forest (``econml.grf.CausalForest``, what
CausalForestDML itself ends in); the residuals are those of our own nuisances, so that rows' weights,
unobserved outcomes and repeated units mean what they do for the other learners. The grown trees are
kept as plain arrays: answering needs no EconML.

Where the paper is silent we chose: one forest an outcome, all treated arms in it; control's outcome
is E[Y | x] - sum_a e_a(x) theta_a(x), which is what the definitions say; a tree sees at most
``tree_rows`` rows; ids, which fall by frequency, are split as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.catalog import Entry, Supports
from models.learners.boosting import BoostConfig
from models.learners.meta import MetaLearner, Models
from models.learners.problem import Problem, arm_shares, mean_answer
from models.space import OneOf, Span, integer, real

CELLS = 4_000_000  # rows times trees that are answered at a time


@dataclass(frozen=True)
class ForestConfig(BoostConfig):
    """Settings of the forest; the others are those of its nuisances."""

    folds: int = integer(3, 2, 50, "Parts of the units; each is answered by models of the others.")
    forest: int = integer(200, 1, 100_000, "Trees of the forest.")
    effect_rows: int = integer(
        50, 1, 10_000_000, "Fewest rows in a leaf of effects.", search=Span(5, 200, log=True)
    )
    sample: float = real(
        0.45, 0.01, 0.5, "Share of the rows that a tree sees.", search=OneOf(0.2, 0.45)
    )
    tree_rows: int = integer(20_000, 10, 10_000_000, "Most rows that a tree sees.")


class CausalForest(MetaLearner):
    """A forest of effects over cross-fitted residuals."""

    library, extra = "econml", "forest"
    config: ForestConfig

    def fit_outcome(self, problem: Problem) -> Models:
        from econml.grf import CausalForest as Forest

        everyone = np.ones(len(problem.rows), bool), np.ones(len(problem.held_out), bool)
        means, (expected, _) = problem.cross_fit("all arms", everyone)
        assignment, (shares, _) = problem.assignment()
        models: Models = {"means": means, "assignment": assignment, "arms": problem.seen}
        rows, use = problem.rows, problem.rows.weight > 0
        if not problem.seen:
            return models
        treated = np.stack([rows.arm == arm for arm in problem.seen], axis=1)
        forest = Forest(
            n_estimators=self.config.forest,
            min_samples_leaf=self.config.effect_rows,
            min_samples_split=2 * self.config.effect_rows,
            max_samples=min(self.config.sample, self.config.tree_rows / max(int(use.sum()), 1)),
            inference=False,
            subforest_size=1,
            n_jobs=problem.threads,
            random_state=problem.base.seed,
        )
        forest.fit(
            rows.x[use],
            (treated - shares[:, problem.seen])[use],
            (rows.y - expected)[use],
            sample_weight=rows.weight[use],
        )
        problem.say(f"effects: a forest of {self.config.forest} trees")
        return models | {"forest": flat([tree.tree_.__getstate__() for tree in forest])}

    def answer_outcome(self, models: Models, x: np.ndarray) -> np.ndarray:
        effects = np.zeros((len(x), self.shape.arms))
        if models["arms"]:
            effects[:, models["arms"]] = local_effects(models["forest"], x, len(models["arms"]))
        shares = arm_shares(models["assignment"], x, self.shape.arms)
        control = mean_answer(models["means"], x) - (shares * effects).sum(axis=1)
        return np.asarray(control[:, None] + effects)


def flat(trees: list[dict[str, Any]]) -> dict[str, Any]:
    """A forest as arrays, all trees' nodes one after the other.

    Args:
        trees: The state of each of EconML's trees.

    Returns:
        ``roots`` [T]; of each node ``feature``, ``threshold``, ``left`` and ``right`` (a leaf's are
        itself), and the sums that its rows leave: ``jacobian`` [nodes, D * D], ``moment``
        [nodes, D]; ``depth``, the longest way down.
    """
    counts = np.array([len(tree["nodes"]) for tree in trees])
    roots = np.cumsum(counts) - counts
    nodes = np.concatenate([tree["nodes"] for tree in trees])
    itself, offset = np.arange(len(nodes)), np.repeat(roots, counts)
    leaf = nodes["left_child"] < 0
    return {
        "roots": roots,
        "feature": np.where(leaf, 0, nodes["feature"]),
        "threshold": nodes["threshold"].copy(),
        "left": np.where(leaf, itself, nodes["left_child"] + offset),
        "right": np.where(leaf, itself, nodes["right_child"] + offset),
        "jacobian": np.concatenate([tree["jac"] for tree in trees]),
        "moment": np.concatenate([tree["precond"] for tree in trees]),
        "depth": int(max(tree["max_depth"] for tree in trees)),
    }


def local_effects(forest: dict[str, Any], x: np.ndarray, arms: int) -> np.ndarray:
    """theta(x) of the treated arms, [N, arms], from the sums of the leaves that rows fall in."""
    size = forest["moment"].shape[1]
    effects = np.empty((len(x), arms))
    step = max(CELLS // len(forest["roots"]), 1)
    for start in range(0, len(x), step):
        part = x[start : start + step]
        node = np.repeat(forest["roots"][:, None], len(part), axis=1)  # [T, n]
        for _ in range(forest["depth"]):
            there = part[np.arange(len(part)), forest["feature"][node]]
            left = there <= forest["threshold"][node]
            node = np.where(left, forest["left"][node], forest["right"][node])
        jacobian, moment = np.zeros((len(part), size * size)), np.zeros((len(part), size))
        for leaves in node:
            jacobian += forest["jacobian"][leaves]
            moment += forest["moment"][leaves]
        inverse = np.linalg.pinv(jacobian.reshape(-1, size, size))
        effects[start : start + step] = np.einsum("nij,nj->ni", inverse, moment)[:, :arms]
    return effects


ENTRY = Entry(
    name="causal_forest",
    net=CausalForest,
    config=ForestConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Athey, Tibshirani & Wager 2019, Generalized random forests",
)
