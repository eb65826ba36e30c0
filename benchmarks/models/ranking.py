"""Who orders units best by value for cost? AUCC of ranking nets, R-learners and a causal forest.

The world is in the manner of the papers on direct ranking: a treatment moves both what a unit is worth
and what it costs, each in its own way, and for some units the cost effect is near 0. Covertype and US
Census 1990 join where their files are given. On the world the AUCC and the share of the oracle's value
within 10, 20 and 50% of the cost of treating everyone are those of the true effects; on the other data
the AUCC is estimated on held-out rows, with propensities that are estimated too.

Run: ``python -m benchmarks.models.ranking [--full] [--covertype FILE] [--census FILE] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.machine import machine, wide_console
from benchmarks.models.peers import classifier, regressor
from models.catalog import build, entry
from models.data import Batch, Encoder, OutcomeScaler, Shape
from models.inference import predict
from models.metrics import aucc
from models.ranking import RankingNet
from models.selection import mean_loss
from models.training import InMemoryBatches, TrainConfig, fit

BUDGETS = (0.1, 0.2, 0.5)
LEAST_COST = 0.05  # of the mean predicted cost effect: no prediction is divided by less
NETS = ("direct_ranking", "constrained_ranking", "duality_r_learner", "t_learner")
CENSUS_OWN = (
    "caseid",
    "dHours",
    "iFertil",
    "dIncome1",
    "iWork89",
    "iYearwrk",
    "dWeek89",
    "iWorklwk",
)


@dataclass(frozen=True)
class Trial:
    """Units of a trial with one treated arm.

    Attributes:
        x: Features, [N, F].
        treated: [N] of 0 and 1.
        value, cost: Observed, [N].
        propensity: Probability of treatment, [N].
        value_effect, cost_effect: True effects [N], NaN where nobody knows them.
    """

    x: np.ndarray
    treated: np.ndarray
    value: np.ndarray
    cost: np.ndarray
    propensity: np.ndarray
    value_effect: np.ndarray
    cost_effect: np.ndarray

    def part(self, rows: np.ndarray) -> Trial:
        """Some of the units."""
        return Trial(*(getattr(self, each.name)[rows] for each in fields(self)))

    @property
    def given(self) -> np.ndarray:
        """Probability of what each unit was given, [N]."""
        return np.where(self.treated == 1, self.propensity, 1.0 - self.propensity)


def world(rows: int, seed: int) -> Trial:
    """A value/cost world: value follows cost at a return that varies, on outcomes that vary more."""
    rng = np.random.default_rng([seed, 5507])
    x = rng.normal(size=(rows, 10))
    cost_effect = 0.6 * np.log1p(np.exp(2.0 * x[:, 0] - 0.5))  # below 0.05 for one unit in five
    returns = 0.2 + 2.0 / (1.0 + np.exp(0.5 - 2.0 * x[:, 2] + 1.5 * x[:, 3] * x[:, 4]))
    value_effect = returns * cost_effect + 0.1 / (1.0 + np.exp(-x[:, 5]))
    treated = rng.integers(0, 2, rows)
    value = 2.0 + x[:, 0] + x[:, 2] + np.sin(2.0 * x[:, 6]) + treated * value_effect
    cost = 1.0 + np.abs(x[:, 3]) + 0.5 * x[:, 7] + treated * cost_effect
    return Trial(
        x,
        treated,
        value + 1.5 * rng.normal(size=rows),
        cost + rng.normal(size=rows),
        np.full(rows, 0.5),
        value_effect,
        cost_effect,
    )


def covertype(file: Path) -> Trial:
    """Covertype, our reading: near water or not, far from fire, lodgepole pine or spruce."""
    table = pd.read_csv(file, header=None if file.suffix == ".data" else 0)
    table = table[table.iloc[:, 54].isin([1, 2])].to_numpy(np.float64)
    water, fire, kind = table[:, 3], table[:, 9], table[:, 54]
    x = np.delete(table, [3, 4, 9, 54], axis=1)
    return observed(x, water < np.median(water), fire > np.median(fire), kind == 2)


def census(file: Path) -> Trial:
    """US Census 1990, our reading: mothers under 50 who work long hours, their income and children."""
    table = pd.read_csv(file)
    table = table[(table["iFertil"] >= 2) & (table["dAge"] < 5)]
    hours, income, children = (
        table[name].to_numpy(float) for name in ("dHours", "dIncome1", "iFertil")
    )
    x = table.drop(columns=[name for name in CENSUS_OWN if name in table]).to_numpy(np.float64)
    return observed(x, hours > np.median(hours), income, children)


def observed(x: np.ndarray, treated: np.ndarray, value: np.ndarray, cost: np.ndarray) -> Trial:
    """Data without a trial: propensities by boosted trees, both outcomes turned so that they rise."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import cross_val_predict

    t = treated.astype(int)
    found = cross_val_predict(HistGradientBoostingClassifier(), x, t, cv=3, method="predict_proba")
    p = np.clip(found[:, 1], 0.02, 0.98)
    turned = []
    for y in (value.astype(float), cost.astype(float)):
        effect = np.average(y, weights=t / p) - np.average(y, weights=(1 - t) / (1 - p))
        turned.append(y if effect >= 0 else -y)
    unknown = np.full(len(x), np.nan)
    return Trial(x, t, turned[0], turned[1], p, unknown, unknown)


