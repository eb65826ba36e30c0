"""What is a dose's number worth? Models that read it beside models to which the same arms have no order.

The world ``discount``: a log that gave 0, 5, ... 30 percent equally often; purchases and revenue rise with
the discount, each unit's in its own way. Every model learns the same rows as the pipeline would train
it: its default settings, no search, 60% of the units to learn from and 20% to stop by. Fresh units tell:

* ``purchase``, ``revenue``: root mean square error of the effects, over that of the best constant for
  each discount (0 is the truth, 1 knows no unit from another);
* ``reversed``: share of units, steps and outcomes where a larger discount is said to do less, by more
  than a thousandth of the mean effect of the largest (truly: none);
* ``value``: true net value of what is given within the campaign's budget, over the most there is.

Run: ``python -m benchmarks.models.doses [--full] [--models "dose_response;t_learner"] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.machine import machine, wide_console
from benchmarks.models.tables import interval
from benchmarks.models.uplift import Answer, Log, trained
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from campaigns.worlds import world
from serving.policy.allocation import allocate

ROOT = Path(__file__).resolve().parents[2]
FRESH = 20_000
BUDGET = 2000.0 * 28 / 60_000  # a unit: that of discount.yaml, at the pace of its log
MEASURES = {"purchase": 3, "revenue": 3, "reversed": 3, "value": 3, "seconds": 1}


@dataclass(frozen=True)
class Contender:
    """A model of the catalogue, its settings, and whether it is told that the treatment is a dose."""

    model: str
    settings: dict[str, Any]
    dose: bool


MODELS = {
    "dose_response": Contender("dose_response", {}, True),
    "dose_response increasing": Contender("dose_response", {"response": "increasing"}, True),
    "dose_response free": Contender("dose_response", {"response": "free"}, True),
    "s_learner of the dose": Contender("s_learner", {}, True),
    "m3e2 of the dose": Contender("m3e2", {}, True),
    "s_learner of arms": Contender("s_learner", {}, False),
    "t_learner of arms": Contender("t_learner", {}, False),
    "tarnet of arms": Contender("tarnet", {}, False),
    "mtmt of arms": Contender("mtmt", {}, False),
}


def campaign(seed: int, dose: bool) -> Campaign:
    """``discount.yaml``; or the same arms, as levels without an order."""
    whole = load_campaign(ROOT / "campaigns" / "discount.yaml")
    data = {**whole.model_dump(), "name": f"discount_{seed}"}
    if not dose:
        arms = whole.arm_table
        levels = {name: {"cost": cost} for name, cost in zip(arms.names, arms.costs.tolist())}
        data["treatments"] = {
            "discount": {"column": "discount", "control": arms.names[0], "levels": levels}
        }
    return Campaign.model_validate(data)


def measure(names: Sequence[str], rows: int, seed: int) -> list[dict[str, Any]]:
    """Each model, and the truth, on one log."""
    shop = world("discount")
    table = shop.log(rows, seed=seed)
    shoppers = shop.units(FRESH, seed=seed + 10_000)
    truth = shop.truth(shoppers)
    found = []
    for name in (*names, "truth"):
        started = time.perf_counter()
        if name == "truth":
            answer: Answer = shop.truth
        else:
            contender = MODELS[name]
            spec = campaign(seed, contender.dose)
            log = Log(spec, decision_frame(table, spec, "discount"))
            answer = trained(log, contender.model, contender.settings, seed)
        seconds = time.perf_counter() - started
        told = score(answer(shoppers), truth, campaign(seed, True))
        found.append({"model": name, "rows": rows, "seed": seed, **told, "seconds": seconds})
    return found


def score(believed: np.ndarray, truth: np.ndarray, spec: Campaign) -> dict[str, float]:
    """The measures of believed potential outcomes [N, A, K], given the true ones."""
    guess, effect = (each[:, 1:] - each[:, :1] for each in (believed, truth))
    error = np.sqrt(((guess - effect) ** 2).mean(axis=(0, 1)))
    constant = np.sqrt(((effect - effect.mean(axis=0)) ** 2).mean(axis=(0, 1)))
    steps = np.diff(guess, axis=1, prepend=0.0)
    least = 1e-3 * np.abs(effect[:, -1].mean(axis=0))
    mine, best = (gained(each, truth, spec) for each in (believed, truth))
    return {
        "purchase": float(error[0] / constant[0]),
        "revenue": float(error[1] / constant[1]),
        "reversed": float((steps < -least).mean()),
        "value": mine / best,
    }


def gained(believed: np.ndarray, truth: np.ndarray, spec: Campaign) -> float:
    """True net value a unit of the arms that are given within the budget."""
    value, cost = value_and_cost(believed, spec)
    budget, least = BUDGET * len(value), spec.budget.min_return
    arm = allocate(value, cost, budget, min_return=least).arm
    value, cost = value_and_cost(truth, spec)
    return float((value - least * cost)[np.arange(len(arm)), arm].mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="3,000 and 30,000 rows; 10 seeds")
    parser.add_argument("--rows", default=None, help="such as 3000,30000; 3,000")
    parser.add_argument("--seeds", type=int, default=None, help="3")
    parser.add_argument("--models", default=None, help="names of those to compare, by ';'")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    sizes = options.rows or ("3000,30000" if options.full else "3000")
    seeds = options.seeds or (10 if options.full else 3)
    names = options.models.split(";") if options.models else list(MODELS)
    if unknown := [name for name in names if name not in MODELS]:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(MODELS)}")
    console, results = wide_console(), list[dict[str, Any]]()
    for rows in map(int, sizes.split(",")):
        for seed in range(seeds):
            found = measure(names, rows, seed)
            results += found
            for one in found:
                told = ", ".join(f"{key} {one[key]:.{n}f}" for key, n in MEASURES.items())
                console.print(f"{rows:,} rows, {seed} {one['model']}: {told}", highlight=False)
    report = {"machine": machine("torch", "numpy"), "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    for rows in dict.fromkeys(result["rows"] for result in results):
        table = Table(title=f"discount, {rows:,} rows; mean ± 95%, seeds: {seeds}")
        table.add_column("model", no_wrap=True)
        for column in MEASURES:
            table.add_column(column, justify="right", no_wrap=True)
        for name in (*names, "truth"):
            mine = [one for one in results if (one["rows"], one["model"]) == (rows, name)]
            cells = [interval([one[key] for one in mine], n) for key, n in MEASURES.items()]
            table.add_row(name, *cells)
        console.print(table)
    console.print(report["machine"], highlight=False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
