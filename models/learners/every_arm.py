"""Boosted trees of an S-learner, asked about many units under every arm at once.

To walk every tree once an arm is the dear way: a walk waits for memory and for guessed branches. Here
the nodes of a tree are answered for all units together, as in QuickScorer (Lucchese et al. 2015,
"QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees"). A node
that sends a unit to the right rules out the leaves below its left child, a bit each; the unit ends in
the first leaf that isn't ruled out. What a feature rules out depends on its value alone, so a table a
feature and tree says it. The arm is a feature like others: it rules out the same leaves for all units.

The sums are scikit-learn's, tree after tree, so they are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from models.learners.boosting import Model, answer
from models.learners.some_rows import SOME_ROWS

CODES = 256  # values of a column at most
MOST_LEAVES = 31  # of a tree: a bit each, and one that is always free
ROWS = 16_384  # at a time: what is looked at stays in the cache


@dataclass(frozen=True)
class Tree:
    """A tree as what each feature rules out.

    Attributes:
        rules: By column of x, the leaves that each of its codes rules out, [CODES] uint32 of bits.
        by_arm: The leaves that each arm rules out, [A] uint32.
        values: Of the leaves from left to right.
    """

    rules: dict[int, np.ndarray]
    by_arm: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class EveryArm:
    """Units under every arm.

    Attributes:
        x: Their features, numbers that lie on the grid first, then ids below ``CODES``, [N, F].
        grid: The values that the numbers have, ascending, a column each.
        levels: Of each arm, [A, C]: the last features of the models that are asked, and ids.
    """

    x: np.ndarray
    grid: Sequence[np.ndarray]
    levels: np.ndarray

    def answer(self, model: Model) -> np.ndarray:
        """What a model expects, [N, A]."""
        units, arms = len(self.x), len(self.levels)
        if units <= SOME_ROWS or not _small(model):
            return answer(model, self.table).reshape(units, arms)
        trees = list(_trees(model, self))
        total = np.full((arms, units), model._baseline_prediction.item())
        for start in range(0, units, ROWS):
            part = [column[start : start + ROWS].astype(np.intp) for column in self._codes]
            for tree in trees:
                _add(tree, part, total[:, start : start + ROWS])
        expected = np.asarray(model._loss.link.inverse(total.ravel()))
        return expected.reshape(arms, units).T

    @cached_property
    def _codes(self) -> list[np.ndarray]:
        """By column, a number's place on its grid, or the id."""
        numbers = [np.searchsorted(values, self.x[:, k]) for k, values in enumerate(self.grid)]
        return [code.astype(np.uint8) for code in (*numbers, *self.x[:, len(self.grid) :].T)]

    @cached_property
    def table(self) -> np.ndarray:
        """The features of each unit under each arm, [N * A, F + C]."""
        arms = np.tile(self.levels, (len(self.x), 1))
        return np.concatenate([np.repeat(self.x, len(self.levels), axis=0), arms], axis=1)


def _small(model: Model) -> bool:
    """Whether it is made of trees whose leaves are few enough for a bit each."""
    trees = getattr(model, "_predictors", None)
    return trees is not None and all(
        int(each.nodes["is_leaf"].sum()) <= MOST_LEAVES for (each,) in trees
    )


def _add(tree: Tree, codes: Sequence[np.ndarray], sums: np.ndarray) -> None:
    """Add the tree's values to the sums of each arm, [A, n]."""
    ruled = np.zeros(sums.shape[1], np.uint32)
    for column, rule in tree.rules.items():
        ruled |= rule.take(codes[column])
    found: dict[int, np.ndarray] = {}
    for arm, more in enumerate(tree.by_arm.tolist()):
        if more not in found:
            found[more] = tree.values.take(_first_free(ruled | np.uint32(more)))
        sums[arm] += found[more]


def _first_free(ruled: np.ndarray) -> np.ndarray:
    """The place of the lowest bit that is 0: its value as a float32 is a power of two, so its exponent."""
    lowest = ~ruled & (ruled + np.uint32(1))
    return (lowest.astype(np.float32).view(np.int32) >> 23).astype(np.intp) - 127


def _trees(model: Model, units: EveryArm) -> Iterator[Tree]:
    """The model's trees, for the arms of these units."""
    features, levels = units.x.shape[1], units.levels.astype(np.intp)
    ids = model.is_categorical_  # scikit-learn has them first, as their places among those seen
    columns = np.concatenate([np.flatnonzero(ids), np.flatnonzero(~ids)])
    seen = model._preprocessor.named_transformers_["encoder"].categories_
    for (predictor,) in model._predictors:
        nodes = [dict(zip(predictor.nodes.dtype.names, node)) for node in predictor.nodes.tolist()]
        leaves, below = _leaves(nodes)
        rules: dict[int, np.ndarray] = {}
        by_arm = np.zeros(len(levels), np.uint32)
        for node in nodes:
            if node["is_leaf"]:
                continue
            column, left = int(columns[node["feature_idx"]]), np.uint32(below[node["left"]])
            if column not in rules:
                rules[column] = np.zeros(CODES, np.uint32)
            if node["is_categorical"]:
                known = seen[node["feature_idx"]].astype(np.intp)
                right = np.full(CODES, not node["missing_go_to_left"])
                right[known] = ~_members(predictor.raw_left_cat_bitsets[node["bitset_idx"]], known)
                rules[column][right] |= left
            else:
                least = np.searchsorted(units.grid[column], node["num_threshold"], side="right")
                rules[column][least:] |= left
        for factor, level in enumerate(levels.T):
            if (rule := rules.pop(features + factor, None)) is not None:
                by_arm |= rule[level]
        yield Tree(rules, by_arm, predictor.nodes["value"][leaves])


def _members(bits: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of the ids seen, in their order, are in the set; [8] uint32 of bits."""
    place = np.arange(len(known))
    return (bits[place // 32] >> (place % 32).astype(np.uint32)) & np.uint32(1) == 1


def _leaves(nodes: Sequence[Mapping[str, Any]]) -> tuple[list[int], dict[int, int]]:
    """The leaves from left to right, and the leaves below each node as bits."""
    leaves: list[int] = []
    below: dict[int, int] = {}

    def visit(place: int) -> int:
        if nodes[place]["is_leaf"]:
            below[place] = 1 << len(leaves)
            leaves.append(place)
        else:
            below[place] = visit(nodes[place]["left"]) | visit(nodes[place]["right"])
        return below[place]

    visit(0)
    return leaves, below