def by_net(name: str, learn: Trial, test: Trial, seed: int) -> np.ndarray:
    """Scores of a net of the catalogue with its default settings, [N]."""
    columns = [f"x{place}" for place in range(learn.x.shape[1])]
    encoder = Encoder.fit(dict(zip(columns, learn.x.T)), columns, [])
    scaler = OutcomeScaler.fit(outcomes := np.column_stack([learn.value, learn.cost]), KINDS)
    shape = Shape(
        len(encoder.numeric_names), encoder.categories, ((0,), (1,)), KINDS, (),
        (scaler.scale[0], 0.0), (0.0, 1.0), 1, scaler.scale[1],
    )  # fmt: skip
    encoded = encoder.encode(dict(zip(columns, learn.x.T)))
    rows = Batch.of(*encoded, learn.treated, scaler.apply(outcomes), learn.given)
    held_out = torch.arange(len(rows)) % 5 == 0
    rest, validation = (rows.select(part.nonzero()[:, 0]) for part in (~held_out, held_out))
    net = build(name, shape, seed=seed)
    config = TrainConfig(batch_size=2048, seed=seed, device="cpu")
    fit(net, InMemoryBatches(rest, config.batch_size, seed),
        lambda net: {"loss": mean_loss(net, validation)}, config)  # fmt: skip
    x_num, x_cat = encoder.encode(dict(zip(columns, test.x.T)))
    if isinstance(net, RankingNet):
        with torch.no_grad():
            scores = net.eval().scores(torch.as_tensor(x_num), torch.as_tensor(x_cat))
        return scores[:, 1].double().numpy()
    found = predict(net, x_num, x_cat).astype(np.float64)
    effects = (found[:, 1] - found[:, 0]) * scaler.scale
    return ratio(effects[:, 0], effects[:, 1])


KINDS = ("continuous", "continuous")


def by_r_learner(learn: Trial, test: Trial, seed: int) -> np.ndarray:
    """Boosted R-learners of value and of cost (Nie & Wager 2021), nuisances cross-fitted, [N]."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    folds, effects = KFold(3, shuffle=True, random_state=seed), []
    centred = learn.treated - learn.propensity
    for y in (learn.value, learn.cost):
        left = y - cross_val_predict(HistGradientBoostingRegressor(), learn.x, y, cv=folds)
        last = HistGradientBoostingRegressor(learning_rate=0.05, min_samples_leaf=100)
        last.fit(learn.x, left / centred, sample_weight=centred**2)
        effects.append(last.predict(test.x))
    return ratio(*effects)


def by_forest(learn: Trial, test: Trial, seed: int) -> np.ndarray:
    """econml's causal forests of value and of cost, over LightGBM, [N]."""
    from econml.dml import CausalForestDML

    effects = []
    for y in (learn.value, learn.cost):
        forest = CausalForestDML(
            model_y=regressor(seed),
            model_t=classifier(seed),
            discrete_treatment=True,
            n_estimators=200,
            min_samples_leaf=20,
            random_state=seed,
        )
        forest.fit(y, learn.treated, X=learn.x)
        effects.append(forest.effect(test.x))
    return ratio(*effects)


