"""Boosted trees over encoded features: what the meta-learners are put together from.

A model is one of scikit-learn's HistGradientBoosting estimators (or another base's, a network of
:mod:`models.learners.perceptron`), or a number where the rows show nothing but an average. Trees are added until held-out rows stop improving; what was added after the
best is taken off again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from models.learners.some_rows import SOME_ROWS, answer_some
from models.space import Config, OneOf, Span, integer, real

Model = Any  # something fitted that predicts, or a float

MOST_IDS = 255  # that HistGradientBoosting takes in a column; rarer ones have higher ids
MOST_VALUES = 255  # of a numeric column that are told apart
FEW = 50  # held-out rows, below which they can't say when to stop
FEW_TREES = 50  # that are grown then


@dataclass(frozen=True)
class BoostConfig(Config):
    """Settings of every model of outcomes."""

    learning_rate: float = real(
        0.05, 1e-4, 1.0, "How much each tree counts.", search=Span(0.02, 0.2, log=True)
    )
    trees: int = integer(500, 1, 100_000, "Most trees of a model.")
    patience: int = integer(20, 1, 100_000, "Trees without improvement before it stops.")
    leaves: int = integer(15, 2, 4096, "Most leaves of a tree.", search=OneOf(7, 15, 31))
    leaf_rows: int = integer(
        50, 1, 10_000_000, "Fewest rows in a leaf.", search=Span(20, 500, log=True)
    )
    l2: float = real(1.0, 0.0, 1e6, "Shrinks small leaves towards 0.")


@dataclass(frozen=True)
class EffectConfig(BoostConfig):
    """Settings of learners that also model effects, which are simpler than outcomes, and noisier."""

    effect_leaves: int = integer(
        7, 2, 4096, "Most leaves of a tree of effects.", search=OneOf(3, 7, 15)
    )
    effect_rows: int = integer(
        200, 1, 10_000_000, "Fewest rows in a leaf of effects.", search=Span(50, 1000, log=True)
    )


@dataclass(frozen=True)
class CrossFitConfig(EffectConfig):
    """Settings of learners whose nuisances must not have seen the rows that they are used on."""

    folds: int = integer(3, 2, 50, "Parts of the units; each is answered by models of the others.")


@dataclass(frozen=True)
class Sample:
    """Rows to fit a model on, or to stop it by.

    Attributes:
        x: Features, [N, F] float64.
        y: Targets, [N].
        weight: [N].
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def mean(self) -> float:
        """The weighted mean of the targets; the plain one where no row has weight."""
        return float(np.average(self.y, weights=self.weight if self.weight.sum() > 0 else None))


class Base(Protocol):
    """The base learner of a meta-learner: what fits its regressions.

    Attributes:
        categorical: Which features are ids.
        seed: Equal seeds and rows give equal models.
        classes: How trees of a classifier of the arm are grown.
    """

    @property
    def categorical(self) -> Sequence[int]: ...
    @property
    def seed(self) -> int: ...
    @property
    def classes(self) -> Trees: ...

    def with_ids(self, columns: Sequence[int]) -> Base:
        """The same, with more features that are ids."""

    def fit(
        self, rows: Sample, held_out: Sample, *, rate: bool = False, effects: bool = False
    ) -> Model:
        """A model of the targets' mean.

        Args:
            rows: To fit on.
            held_out: To stop by; where they are too few, fitting goes on for a fixed while.
            rate: Targets are 0 or 1, and the model is one of their probability.
            effects: Targets are effects, noisier and simpler than outcomes.
        """


@dataclass(frozen=True)
class Trees:
    """How a model's trees are grown.

    Attributes:
        config: The settings.
        categorical: Which features are ids.
        seed: Of binning, where there are many rows.
        effects: Whether targets are effects.
    """

    config: BoostConfig
    categorical: Sequence[int]
    seed: int
    effects: bool = False

    @property
    def classes(self) -> Trees:
        """Itself."""
        return self

    def with_ids(self, columns: Sequence[int]) -> Trees:
        """The same, with more features that are ids."""
        return replace(self, categorical=[*self.categorical, *columns])

    def fit(
        self,
        rows: Sample,
        held_out: Sample,
        *,
        rate: bool = False,
        effects: bool = False,
        amount: bool = False,
    ) -> Model:
        """A model of the targets' mean; see :class:`Base`, and :func:`boost` of ``amount``."""
        grown = replace(self, effects=effects)
        return boost(rows, held_out, grown, rate=rate, amount=amount)

    @property
    def _shape(self) -> dict[str, int]:
        config = self.config
        if self.effects and isinstance(config, EffectConfig):
            return {"max_leaf_nodes": config.effect_leaves, "min_samples_leaf": config.effect_rows}
        return {"max_leaf_nodes": config.leaves, "min_samples_leaf": config.leaf_rows}

    def settings(self, *, stop: bool) -> dict[str, Any]:
        """As scikit-learn calls them."""
        most = self.config.trees
        return {
            "learning_rate": self.config.learning_rate,
            "max_iter": most if stop else min(most, FEW_TREES),
            "l2_regularization": self.config.l2,
            "n_iter_no_change": self.config.patience,
            "early_stopping": stop,
            "categorical_features": list(self.categorical) or None,
            "random_state": self.seed,
            **self._shape,
        }


