"""How fast is an allocation, and how near the best, beside general solvers and a bare pass?

* 1e7 units x 3 arms, one budget: in portions (`plan`) and sorted in memory (`allocate`), with the gap,
  the time and the memory above the table's own, beside one argmax over the table, which is what any
  method has to pay.
* 1e5 units x 3 arms, one budget: the same beside the linear programme by HiGHS (scipy) and, where it
  is installed, by OR-tools (GLOP), all in one run. A fractional optimum is no less than ours can be.
* 2e4 units x 3 arms, four limits: budget, stock, a segment's least share, a guardrail.

Every method runs in a process of its own, so that its memory is its own. Times are the processor's
(seconds of all threads), which other work on the machine changes less than the clock's; both are told.

Run: ``python -m benchmarks.allocation [--units 10000000] [--peers 100000] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy import sparse
from scipy.optimize import linprog

from benchmarks.machine import machine, wide_console
from serving.policy import limits
from serving.policy.allocation import allocate
from serving.policy.planning import allocate_within

COST = np.array([0.0, 0.3, 0.55])
SHARE = 0.06  # of cost per unit: about a seventh of treating everybody


def world(units: int, seed: int) -> tuple[np.ndarray, list[limits.Limit]]:
    """Values [N, 3], and a budget, a stock, a segment's least share and a guardrail."""
    rng = np.random.default_rng(seed)
    value = np.zeros((units, 3))
    value[:, 1:] = rng.normal(0.2, 0.4, (units, 2))
    return value, [limits.budget(SHARE * units, COST)]


