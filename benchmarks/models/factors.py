"""Many treatments at once: who ranks the arms of 2 to 10 factors, and finds their interactions?

Each of m factors has three levels, 0 (control), 1 and 2, and an arm is a level of each: 3^m arms up to
four factors; beyond, ``arms`` lists 8 m of them (control, every level alone, and combinations of two
factors or more drawn by the world's seed). A level's effect differs between units, and half of the
factors' pairs (at least one) act on each other, some for better and some for worse, so that what is
good alone isn't good together. Who was given what depended on the features, as under a policy
(its probabilities are logged), so that balancing has something to balance.

For each m and seed every model learns a fresh log at its defaults, and answers units that are in no
log. Measured against the truth: Spearman's footrule of the arms' ranking by average effect (0 the same
order, 1 reversed), Pearson's correlation of the average effects, MCMV-AUCC (the order in which units
are treated, each with the arm of its best value for cost), the share of the oracle's value that our
allocation gets within a fifth of the cost of an average arm for everyone (which arms, too), and the
seconds of training. Outcomes in MCMV-AUCC are expected ones, every unit treated as chosen and not at
all: no noise but which units. Each model's path is scaled by its own end, so that this area compares the
order, and not what is chosen: a path that ends low can have a large one. Read it beside the value.

Run: ``python -m benchmarks.models.factors [--full] [--models "xtnet;mtmt"] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine, wide_console
from benchmarks.models.tables import interval
from models.catalog import build, build_learner, entry
from models.data import Batch, OutcomeScaler, Shape
from models.inference import predict
from models.learners.base import Learner
from models.metrics import ate_pearson, footrule, mcmv_aucc
from models.metrics.policy_curve import greedy_path
from models.selection import mean_loss
from models.training import InMemoryBatches, TrainConfig, fit
from serving.policy.allocation import allocate

FEATURES, LEVELS, WHOLE = 10, 3, 4  # up to WHOLE factors every combination is an arm
NOISE, FRESH = 1.0, 20_000
BUDGET = 0.2
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "xtnet": ("xtnet", {}),
    "xtnet without masks": ("xtnet", {"masks": False}),
    "xtnet without balance": ("xtnet", {"balance": False}),
} | {
    name: (name, {})
    for name in ("mtmt", "efin", "m3e2", "deconfounder", "s_learner", "t_learner", "tarnet", "x_boost")
}  # fmt: skip
MEASURES = {"footrule": 3, "pearson": 3, "mcmv_aucc": 3, "value": 3, "seconds": 1}  # and digits


@dataclass(frozen=True)
class World:
    """Factors and what their levels do.

    Attributes:
        levels: Level of each factor in each arm, [A, m]; arm 0 is control.
        costs: Of each arm, the sum of its levels', [A].
        pairs: Factors that act on each other, [P, 2].
        strength: What levels 1 and 2 of a factor do on average, [m, 2].
        together: What a pair's levels add where both are given, [P, 2, 2].
        direction: Feature by which a factor's effect differs, [m]; that of a pair's, [P].
        taste: Whom a policy gives a level, by feature, [m, 3, features].
    """

    levels: np.ndarray
    costs: np.ndarray
    pairs: np.ndarray
    strength: np.ndarray
    together: np.ndarray
    direction: tuple[np.ndarray, np.ndarray]
    taste: np.ndarray

    @classmethod
    def of(cls, factors: int, seed: int) -> World:
        """The world of a seed."""
        rng = np.random.default_rng([seed, factors, 0])
        levels = arms(factors, rng)
        prices = np.column_stack([np.zeros(factors), np.sort(rng.uniform(0.2, 1.0, (factors, 2)))])
        every = np.array(list(combinations(range(factors), 2)))
        pairs = every[np.sort(rng.permutation(len(every))[: max(len(every) // 2, 1)])]
        sign = np.where(rng.random(len(pairs)) < 0.5, -1.0, 1.0)[:, None, None]
        return cls(
            levels,
            prices[np.arange(factors), levels].sum(axis=1),
            pairs,
            rng.normal(0.15, 0.3, (factors, 2)),
            sign * rng.uniform(0.2, 0.6, (len(pairs), 2, 2)),
            (rng.integers(0, FEATURES, factors), rng.integers(0, FEATURES, len(pairs))),
            rng.normal(0.0, 0.25, (factors, LEVELS, FEATURES)),
        )

    @property
    def shape(self) -> Shape:
        """As a net is told of it."""
        return Shape(
            FEATURES, (), tuple(map(tuple, self.levels.tolist())), ("continuous",),
            costs=tuple(self.costs.tolist()),
        )  # fmt: skip

    def effects(self, x: np.ndarray) -> np.ndarray:
        """True effect of every arm over control, [N, A], of features [N, 10]."""
        own, shared = self.direction
        alone = np.zeros((len(x), *self.strength.shape[:1], LEVELS))
        alone[:, :, 1:] = self.strength * (0.5 + 1.0 / (1.0 + np.exp(-2.0 * x[:, own])))[:, :, None]
        total = np.zeros((len(x), len(self.levels)))
        for factor, given in enumerate(self.levels.T):
            total += alone[:, factor, given]
        for (one, other), gains, feature in zip(self.pairs, self.together, shared):
            table = np.pad(gains, ((1, 0), (1, 0)))  # 0 where one of them is control
            who = 1.5 / (1.0 + np.exp(-2.0 * x[:, [feature]])) + 0.25
            total += who * table[self.levels[:, one], self.levels[:, other]]
        return total

    def chances(self, x: np.ndarray) -> np.ndarray:
        """Probability that the logging policy gives each arm, [N, A]."""
        liked = np.einsum("mlf,nf->nml", self.taste, x)
        total = np.zeros((len(x), len(self.levels)))
        for factor, given in enumerate(self.levels.T):
            total += liked[:, factor, given]
        total = np.exp(total - total.max(axis=1, keepdims=True))
        uniform = 1.0 / len(self.levels)  # a share of every log is a trial
        return 0.7 * total / total.sum(axis=1, keepdims=True) + 0.3 * uniform

    def log(self, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Features [N, 10], arms [N], outcomes [N] and the probabilities of the arms [N]."""
        rng = np.random.default_rng([seed, len(self.strength), 1])
        x = rng.normal(size=(rows, FEATURES))
        chances = self.chances(x)
        arm = (chances.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
        arm = arm.clip(max=len(self.levels) - 1)
        at = np.arange(rows)
        y = x[:, 0] + 0.5 * np.sin(2.0 * x[:, 1]) + self.effects(x)[at, arm]
        return x, arm, y + NOISE * rng.normal(size=rows), chances[at, arm]


def arms(factors: int, rng: np.random.Generator) -> np.ndarray:
    """The levels of the arms that there are, [A, m]; control first."""
    if factors <= WHOLE:
        return np.array(list(product(range(LEVELS), repeat=factors)))
    alone = [level * row for level in (1, 2) for row in np.eye(factors, dtype=int)]
    found = {tuple(row): None for row in (np.zeros(factors, int), *alone)}
    while len(found) < 8 * factors:
        row = np.zeros(factors, int)
        several = rng.permutation(factors)[: rng.integers(2, min(factors, 4) + 1)]
        row[several] = rng.integers(1, LEVELS, len(several))
        found[tuple(row)] = None
    return np.array(list(found))


def trained(name: str, world: World, rows: int, seed: int) -> torch.nn.Module | Learner:
    """A model of the catalogue, trained on a log of the world; its answers are standardised."""
    x, arm, y, chance = world.log(rows, seed)
    scaler = OutcomeScaler.fit(y[:, None], ("continuous",))
    batch = Batch.of(x, np.zeros((rows, 0)), arm, scaler.apply(y[:, None]), chance)
    held_out = torch.arange(rows) % 5 == 0
    inside, validation = (batch.select(part.nonzero()[:, 0]) for part in (~held_out, held_out))
    model, settings = MODELS[name]
    if entry(model).learner:
        learner = build_learner(model, world.shape, settings)
        return learner.fit(inside, validation=validation, seed=seed)
    net = build(model, world.shape, settings, seed=seed)
    config = TrainConfig(batch_size=256 if rows < 50_000 else 1024, seed=seed, device="cpu")
    batches = InMemoryBatches(inside, config.batch_size, seed)
    fit(net, batches, lambda net: {"loss": mean_loss(net, validation)}, config)
    return net


def score(believed: np.ndarray, true: np.ndarray, costs: np.ndarray) -> dict[str, float]:
    """The measures of believed effects [N, A] (of any scale above 0), given the true ones."""
    average, estimated = true[:, 1:].mean(axis=0), believed[:, 1:].mean(axis=0)
    budget = BUDGET * float(costs[1:].mean()) * len(true)
    mine, best = (gained(effects, true, costs, budget) for effects in (believed, true))
    return {
        "footrule": footrule(average, estimated),
        "pearson": ate_pearson(average, estimated),
        "mcmv_aucc": ordered(believed, true, costs),
        "value": mine / best,
    }


def gained(believed: np.ndarray, true: np.ndarray, costs: np.ndarray, budget: float) -> float:
    """True value a unit of the arms that are given within a budget."""
    arm = allocate(believed, np.broadcast_to(costs, believed.shape), budget).arm
    return float(true[np.arange(len(true)), arm].mean())


def ordered(believed: np.ndarray, true: np.ndarray, costs: np.ndarray) -> float:
    """MCMV-AUCC of every unit twice: under the arm believed best for its cost, and under control."""
    chosen, _ = greedy_path(believed, costs)
    rows = len(true)
    reward = np.concatenate([true[np.arange(rows), chosen], np.zeros(rows)])
    arm = np.concatenate([chosen, np.zeros(rows, int)])
    return mcmv_aucc(np.tile(believed, (2, 1)), costs, reward, arm).estimate


def measure(name: str, factors: int, rows: int, seed: int) -> dict[str, float]:
    """One model on one world."""
    world = World.of(factors, seed)
    x = np.random.default_rng([seed, factors, 2]).normal(size=(FRESH, FEATURES))
    true = world.effects(x)
    if name == "truth":
        return {**score(true, true, world.costs), "seconds": 0.0}
    started = time.perf_counter()
    model = trained(name, world, rows, seed)
    seconds = time.perf_counter() - started
    found = predict(model, x, np.zeros((FRESH, 0), int))[:, :, 0].astype(np.float64)
    return {**score(found - found[:, :1], true, world.costs), "seconds": seconds}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="2, 3, 5 and 10 factors; 5 seeds")
    parser.add_argument("--rows", type=int, default=None, help="8,000; full: 100,000")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--factors", default=None, help="how many, such as 2,3,5")
    parser.add_argument("--models", default=None, help="names of those to compare, by ';'")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    rows = options.rows or (100_000 if options.full else 8_000)
    seeds = options.seeds or (5 if options.full else 2)
    sizes = options.factors or ("2,3,5,10" if options.full else "2,3,5")
    names = options.models.split(";") if options.models else list(MODELS)
    console, results = wide_console(), []
    for factors in map(int, sizes.split(",")):
        for seed in range(seeds):
            for name in (*names, "truth"):
                found = measure(name, factors, rows, seed)
                results.append({"factors": factors, "seed": seed, "model": name, **found})
                told = ", ".join(
                    f"{key} {found[key]:.{digits}f}" for key, digits in MEASURES.items()
                )
                console.print(f"{factors} factors, {seed} {name}: {told}", highlight=False)
    report = {"machine": machine("torch", "numpy"), "rows": rows, "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    show(results, rows, console)
    console.print(report["machine"], highlight=False)


def show(results: Sequence[dict[str, Any]], rows: int, console: Console) -> None:
    """A table for each number of factors: means over seeds with 95% t-intervals."""
    for factors in dict.fromkeys(result["factors"] for result in results):
        here = [result for result in results if result["factors"] == factors]
        seeds = len({result["seed"] for result in here})
        table = Table(title=f"{factors} factors of 3 levels, {rows:,} rows, {seeds} seeds")
        table.add_column("model", no_wrap=True)
        for column in MEASURES:
            table.add_column(column, justify="right")
        for name in dict.fromkeys(result["model"] for result in here):
            mine = [result for result in here if result["model"] == name]
            cells = [interval([r[key] for r in mine], digits) for key, digits in MEASURES.items()]
            table.add_row(name, *cells)
        console.print(table)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