def boost(
    rows: Sample, held_out: Sample, trees: Trees, *, rate: bool = False, amount: bool = False
) -> Model:
    """A model of the targets' mean.

    Args:
        rows: To fit on.
        held_out: To stop by; too few of them, and a fixed number of trees is grown.
        trees: How.
        rate: Targets are 0 or 1, and the model is one of their probability (log loss).
        amount: Targets are above 0, and their errors count relatively (gamma deviance).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    used, stopping = weighty(rows), weighty(held_out)
    if (known := constant(rows, used)) is not None:
        return known
    stop = len(stopping) >= FEW and not (rate and np.ptp(stopping.y) == 0.0)
    kind = HistGradientBoostingClassifier if rate else HistGradientBoostingRegressor
    model = kind(**trees.settings(stop=stop), **({"loss": "gamma"} if amount else {}))
    extra = {}
    if stop:
        target = stopping.y.astype(int) if rate else stopping.y
        extra = {"X_val": stopping.x, "y_val": target, "sample_weight_val": stopping.weight}
    model.fit(used.x, used.y.astype(int) if rate else used.y, used.weight, **extra)
    if stop:
        best = int(np.argmax(model.validation_score_))  # the first score is of no tree at all
        if best == 0:
            return used.mean
        del model._predictors[best:]  # scikit-learn has no public way back to the best tree
    return model


def boost_classes(rows: Sample, held_out: Sample, trees: Trees) -> Model:
    """A model of the probability of each class that ``rows.y`` holds, every one of them there."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    known = np.isin(held_out.y, np.unique(rows.y))
    stop = int(known.sum()) >= FEW
    model = HistGradientBoostingClassifier(**trees.settings(stop=stop))
    extra = {}
    if stop:
        extra = {
            "X_val": held_out.x[known],
            "y_val": held_out.y[known],
            "sample_weight_val": held_out.weight[known],
        }
    model.fit(rows.x, rows.y, rows.weight, **extra)
    if stop:
        del model._predictors[int(np.argmax(model.validation_score_)) :]
    return model


def answer(model: Model, x: np.ndarray) -> np.ndarray:
    """What a model expects of rows, [N]."""
    if isinstance(model, float):
        return np.full(len(x), model)
    if not len(x):
        return np.zeros(0)
    if len(x) <= SOME_ROWS and hasattr(model, "_predict_iterations"):
        return answer_some(model, x)
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(x)[:, 1])
    return np.asarray(model.predict(x))


def size(model: Model) -> str:
    """How large a model is, in words."""
    if isinstance(model, float):
        return "the average"
    if not hasattr(model, "n_iter_"):
        return str(model)
    return f"{model.n_iter_} tree{'s' if model.n_iter_ != 1 else ''}"


def grid_of(x_num: np.ndarray) -> list[np.ndarray]:
    """The values that stand for each numeric column, ascending: all of them, or 255 quantiles.

    scikit-learn would find bins for every model anew, and where rows have weights in time that grows
    with 255 sorts of a column. On a grid there is nothing left to find.
    """
    grid = []
    for column in x_num.T.astype(np.float64):
        values = np.unique(column)
        if len(values) > MOST_VALUES:
            places = np.linspace(0.0, 1.0, MOST_VALUES)
            values = np.unique(np.quantile(column, places, method="nearest"))
        grid.append(values)
    return grid


def features(x_num: np.ndarray, x_cat: np.ndarray, grid: list[np.ndarray]) -> np.ndarray:
    """Numbers on their grid, then ids, [N, F_n + F_c] float64; the rarest ids join id 0."""
    table = np.empty((len(x_num), x_num.shape[1] + x_cat.shape[1]))
    for place, values in enumerate(grid):
        nearest = np.searchsorted((values[1:] + values[:-1]) / 2.0, x_num[:, place])
        table[:, place] = values[nearest]
    table[:, len(grid) :] = np.where(x_cat < MOST_IDS, x_cat, 0)
    return table


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Compute on so many threads inside the block."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=threads):
        yield


def constant(rows: Sample, used: Sample) -> float | None:
    """What the model is where there is nothing to fit; ``used`` are the rows that have weight."""
    if not len(used):
        return rows.mean
    return float(used.y[0]) if np.ptp(used.y) == 0.0 else None


def weighty(sample: Sample) -> Sample:
    """The rows that have weight; they alone count towards a leaf."""
    there = sample.weight > 0
    if there.all():
        return sample
    return Sample(sample.x[there], sample.y[there], sample.weight[there])