def with_more(units: int, seed: int) -> tuple[np.ndarray, list[limits.Limit]]:
    """The same world with three more limits."""
    value, few = world(units, seed)
    rng = np.random.default_rng([seed, 1])
    effect = np.c_[np.zeros(units), rng.normal(-0.02, 0.1, (units, 2))]
    return value, [
        *few,
        limits.stock(units // 100, 2, 3, name="skins"),
        limits.least_share(0.3, rng.random(units) < 0.1, 3, name="newcomers"),
        limits.guardrail(0.001 * units, effect, name="sessions"),
    ]


def bare(value: np.ndarray, given: list[limits.Limit]) -> dict[str, Any]:
    """One pass: the best arm of each unit, whatever it costs."""
    return {"value": float(value[np.arange(len(value)), value.argmax(axis=1)].sum())}


def portions(value: np.ndarray, given: list[limits.Limit]) -> dict[str, Any]:
    """Ours, for any number of limits."""
    _, found = allocate_within(value, given)
    over = max(found.uses[limit.name] - limit.at_most for limit in given)
    return {"value": found.value, "bound": found.upper_bound, "gap": found.gap, "over": over}


def in_memory(value: np.ndarray, given: list[limits.Limit]) -> dict[str, Any]:
    """Ours, for one budget: all steps sorted."""
    found = allocate(value, given[0].use, given[0].at_most)
    over = found.cost - given[0].at_most
    return {"value": found.value, "bound": found.upper_bound, "gap": found.gap, "over": over}


def highs(value: np.ndarray, given: list[limits.Limit]) -> dict[str, Any]:
    """The linear programme by scipy's HiGHS, with its own choice of method."""
    found = linprog(
        -value.ravel(),
        A_ub=sparse.csr_array(_coefficients(value, given)),
        b_ub=[limit.at_most for limit in given],
        A_eq=sparse.kron(sparse.eye(len(value)), np.ones((1, value.shape[1])), format="csr"),
        b_eq=np.ones(len(value)),
        bounds=(0, 1),
        method="highs",
    )
    return {"value": -found.fun}


def or_tools(value: np.ndarray, given: list[limits.Limit]) -> dict[str, Any]:
    """The linear programme by OR-tools' GLOP."""
    import pandas as pd
    from ortools.linear_solver.python import model_builder

    units, arms = value.shape
    model = model_builder.Model()
    share = model.new_var_series("x", pd.RangeIndex(units * arms), 0.0, 1.0).to_numpy()
    for row in range(units):
        model.add(model_builder.LinearExpr.sum(share[row * arms : (row + 1) * arms]) == 1)
    for limit, use in zip(given, _coefficients(value, given)):
        some = np.flatnonzero(use)
        model.add(
            model_builder.LinearExpr.weighted_sum(share[some], use[some].tolist()) <= limit.at_most
        )
    model.maximize(model_builder.LinearExpr.weighted_sum(share, value.ravel().tolist()))
    solver = model_builder.Solver("GLOP")
    began = time.process_time()
    status = solver.solve(model)
    if status != model_builder.SolveStatus.OPTIMAL:
        raise RuntimeError(f"GLOP: {status}")
    return {"value": solver.objective_value, "solving": time.process_time() - began}


def _coefficients(value: np.ndarray, given: list[limits.Limit]) -> np.ndarray:
    return np.array([np.broadcast_to(limit.use, value.shape).ravel() for limit in given])


METHODS: dict[str, Callable[..., dict[str, Any]]] = {
    "argmax alone": bare,
    "in portions": portions,
    "sorted in memory": in_memory,
    "HiGHS": highs,
    "OR-tools GLOP": or_tools,
}


def measure(name: str, make: Callable[[], tuple[np.ndarray, list[limits.Limit]]]) -> dict[str, Any]:
    """Value, times and GiB above the table's own, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(name, make, there))
    child.start()
    there.close()
    found: dict[str, Any] = here.recv()
    child.join()
    return {"method": name, **found}


def _child(
    name: str, make: Callable[[], tuple[np.ndarray, list[limits.Limit]]], there: Any
) -> None:
    value, given = make()
    METHODS["argmax alone"](value[:1000], given)  # warm
    before = _peak()
    clock, began = time.perf_counter(), time.process_time()
    found = METHODS[name](value, given)
    found["seconds"] = time.process_time() - began
    found["clock"] = time.perf_counter() - clock
    found["gib"] = _peak() - before
    there.send(found)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure, print, and exit 1 where the claims don't hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=10_000_000)
    parser.add_argument("--peers", type=int, default=100_000, help="units where solvers take part")
    parser.add_argument("--several", type=int, default=20_000, help="units with several limits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    solvers = ["HiGHS"]
    packages = ["numpy", "scipy"]
    if find_spec("ortools"):
        solvers.append("OR-tools GLOP")
        packages.append("ortools")
    else:
        print("OR-tools isn't installed: left out (pip install ortools).")
    ours = ["argmax alone", "in portions"]
    alone = [*ours, "sorted in memory"]
    large = partial(world, options.units, options.seed)
    one, four = (
        partial(world, options.peers, options.seed),
        partial(with_more, options.several, options.seed),
    )
    tables = {
        f"{options.units:,} units, one budget": [measure(name, large) for name in alone],
        f"{options.peers:,} units, one budget": [measure(name, one) for name in alone + solvers],
        f"{options.several:,} units, four limits": [measure(name, four) for name in ours + solvers],
    }
    report = {"machine": machine(*packages), "seed": options.seed, "tables": tables}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    console = wide_console()
    for title, found in tables.items():
        console.print(show(title, found, report["machine"]))
    if not holds(tables):
        raise SystemExit(1)


def holds(tables: dict[str, list[dict[str, Any]]]) -> bool:
    """Gaps of at most 1e-4, no limit passed, the solvers' values to 1e-4."""
    for found in tables.values():
        best = max((each["value"] for each in found if "gap" not in each), default=0.0)
        exact = [each["value"] for each in found if each["method"] in ("HiGHS", "OR-tools GLOP")]
        for each in found:
            if "gap" in each and (each["gap"] > 1e-4 or each["over"] > 1e-9 * abs(best)):
                return False
            if "gap" in each and any(abs(each["value"] / value - 1) > 1e-4 for value in exact):
                return False
    return True


def show(title: str, found: list[dict[str, Any]], caption: str) -> Table:
    """One table: value, gap, time, memory, and time as a multiple of ours in portions."""
    table = Table(title=title, caption=caption)
    for column in (
        "method",
        "value",
        "gap",
        "seconds",
        "of ours",
        "solving alone",
        "clock",
        "GiB more",
    ):
        table.add_column(column, no_wrap=True)
    ours = next(each["seconds"] for each in found if each["method"] == "in portions")
    for each in found:
        table.add_row(
            each["method"],
            f"{each['value']:.3f}",
            f"{each['gap']:.1e}" if "gap" in each else "",
            f"{each['seconds']:.2f}",
            f"{each['seconds'] / ours:.2f}",
            f"{each['solving']:.2f}" if "solving" in each else "",
            f"{each['clock']:.2f}",
            f"{each['gib']:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
