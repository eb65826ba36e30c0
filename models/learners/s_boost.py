"""S-learner of boosted trees: one model, the arm among its features.

Künzel et al. 2019, "Metalearners for estimating heterogeneous treatment effects using machine
learning". The arm enters as the levels of its factors, each a category, so that an arm that was
seldom given is made of known parts. Where a tree never splits on the treatment its effect is 0, which
is what makes the S-learner steady where effects are small, and biased towards none.

Two things that the paper doesn't speak of, for outcomes whose noise would drown effects:

* Steps of a chain are modelled each among the rows that took the step before, and multiplied
  (:mod:`models.chains`): what makes visitors buy is learned from visitors.
* An amount that is often nothing is the chance of any, times the mean of what there then is (a
  two-part model: Duan et al. 1983, "A comparison of alternative models for the demand for medical
  care"), the second by the deviance of the gamma distribution, under which errors count relatively.

Several of them (``bags``) share the rows that one would only stop by: each sets aside another fifth of all
units, those of the validation fold included, and learns from the rest. So together they learn from
all, and their spread is that of a jackknife that deletes a group at a time (Kott 2001, "The
delete-a-group jackknife"): g replicates of variance s^2 stand for a variance of (g - 1)^2 / g * s^2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self, cast

import numpy as np

from models.catalog import Entry, Supports
from models.chains import chain
from models.data import Batch
from models.learners.base import quiet
from models.learners.boosting import BoostConfig, Model, Trees, features, size
from models.learners.every_arm import EveryArm
from models.learners.meta import MetaLearner, Models
from models.learners.problem import Problem, Rows, parts_of
from models.space import integer

FEW = 50  # control rows that took a step, below which the next one isn't modelled among them
PARTS = 5  # of the units; a bag sets one of them aside
SPREAD = (PARTS - 1) / PARTS**0.5  # of answers from samples of units, over that of bags
OFTEN = 0.05  # share of rows at the least value, from which an amount is modelled in two parts


@dataclass(frozen=True)
class SBoostConfig(BoostConfig):
    """Settings of the model, and how many of it there are."""

    bags: int = integer(
        4, 1, 64, "Models that answer together, each stopped by other units than the others."
    )


class SBoost(MetaLearner):
    """One model over features and treatment; or several, each of other units."""

    config: SBoostConfig
    steps: tuple[int, ...] = ()

    def fit(
        self,
        rows: Batch,
        *,
        validation: Batch | None = None,
        seed: int = 0,
        threads: int = 1,
        say: Callable[[str], None] = quiet,
    ) -> Self:
        self.steps = _steps(chain(self.shape), rows)
        held_out = None if validation is None else among_reached(validation, self.steps)
        rows = among_reached(rows, self.steps)
        return super().fit(rows, validation=held_out, seed=seed, threads=threads, say=say)

    @property
    def learns_from_validation(self) -> bool:
        return self.config.bags > 1

    def fit_outcome(self, problem: Problem) -> Models:
        width = problem.rows.x.shape[1]
        trees = cast(Trees, problem.base.with_ids(range(width, width + self.shape.factors)))
        least = float(problem.rows.y.min())
        amount = not problem.binary and OFTEN <= (problem.rows.y == least).mean() < 1.0
        models: Models = {"least": least if amount else None, "chance": [], "mean": []}
        bags = self.config.bags
        for number, each in enumerate(_bags(*problem.both, bags, trees.seed), start=1):
            learn, stop = (self._with_levels(part) for part in each)
            both = learn, stop
            name = "all arms" if bags == 1 else f"all arms, bag {number} of {bags}"
            if amount:
                some = [part.y > least for part in both]
                chance = _fit(*both, trees, [1.0 * part for part in some], rate=True)
                problem.say(f"{name}, whether there is any: {size(chance)}")
                models["chance"].append(chance)
                above = [part.y - least for part in both]
                mean = _fit(*both, trees, above, some, amount=True)
            else:
                mean = _fit(*both, trees, [part.y for part in both], rate=problem.binary)
            problem.say(f"{name}: {size(mean)}")
            models["mean"].append(mean)
        return models

    def answer_outcome(self, models: Models, x: np.ndarray) -> np.ndarray:
        return _each(models, self._under_every_arm(x)).mean(0)

    def links(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray:
        return np.asarray(self._members(x_num, x_cat).mean(0))

    def member_outcomes(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray | None:
        """What each bag expects, as far from their mean as other samples of units would be.

        [M, N, A, K] float32; None where there is one.
        """
        if self.config.bags == 1:
            return None
        members = self.within(self._members(x_num, x_cat))
        mean = members.mean(0)
        return np.asarray(mean + np.float32(SPREAD) * (members - mean))

    def state(self) -> Any:
        return super().state() | {"steps": list(self.steps)}

    def restore(self, state: Any) -> None:
        super().restore(state)
        self.steps = tuple(state["steps"])

    def _members(self, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray:
        units = self._under_every_arm(features(x_num, x_cat, self.grid))
        links = np.stack([_each(models, units) for models in self.models], axis=-1)
        for before, step in pairwise(self.steps):
            links[..., step] *= links[..., before]
        return links

    def _under_every_arm(self, x: np.ndarray) -> EveryArm:
        return EveryArm(x, self.grid, self._levels)

    @property
    def _levels(self) -> np.ndarray:
        return np.array(self.shape.levels, np.float64)

    def _with_levels(self, rows: Rows) -> Rows:
        return replace(rows, x=np.concatenate([rows.x, self._levels[rows.arm]], axis=1))


def _each(models: Models, units: EveryArm) -> np.ndarray:
    """One outcome by each bag, [M, N, A]; a step's among those who took the one before."""
    found = np.stack([units.answer(model) for model in models["mean"]])
    if models["least"] is not None:
        found *= np.stack([units.answer(model) for model in models["chance"]])
        found += models["least"]
    return found


