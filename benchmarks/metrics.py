"""How fast are Qini, AUUC and LIFT@30, how fast is their bootstrap, and how much memory do they take?

A trial of independent rows: scores without ties (float64), binary outcomes (float64), half of the rows
treated (int64). In one run and one thread, turn by turn, so that whatever else the machine does hits all
alike:

* floor: one bare ``numpy.argsort`` of the scores. Any curve needs their order.
* ours: ``evaluate(["qini_perfect", "auuc_perfect", "lift@30"])``, checks of the input included.
* scikit-uplift: ``qini_auc_score``, ``uplift_auc_score``, ``uplift_at_k``: the same three numbers, and
  the run fails where they differ by 1e-9.
* causalml, where it is installed: ``qini_score``, ``auuc_score``, ``get_cumlift``, beside ours in its
  convention.
* the bootstrap: replicates of the same three metrics; the rows are sorted once. scikit-uplift has none,
  so one of its replicates is the same three calls on rows drawn with replacement.

Told are medians of CPU seconds over the turns and the memory at its peak beyond the input (``tracemalloc``
sees NumPy's and pandas' arrays), in another pass that isn't timed.

Run: ``python -m benchmarks.metrics [--rows 10000000] [--turns 3] [--replicates 1000] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.machine import machine, wide_console
from models.metrics import evaluate, in_convention, metric_intervals

NAMES = ("qini_perfect", "auuc_perfect", "lift@30")
SEED = 0

Data = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def draw(rows: int) -> Data:
    """y, score, treatment."""
    rng = np.random.default_rng(SEED)
    score, treatment = rng.random(rows), rng.integers(0, 2, rows)
    return (rng.random(rows) < 0.2 + 0.2 * treatment * score).astype(float), score, treatment


def floor(data: Data) -> list[float]:
    """What any curve needs."""
    return [float(np.argsort(data[1])[0])]


def ours(data: Data) -> list[float]:
    """The three metrics."""
    return list(evaluate(NAMES, *data).values())


def sklift(data: Data) -> list[float]:
    """The same by scikit-uplift."""
    from sklift.metrics import qini_auc_score, uplift_at_k, uplift_auc_score

    lift = uplift_at_k(*data, strategy="overall", k=0.3)
    return [float(qini_auc_score(*data)), float(uplift_auc_score(*data)), float(lift)]


def causalml(data: Data) -> list[float]:
    """Its three."""
    import pandas as pd
    from causalml.metrics import auuc_score, get_cumlift, qini_score

    table = pd.DataFrame({"y": data[0], "w": data[2], "model": data[1]})
    lift = get_cumlift(table)["model"][int(0.3 * len(table))]
    return [float(each) for each in (qini_score(table)["model"], auuc_score(table)["model"], lift)]


def ours_as_causalml(data: Data) -> list[float]:
    """Ours, in its convention."""
    return [in_convention("causalml", metric, *data) for metric in ("qini", "auuc", "lift@30")]


def bootstrap(data: Data, replicates: int) -> list[float]:
    """Intervals of the three metrics."""
    found = metric_intervals(NAMES, *data, replicates=replicates, seed=SEED)
    return [bound for interval in found.values() for bound in (interval.low, interval.high)]


def sklift_replicate(data: Data) -> list[float]:
    """One replicate, with rows drawn anew."""
    rows = np.random.default_rng(SEED).integers(0, len(data[0]), len(data[0]))
    return sklift((data[0][rows], data[1][rows], data[2][rows]))


def measure(
    works: dict[str, Callable[[], list[float]]], turns: int, memory: bool = True
) -> list[dict[str, Any]]:
    """CPU and wall seconds by medians over turns, taken in turn, and peak memory beyond the input."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    values = {}
    for _ in range(turns):
        for name, work in works.items():
            clock, cpu = time.perf_counter(), time.process_time()
            values[name] = work()
            taken[name].append((time.process_time() - cpu, time.perf_counter() - clock))
    found = []
    for name, work in works.items():
        cpu, clock = np.median(taken[name], axis=0)
        entry = {"work": name, "cpu": cpu, "wall": clock, "values": values[name]}
        if memory:
            tracemalloc.start()
            work()
            entry["peak"] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        found.append(entry)
    return found


def agree(results: list[dict[str, Any]], pairs: dict[str, str]) -> float:
    """The largest difference between two that should give the same; refused from 1e-9 on."""
    values = {result["work"]: np.array(result["values"]) for result in results}
    gaps = [np.abs(values[one] - values[two]).max() for one, two in pairs.items() if two in values]
    if max(gaps) > 1e-9:
        raise SystemExit(f"the numbers differ by {max(gaps):g}: {values}")
    return float(max(gaps))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--bootstrap-rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")  # scikit-uplift's

    console = wide_console()
    data = draw(options.rows)
    size = sum(column.nbytes for column in data)
    works = {"argsort": floor, "updraft": ours, "scikit-uplift": sklift}
    packages = ["numpy", "scikit-uplift"]
    if find_spec("causalml"):
        works |= {"updraft as causalml": ours_as_causalml, "causalml": causalml}
        packages.append("causalml")
    results = measure({name: partial(work, data) for name, work in works.items()}, options.turns)
    gap = agree(results, {"updraft": "scikit-uplift", "updraft as causalml": "causalml"}
                if "causalml" in works else {"updraft": "scikit-uplift"})  # fmt: skip
    table = Table(title=f"Qini, AUUC and LIFT@30 of {options.rows:,} rows")
    for column in ("", "CPU s", "wall s", "of argsort", "peak MB", "of the input"):
        table.add_column(column, justify="right" if column else "left")
    for found in results:
        table.add_row(
            found["work"], f"{found['cpu']:.2f}", f"{found['wall']:.2f}",
            f"{found['cpu'] / results[0]['cpu']:.2f}", f"{found['peak'] / 1e6:,.0f}",
            f"{found['peak'] / size:.2f}",
        )  # fmt: skip
    console.print(table)

    data = draw(options.bootstrap_rows)
    once = measure({"scikit-uplift": partial(sklift_replicate, data)}, options.turns)
    many = measure({"updraft": partial(bootstrap, data, options.replicates)}, 1, memory=False)
    tracemalloc.start()
    bootstrap(data, 3)
    many[0]["peak"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(column.nbytes for column in data)
    table = Table(title=f"bootstrap of the three on {options.bootstrap_rows:,} rows")
    for column in ("", "replicates", "CPU s", "ms a replicate", "peak MB", "of the input"):
        table.add_column(column, justify="right" if column else "left")
    for found, count in ((many[0], options.replicates), (once[0], 1)):
        table.add_row(
            found["work"], f"{count:,}", f"{found['cpu']:.2f}", f"{found['cpu'] / count * 1e3:.1f}",
            f"{found['peak'] / 1e6:,.0f}", f"{found['peak'] / size:.2f}",
        )  # fmt: skip
    console.print(table)
    report = {
        "machine": machine(*packages),
        "rows": options.rows,
        "turns": options.turns,
        "largest difference": gap,
        "once": results,
        "bootstrap": {"rows": options.bootstrap_rows, "replicates": options.replicates,
                      "updraft": many[0], "scikit-uplift": once[0]},
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    console.print(report["machine"], highlight=False)


if __name__ == "__main__":
    main()
