"""One outcome of a campaign as the meta-learners see it, and the nuisances that they share.

A learner takes the outcomes one by one, on the rows where each was observed. Arms are compared with
control, arm 0. An arm without a row is answered as control: nothing is known of its effect.

Which arm a row was likely to be given, e_a(x), is needed for every arm, and the log has the
probability of the given arm alone. So e is learned from the rows themselves, with their weights:

* Where the log gives each arm one probability, whatever the unit, the trial was uniform: e_a is the
  arm's share of the weight. (Shares are at least as good as the logged numbers: Hirano, Imbens &
  Ridder 2003.)
* Else a boosted classifier of the arm on x learns it, cross-fitted. That is right as well where rows
  that a policy chose are mixed with randomized ones and weigh less: what counts is who was given
  what among these rows, not the probability that one of the two logs gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np

from campaigns.errors import DataError
from models.data import Batch
from models.learners.boosting import (
    Base,
    Model,
    Sample,
    answer,
    boost_classes,
    features,
    size,
)

Pair: TypeAlias = "tuple[np.ndarray, np.ndarray]"  # a value of each row, and of each held-out row

LEAST = 0.01  # probability of an arm: no row may stand for more than a hundred
CONSTANT = 1e-3  # spread of an arm's logged probability that is none
HELD_OUT = 0.15  # of the units, to stop by where no validation rows are given


@dataclass(frozen=True)
class Rows:
    """Decisions as arrays.

    Attributes:
        x: Features, [N, F] float64.
        arm: Which was given, [N].
        y: The outcome, [N].
        weight, propensity: Of the row, and of the arm that it was given, [N].
        unit: [N].
    """

    x: np.ndarray
    arm: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    propensity: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, batch: Batch, outcome: int, grid: list[np.ndarray]) -> Rows:
        """The rows of a batch where an outcome was observed."""
        seen = batch.y_mask[:, outcome] > 0
        batch = batch.select(seen.nonzero().squeeze(1)).to("cpu")
        return cls(
            features(batch.x_num.numpy(), batch.x_cat.numpy(), grid),
            batch.arm.numpy(),
            batch.y[:, outcome].numpy().astype(np.float64),
            batch.weight.numpy().astype(np.float64),
            batch.propensity.numpy().astype(np.float64),
            batch.unit.numpy(),
        )

    def __len__(self) -> int:
        return len(self.arm)

    def pick(self, use: np.ndarray) -> Self:
        """Some of the rows."""
        return type(self)(*(values[use] for values in vars(self).values()))

    def joined(self, more: Self) -> Self:
        """These rows, then others."""
        pairs = zip(vars(self).values(), vars(more).values())
        return type(self)(*(np.concatenate(pair) for pair in pairs))

    def sample(
        self, target: np.ndarray, use: np.ndarray, weight: np.ndarray | None = None
    ) -> Sample:
        """Some of the rows with a target of each, [N], and their weight times another."""
        weight = self.weight if weight is None else self.weight * weight
        if use.all():
            return Sample(self.x, target, weight)  # a copy of x is half of the memory
        return Sample(self.x[use], target[use], weight[use])


@dataclass(frozen=True)
class Problem:
    """One outcome: rows to learn from, rows to stop by, and how models are grown.

    Attributes:
        rows, held_out: The rows.
        arms: How many there are, control included (A).
        binary: Whether the outcome is 0 or 1.
        base: What fits a model of outcomes, or of effects.
        say: Told of every model.
        threads: To compute on.
        fold: Which part each row is of, [N]; rows of a unit are of one part.
    """

    rows: Rows
    held_out: Rows
    arms: int
    binary: bool
    base: Base
    say: Callable[[str], None]
    threads: int
    fold: np.ndarray

    @property
    def both(self) -> tuple[Rows, Rows]:
        """Rows and held-out rows."""
        return self.rows, self.held_out

    @property
    def folds(self) -> range:
        return range(int(self.fold.max()) + 1)

    @property
    def seen(self) -> list[int]:
        """The treated arms that some row was given."""
        counts = np.bincount(self.rows.arm, minlength=self.arms)
        return [arm for arm in range(1, self.arms) if counts[arm]]

    def given(self, *arms: int) -> Pair:
        """Whether each row was given one of some arms."""
        rows, held_out = (np.isin(part.arm, arms) for part in self.both)
        return rows, held_out

    def outcome(self, name: str, use: Pair) -> Model:
        """A model of the outcome of some rows."""
        rows, held_out = (part.sample(part.y, these) for part, these in zip(self.both, use))
        model = self.base.fit(rows, held_out, rate=self.binary)
        self.say(f"{name}: {size(model)}")
        return model

    def effect(self, name: str, target: Pair, use: Pair, weight: Pair | None = None) -> Model:
        """A model of an effect, from a target of each row and, where given, a weight of each."""
        weights = weight or (None, None)
        rows, held_out = (
            part.sample(values, these, more)
            for part, values, these, more in zip(self.both, target, use, weights)
        )
        model = self.base.fit(rows, held_out, effects=True)
        self.say(f"{name}: {size(model)}")
        return model

    def cross_fit(self, name: str, use: Pair) -> tuple[list[Model], Pair]:
        """Models of the outcome of some rows, one a fold, and what they expect of all rows.

        Each row is answered by the model of the other folds, held-out rows by the models' mean.
        """
        models = [
            self.outcome(
                f"{name}, part {f + 1} of {len(self.folds)}", (self._but(f, use[0]), use[1])
            )
            for f in self.folds
        ]
        inside = np.empty(len(self.rows))
        for f, model in zip(self.folds, models):
            inside[self.fold == f] = answer(model, self.rows.x[self.fold == f])
        return models, (inside, mean_answer(models, self.held_out.x))

    def assignment(self) -> tuple[list[Assignment], Pair]:
        """Who is given what: models, and each row's probability of every arm, [N, A]."""
        if self._uniform():
            shares = np.bincount(self.rows.arm, self.rows.weight, minlength=self.arms)
            models: list[Assignment] = [shares / max(shares.sum(), 1e-12)]
            return models, (self._shares(models, 0), self._shares(models, 1))
        targets = [part.arm.astype(np.float64) for part in self.both]
        models = []
        inside = np.empty((len(self.rows), self.arms))
        everyone = np.ones(len(self.held_out), bool)
        for f in self.folds:
            use = self._but(f, np.ones(len(self.rows), bool))
            model = boost_classes(
                self.rows.sample(targets[0], use),
                self.held_out.sample(targets[1], everyone),
                self.base.classes,
            )
            self.say(f"who is given what, part {f + 1} of {len(self.folds)}: {size(model)}")
            models.append(model)
            inside[self.fold == f] = arm_shares([model], self.rows.x[self.fold == f], self.arms)
        return models, (inside, arm_shares(models, self.held_out.x, self.arms))

    def _shares(self, models: list[Assignment], which: int) -> np.ndarray:
        return arm_shares(models, self.both[which].x, self.arms)

    def _uniform(self) -> bool:
        """Whether each arm has one probability in the log."""
        spreads = [np.ptp(self.rows.propensity[self.rows.arm == arm]) for arm in {0, *self.seen}]
        return max(spreads) <= CONSTANT

    def _but(self, fold: int, use: np.ndarray) -> np.ndarray:
        """The rows outside a fold; all of them where none is outside."""
        rest = use & (self.fold != fold)
        return rest if rest.any() else use