def _bags(rows: Rows, held_out: Rows, bags: int, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Rows to learn from and rows to stop by, for each bag."""
    if bags == 1:
        yield rows, held_out
        return
    units = np.concatenate([rows.unit, held_out.unit])
    for bag in range(bags):
        turn, part = divmod(bag, PARTS)
        aside = np.split(parts_of(units, PARTS, seed + turn) == part, [len(rows)])
        yield (
            rows.pick(~aside[0]).joined(held_out.pick(~aside[1])),
            rows.pick(aside[0]).joined(held_out.pick(aside[1])),
        )


def among_reached(rows: Batch, steps: tuple[int, ...]) -> Batch:
    """Rows whose steps count as observed only where the one before was taken."""
    mask = rows.y_mask.clone()
    for before, step in pairwise(steps):
        mask[:, step] *= rows.y_mask[:, before] * (rows.y[:, before] > 0)
    return replace(rows, y_mask=mask)


def _steps(steps: tuple[int, ...], rows: Batch) -> tuple[int, ...]:
    """The steps of the chain up to the first that too few reach to learn from."""
    mask = among_reached(rows, steps).y_mask
    kept = steps[:1]
    for step in steps[1:]:
        if int((mask[:, step] * (rows.arm == 0)).sum()) < FEW:
            break
        kept = (*kept, step)
    return kept


def _fit(
    rows: Rows,
    held_out: Rows,
    trees: Trees,
    targets: Sequence[np.ndarray],
    use: Sequence[np.ndarray] | None = None,
    *,
    rate: bool = False,
    amount: bool = False,
) -> Model:
    """A model of a target of the rows, and of those to stop by; of those of them that are used."""
    used = [np.ones(len(part), bool) for part in (rows, held_out)] if use is None else use
    samples = rows.sample(targets[0], used[0]), held_out.sample(targets[1], used[1])
    return trees.fit(*samples, rate=rate, amount=amount)


ENTRY = Entry(
    name="s_boost",
    net=SBoost,
    config=SBoostConfig,
    supports=Supports(arms=True, factors=True, outcomes=True, sequence=True),
    paper="Künzel et al. 2019, Metalearners for estimating heterogeneous treatment effects",
)