def ratio(value: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Value for cost, with a floor under the cost, [N]."""
    return value / np.maximum(cost, max(LEAST_COST * float(np.abs(cost).mean()), 1e-9))


def peers() -> dict[str, Callable[[Trial, Trial, int], np.ndarray]]:
    """Everything that scores, by name."""
    nets = {name: lambda *each, name=name: by_net(name, *each) for name in NETS if entry(name)}
    forest = {"causal_forest (econml)": by_forest} if find_spec("econml") else {}
    oracle = {"oracle": lambda _, test, __: ratio(test.value_effect, test.cost_effect)}
    return {**nets, "r_learner (boosted)": by_r_learner, **forest, **oracle}


def measure(score: np.ndarray, test: Trial) -> dict[str, float]:
    """AUCC, and the shares of the oracle's value where the truth is known."""
    if np.isnan(test.value_effect).any():
        given = test.given
        return {"aucc": aucc(test.value, score, test.treated, cost=test.cost, propensity=given)}
    both = np.repeat([1, 0], len(score))  # every unit treated and not, without noise
    value, cost = both * np.tile(test.value_effect, 2), both * np.tile(test.cost_effect, 2)
    found = {"aucc": aucc(value, np.tile(score, 2), both, cost=cost)}
    best = gained(ratio(test.value_effect, test.cost_effect), test)
    shares = gained(score, test) / best
    return found | {f"value@{budget:.0%}": float(each) for budget, each in zip(BUDGETS, shares)}


def gained(score: np.ndarray, test: Trial) -> np.ndarray:
    """True value within each budget, units taken by score, [budgets]."""
    order = np.argsort(-score, kind="stable")
    spent = np.cumsum(test.cost_effect[order]) / test.cost_effect.sum()
    value = np.cumsum(test.value_effect[order])
    return np.interp(BUDGETS, spent, value)


def case(name: str, known: Trial | None, rows: int, seed: int) -> tuple[Trial, Trial]:
    """What to learn from and what to measure on."""
    if known is None:
        return world(rows, seed), world(50_000, seed + 10_000)
    drawn = np.random.default_rng(seed).permutation(len(known.x))
    cut = min(rows, int(0.7 * len(drawn)))
    return known.part(drawn[:cut]), known.part(drawn[cut : cut + 100_000])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more rows, more seeds")
    parser.add_argument("--rows", type=int, default=None, help="rows to learn from")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--models", default=None, help="names of those to compare; default: all")
    parser.add_argument("--covertype", type=Path, default=None, help="covtype.data or a CSV of it")
    parser.add_argument("--census", type=Path, default=None, help="USCensus1990.data.txt")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    rows = options.rows or (200_000 if options.full else 20_000)
    seeds = options.seeds or (10 if options.full else 2)
    data: dict[str, Trial | None] = {"world": None}
    data |= {"covertype": covertype(options.covertype)} if options.covertype else {}
    data |= {"census": census(options.census)} if options.census else {}
    chosen, console, results = peers(), wide_console(), []
    if options.models:
        chosen = {name: chosen[name] for name in [*options.models.split(","), "oracle"]}
    for name, known in data.items():
        for seed in range(seeds):
            learn, test = case(name, known, rows, seed)
            for model, score in chosen.items():
                if model == "oracle" and known is not None:
                    continue
                begin = time.perf_counter()
                found = measure(score(learn, test, seed), test)
                took = time.perf_counter() - begin
                results.append(
                    {"data": name, "seed": seed, "model": model, "seconds": took, **found}
                )
                console.print(f"{name} {seed} {model}: {found['aucc']:.4f}", highlight=False)
    packages = ["torch", "scikit-learn", *(["econml"] if find_spec("econml") else [])]
    if options.json:
        report = {"machine": machine(*packages), "rows": rows, "results": results}
        options.json.write_text(json.dumps(report, indent=2))
    show(results, rows, console)


def show(results: list[dict[str, Any]], rows: int, console: Console) -> None:
    """A table a data set: means over seeds with 95% intervals (Student's t)."""
    table = pd.DataFrame(results)
    for name, some in table.groupby("data", sort=False):
        measured = [
            c for c in some if (c == "aucc" or c.startswith("value@")) and some[c].notna().any()
        ]
        shown = Table(title=f"{name}, {rows:,} rows, {some['seed'].nunique()} seeds")
        for column in ["model", *measured, "seconds"]:
            shown.add_column(
                column, justify="left" if column == "model" else "right", no_wrap=column == "model"
            )
        for model, mine in some.groupby("model", sort=False):
            cells = [interval(mine[column].to_numpy()) for column in measured]
            shown.add_row(str(model), *cells, f"{mine['seconds'].mean():.1f}")
        console.print(shown)


def interval(values: np.ndarray) -> str:
    """Mean and half width."""
    if len(values) < 2:
        return f"{values.mean():.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