Assignment: TypeAlias = "np.ndarray | Model"  # shares [A], or a classifier of the arm


def make_problem(
    rows: Batch,
    validation: Batch | None,
    outcome: int,
    *,
    arms: int,
    binary: bool,
    grid: list[np.ndarray],
    base: Base,
    folds: int,
    seed: int,
    threads: int,
    say: Callable[[str], None],
) -> Problem:
    """The problem of one outcome.

    Raises:
        DataError: Control has no row in which the outcome was observed.
    """
    used = Rows.of(rows, outcome, grid)
    part = parts_of(used.unit, max(folds, 2), seed)
    if validation is None:
        aside = parts_of(used.unit, round(1 / HELD_OUT), seed + 1) == 0
        used, held_out, part = used.pick(~aside), used.pick(aside), part[~aside]
    else:
        held_out = Rows.of(validation, outcome, grid)
    if not (used.arm == 0).any():
        raise DataError(
            f"outcome {outcome} was observed in no control row of the training fold; effects are "
            "measured against control: log decisions that give it"
        )
    return Problem(used, held_out, arms, binary, base, say, threads, part)


def parts_of(unit: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Deal units into equal parts by a seeded draw, [N] in 0 .. parts - 1."""
    units, place = np.unique(unit, return_inverse=True)
    return np.asarray((np.random.default_rng([seed, 31]).permutation(len(units)) % parts)[place])


def mean_answer(models: list[Model], x: np.ndarray) -> np.ndarray:
    """The mean of what some models expect, [N]."""
    return np.mean([answer(model, x) for model in models], axis=0)


def arm_shares(models: list[Assignment], x: np.ndarray, arms: int) -> np.ndarray:
    """Each row's probability of every arm, [N, A]: the models' mean; never below ``LEAST``."""
    shares = np.zeros((len(x), arms))
    if len(x):
        for model in models:
            if isinstance(model, np.ndarray):
                shares += model
            else:
                shares[:, model.classes_.astype(int)] += model.predict_proba(x)
    return np.clip(shares / len(models), LEAST, 1.0)
