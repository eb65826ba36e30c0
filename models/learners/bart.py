"""BART: one sum of many small trees over features and treatment, drawn from its posterior.

Chipman, George & McCulloch 2010, "BART: Bayesian additive regression trees", as an S-learner (Hill
2011, "Bayesian nonparametric modeling for causal inference"):

    y = sum_t g_t(x, levels) + noise,   noise ~ N(0, sigma^2)
    P(y = 1) = Phi(sum_t g_t(x, levels))         where the outcome is 0 or 1

A node at depth d splits with prior probability 0.95 (1 + d)^-shrink, leaves are normal around 0, and the
answer is the mean over draws of the posterior. stochtree draws them, from trees grown by its warm
start (He & Hahn 2021, "Stochastic tree ensembles for regularized nonlinear regression").

The draws are kept as plain arrays: answering needs no stochtree. Where the papers are silent we chose:
the arm enters as a column for each level of its factors; ids, which fall by frequency, are split as
numbers; all rows are learned from, since there is nothing to stop; draws are thinned, since an answer
walks down every tree of every one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import ndtr

from campaigns.errors import DataError
from models.catalog import Entry, Supports
from models.data import Batch, Shape
from models.learners.base import Learner, quiet
from models.learners.boosting import features, grid_of
from models.learners.problem import Rows
from models.space import Config, OneOf, Span, integer, real

CELLS = 100_000  # rows times trees that are answered at a time: they stay in the cache


@dataclass(frozen=True)
class BartConfig(Config):
    """Settings of the sum of trees and of its draws."""

    forest: int = integer(50, 1, 10_000, "Trees of the sum.", search=OneOf(50, 100))
    draws: int = integer(40, 1, 10_000, "Draws of the posterior that are kept.")
    every: int = integer(3, 1, 1000, "Draws from one that is kept to the next.")
    warm_up: int = integer(10, 1, 1000, "Rounds in which trees are grown before the first draw.")
    shrink: float = real(
        2.0, 0.1, 10.0, "How fast deeper splits become unlikely.", search=OneOf(1.0, 2.0, 3.0)
    )
    leaf_rows: int = integer(
        20, 1, 10_000_000, "Fewest rows in a leaf.", search=Span(5, 200, log=True)
    )


class Bart(Learner):
    """A sum of trees an outcome."""

    library, extra = "stochtree", "bart"

    def __init__(self, shape: Shape, config: BartConfig) -> None:
        super().__init__(shape, config)
        self.config = config
        self.grid: list[np.ndarray] = []
        self.sums: list[dict[str, Any]] = []
        levels = np.array(shape.levels)
        columns = [
            levels[:, [c]] == np.arange(1, levels[:, c].max() + 1) for c in range(len(levels[0]))
        ]
        self._levels = np.concatenate(columns, axis=1).astype(np.float64)  # [A, columns]

    def fit(
        self,
        rows: Batch,
        *,
        validation: Batch | None = None,
        seed: int = 0,
        threads: int = 1,
        say: Callable[[str], None] = quiet,
    ) -> Self:
        self.check_installed()
        self.grid = grid_of(rows.x_num.cpu().numpy())
        sums = []
        for k, kind in enumerate(self.shape.outcomes):
            used = Rows.of(rows, k, self.grid)
            if not (used.arm == 0).any():
                raise DataError(
                    f"outcome {k} was observed in no control row of the training fold; effects are "
                    "measured against control: log decisions that give it"
                )
            sums.append(self._draw(used, kind == "binary", seed, threads))
            draws = f"{self.config.draws} draws of {self.config.forest} trees"
            say(f"outcome {k + 1} of {len(self.shape.outcomes)}, {draws}")
        self.sums = sums
        return self

    def links(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray:
        answers = np.empty((len(x_num), self.shape.arms, len(self.sums)))
        for arm, table in enumerate(self._tables(x_num, x_cat)):
            for k, one in enumerate(self.sums):
                answers[:, arm, k] = expected(one, table)
        return answers

    def member_outcomes(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray | None:
        """What each draw of the posterior expects, [draws, N, A, K] float32; None of one draw."""
        draws = max(len(one.get("roots", ())) for one in self.sums)
        if draws < 2:
            return None
        sizes = (draws, len(x_num), self.shape.arms, len(self.sums))
        answers = np.empty(sizes, np.float32)
        for arm, table in enumerate(self._tables(x_num, x_cat)):
            for k, one in enumerate(self.sums):
                answers[:, :, arm, k] = each_draw(one, table)
        return answers

    def _tables(self, x_num: np.ndarray, x_cat: np.ndarray) -> Iterator[np.ndarray]:
        """Features beside the levels of each arm in turn."""
        x = features(x_num, x_cat, self.grid)
        for levels in self._levels:
            yield np.concatenate([x, np.tile(levels, (len(x), 1))], axis=1)

    def state(self) -> Any:
        return {"grid": self.grid, "outcomes": self.sums}

    def restore(self, state: Any) -> None:
        self.grid, self.sums = state["grid"], state["outcomes"]

    def _draw(self, rows: Rows, binary: bool, seed: int, threads: int) -> dict[str, Any]:
        from stochtree import BARTModel, OutcomeModel

        use = rows.weight > 0
        y, weight = rows.y[use], rows.weight[use]
        if not len(y) or np.ptp(y) == 0.0:
            return {"constant": float(y[0]) if len(y) else float(rows.y.mean())}
        model = BARTModel()
        kind = ("binary", "probit") if binary else ("continuous", "identity")
        model.sample(
            np.concatenate([rows.x, self._levels[rows.arm]], axis=1)[use],
            y,
            observation_weights=None if np.ptp(weight) == 0.0 else _as_taken(weight),
            num_gfr=self.config.warm_up,
            num_mcmc=self.config.draws,
            general_params={
                "outcome_model": OutcomeModel(outcome=kind[0], link=kind[1]),
                "sample_sigma2_global": not binary,  # a probit's is 1
                "keep_every": self.config.every,
                "num_threads": threads,
                "random_seed": seed,
            },
            mean_forest_params={
                "num_trees": self.config.forest,
                "beta": self.config.shrink,
                "min_samples_leaf": self.config.leaf_rows,
            },
        )
        return flat(json.loads(model.to_json()), binary)


def _as_taken(weight: np.ndarray) -> np.ndarray:
    """Row weights as stochtree 0.4.5 takes them: its page says N(mu, sigma^2 / w), it draws sigma^2 w."""
    return np.asarray(weight.mean() / weight)


def flat(saved: dict[str, Any], binary: bool) -> dict[str, Any]:
    """Draws as arrays, the nodes of all trees one after the other.

    Args:
        saved: stochtree's JSON of a model.
        binary: Whether the sum is a probit's.

    Returns:
        ``roots`` [draws, trees] and ``depths``, the longest way down from each, a draw's deepest
        trees first; of each node ``feature``, ``threshold``, ``left``, ``right`` (a leaf's are
        itself) and ``value``; ``mean`` and ``scale`` of the outcome; ``binary``.
    """
    container = saved["forests"]["forest_0"]
    draws = [container[f"forest_{d}"] for d in range(container["num_samples"])]
    trees = [draw[f"tree_{t}"] for draw in draws for t in range(draw["num_trees"])]
    counts = np.array([len(tree["left"]) for tree in trees])
    roots = np.cumsum(counts) - counts
    left, right, feature, threshold, value = (
        np.concatenate([tree[name] for tree in trees])
        for name in ("left", "right", "split_index", "threshold", "leaf_value")
    )
    itself, offset, leaf = np.arange(len(left)), np.repeat(roots, counts), left < 0
    depths = np.array([_depth(tree) for tree in trees]).reshape(len(draws), -1)
    order = np.argsort(-depths, axis=1, kind="stable")
    return {
        "roots": np.take_along_axis(roots.reshape(len(draws), -1), order, axis=1),
        "depths": np.take_along_axis(depths, order, axis=1),
        "feature": np.where(leaf, 0, feature).astype(np.int64),
        "threshold": threshold.astype(np.float64),
        "left": np.where(leaf, itself, left + offset).astype(np.int64),
        "right": np.where(leaf, itself, right + offset).astype(np.int64),
        "value": np.where(leaf, value, 0.0).astype(np.float64),
        "mean": float(saved["outcome_mean"]),
        "scale": float(saved["outcome_scale"]),
        "binary": binary,
    }


def expected(one: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Posterior mean of the outcome of rows [N, F], or of its probability; [N]."""
    if "constant" in one:
        return np.full(len(x), one["constant"])
    found = np.zeros(len(x))
    for _, rows, drawn in _drawn(one, x):
        found[rows] += drawn
    return found / len(one["roots"])


