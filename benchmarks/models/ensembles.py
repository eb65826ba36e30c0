"""What do several nets, and trees beside them, add to decisions, at what cost, and do intervals hold?

MTMT on the worlds of ``benchmarks.models.worlds``: members that share their trunk or nothing and weigh
units each in its own way (``bootstrap``), each form with and without the trees that have two thirds of the answer.
Told are the share of the oracle's value at each budget, the processor's seconds on one thread, and how
often the 90% interval of an arm's value held the truth.

Run: ``python -m benchmarks.models.ensembles [--seeds 2] [--members 1,3] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.machine import machine, wide_console
from benchmarks.models.decisions import BUDGETS, fit_model, score
from benchmarks.models.worlds import WORLDS, Case, case
from campaigns.objective import value_and_cost
from models.uplift_model import UpliftModel

SHARED = [f"at {share:.0%}" for share in BUDGETS]
TOLD = [*SHARED, "pehe", "seconds", "held"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--units", type=int, default=20_000, help="fresh units that are decided on")
    parser.add_argument("--worlds", default=",".join(["bonus", *WORLDS]))
    parser.add_argument("--members", default="1,3,5")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    console, results = wide_console(), []
    for members in map(int, options.members.split(",")):
        for share in ("trunk", "nothing") if members > 1 else ("nothing",):
            for world in options.worlds.split(","):
                for seed in range(options.seeds):
                    made = case(world, options.rows, seed, units=options.units)
                    for found in measured(made, members, share, seed):
                        results.append({"world": world, "seed": seed, **found})
                        told = {key: round(found[key], 3) for key in TOLD}
                        console.print(f"{world} {seed} {found['form']}: {told}", highlight=False)
    for world in dict.fromkeys(result["world"] for result in results):
        table = Table(title=f"{world}, means over {options.seeds} seed(s)")
        for column in ("form", *TOLD):
            table.add_column(column, no_wrap=True)
        here = [result for result in results if result["world"] == world]
        for form in dict.fromkeys(result["form"] for result in here):
            mine = [result for result in here if result["form"] == form]
            table.add_row(form, *(f"{np.mean([one[key] for one in mine]):.3f}" for key in TOLD))
        console.print(table)
    if options.json:
        report = {"machine": machine("torch", "numpy"), "rows": options.rows, "results": results}
        options.json.write_text(json.dumps(report, indent=1))


def measured(made: Case, members: int, share: str, seed: int) -> Iterator[dict[str, Any]]:
    """One form without its trees, then with them."""
    config = {"members": members, "share": share, "bootstrap": members > 1}
    seconds = 0.0
    model: UpliftModel | None = None
    for trees in (0, 4):
        started = time.process_time()
        if model is None:
            model = fit_model(made.frame, made.campaign, "mtmt", config | {"trees": 0}, seed=seed)
        else:
            beside = {"bags": trees}
            fitted = fit_model(made.frame, made.campaign, "s_boost", beside, seed=seed).net
            model = replace(model, trees=fitted)
        seconds += time.process_time() - started
        form = f"{members} sharing {share}" if members > 1 else "1"
        yield {
            "form": form + (" + trees" if trees else ""),
            "seconds": seconds,
            "held": _held(model, made),
            **score(value_and_cost(model.predict(made.units), made.campaign)[0], made),
        }


def _held(model: UpliftModel, made: Case) -> float:
    """How often the interval of a treated arm's value held the truth; nan without intervals."""
    found = model.intervals(made.units)
    if found is None:
        return float("nan")
    value = value_and_cost(made.truth, made.campaign)[0][:, 1:]
    return float(np.mean((found.value_lower[:, 1:] <= value) & (value <= found.value_upper[:, 1:])))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