def each_draw(one: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """What each draw expects, [draws, N]; [1, N] of an outcome that is constant."""
    found = np.full((len(one.get("roots", "1")), len(x)), one.get("constant", 0.0))
    if "constant" not in one:
        for draw, rows, drawn in _drawn(one, x):
            found[draw, rows] = drawn
    return found


def _drawn(one: dict[str, Any], x: np.ndarray) -> Iterator[tuple[int, slice, np.ndarray]]:
    """Draws, rows, and what the one expects of the others, until all have had their turn."""
    step = max(CELLS // one["roots"].shape[1], 1)
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        for draw, (roots, depths) in enumerate(zip(one["roots"], one["depths"])):
            total = one["mean"] + one["scale"] * _sum(one, roots, depths, x[rows])
            yield draw, rows, ndtr(total) if one["binary"] else total


def _sum(one: dict[str, Any], roots: np.ndarray, depths: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What the trees of a draw come to, [n]."""
    node = np.repeat(roots[:, None], len(x), axis=1)  # [T, n]
    each = np.arange(len(x))
    for level in range(depths[0]):
        deep = node[: np.count_nonzero(depths > level)]  # most trees are shallow
        left = x[each, one["feature"][deep]] <= one["threshold"][deep]
        deep[:] = np.where(left, one["left"][deep], one["right"][deep])
    total = np.zeros(len(x))
    for leaves in node:  # one by one: a sum's order must not depend on how many rows are asked
        total += one["value"][leaves]
    return total


def _depth(tree: dict[str, Any]) -> int:
    """The longest way down from the root."""
    depth, level = -1, [0]
    while level:
        depth += 1
        inside = [node for node in level if tree["left"][node] >= 0]
        level = [tree[side][node] for node in inside for side in ("left", "right")]
    return depth


ENTRY = Entry(
    name="bart",
    net=Bart,
    config=BartConfig,
    supports=Supports(arms=True, factors=True, outcomes=True),
    paper="Chipman, George & McCulloch 2010, BART: Bayesian additive regression trees",
)
