"""How often do the 95% intervals of ranking metrics hold the truth?

A trial of N units: score x uniform in [0, 1], effect 0.2 x on a binary outcome that control has with
probability 0.2 + 0.1 x, treated with probability 0.3 to 0.7 by x, weighted by inverse propensity. Another
score is x for a random half of the units and noise for the others. So the truth is known:

                  auuc     ate    lift@30   autoc   rate_qini   qini (p the treated share, 1/2)
    x             1/15     1/10   0.17      1/20    1/60        N p / 60
    the other     7/120    1/10   0.135     1/40    1/120       N p / 120

Told is the share of replications whose interval holds the truth, by bootstrap (200 replicates,
percentiles) and by influence, for x and for the paired difference of the two scores; with 1,000
replications a share of 95% is known to -+ 1.4%.

Run: ``python -m benchmarks.metrics_coverage [--replications 1000] [--rows 1000] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.machine import machine, wide_console
from models.metrics import bootstrap_draws, get_metric, normal_interval, percentile_interval
from models.metrics.influence import standard_error
from models.metrics.trial import check_trial

TRUTH = {
    "ate": (1 / 10, 1 / 10),
    "auuc": (1 / 15, 7 / 120),
    "qini": (1 / 120, 1 / 240),  # a row
    "lift@30": (0.17, 0.135),
    "autoc": (1 / 20, 1 / 40),
    "rate_qini": (1 / 60, 1 / 120),
}
METHODS = ("bootstrap", "influence")


def draw(rows: int, seed: int) -> tuple[NDArray[Any], ...]:
    """y, score, other score, treatment, propensity of the arm given."""
    rng = np.random.default_rng(seed)
    x = rng.random(rows)
    other = np.where(rng.random(rows) < 0.5, x, rng.random(rows))
    chance = 0.3 + 0.4 * x
    t = (rng.random(rows) < chance).astype(int)
    y = (rng.random(rows) < 0.2 + 0.1 * x + 0.2 * x * t).astype(float)
    return y, x, other, t, np.where(t == 1, chance, 1 - chance)


def replication(rows: int, seed: int, replicates: int = 200) -> dict[tuple[str, str, str], bool]:
    """Whether each interval holds the truth, by metric, method and what it is of.

    One bootstrap for all: the replicates are those of ``metric_interval`` and ``metric_difference``.
    """
    y, x, other, t, p = draw(rows, seed)
    trials = [check_trial(y, score, t, propensity=p) for score in (x, other)]
    metrics = [get_metric(name) for name in TRUTH]

    def values(weight: NDArray[Any]) -> NDArray[Any]:
        points = [trial.points(weight) for trial in trials]
        found = np.array([[metric.core(each) for metric in metrics] for each in points])
        return found.transpose(2, 0, 1)

    one, two = values(np.ones((1, rows)))[0]
    draws = bootstrap_draws(values, np.ones(rows), replicates=replicates, seed=seed)
    held = {}
    for k, metric in enumerate(metrics):
        scale = rows if metric.name == "qini" else 1
        first, second = (value * scale for value in TRUTH[metric.name])
        influence = [metric.influence(trial) for trial in trials if metric.influence]
        found = {
            ("bootstrap", "score"): percentile_interval(one[k], draws[:, 0, k]),
            ("influence", "score"): normal_interval(
                one[k], standard_error(trials[0], influence[0])
            ),
            ("bootstrap", "difference"): percentile_interval(
                one[k] - two[k], draws[:, 0, k] - draws[:, 1, k]
            ),
            ("influence", "difference"): normal_interval(
                one[k] - two[k], standard_error(trials[0], influence[0] - influence[1])
            ),
        }
        for (method, what), interval in found.items():
            if what == "score":
                held[metric.name, method, what] = first in interval
            elif metric.name != "ate":  # the two scores have the same
                held[metric.name, method, what] = first - second in interval
    return held


def coverage(rows: int, replications: int, first: int = 0) -> dict[tuple[str, str, str], float]:
    """The share of replications that hold the truth."""
    held = defaultdict(list)
    for seed in range(first, first + replications):
        for key, inside in replication(rows, seed).items():
            held[key].append(inside)
    return {key: float(np.mean(values)) for key, values in held.items()}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    found = coverage(options.rows, options.replications)
    columns = [(method, what) for what in ("score", "difference") for method in METHODS]
    table = Table(title=f"coverage of 95% intervals, {options.rows:,} rows")
    table.add_column("metric")
    for method, what in columns:
        table.add_column(f"{what}, {method}", justify="right")
    for metric in TRUTH:
        shares = (found.get((metric, *column)) for column in columns)
        table.add_row(metric, *("" if share is None else f"{share:.1%}" for share in shares))
    console = wide_console()
    console.print(table)
    report = {
        "machine": machine("numpy"),
        "rows": options.rows,
        "replications": options.replications,
        "coverage": [
            {"metric": metric, "method": method, "of": what, "share": share}
            for (metric, method, what), share in found.items()
        ],
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    console.print(report["machine"], highlight=False)


if __name__ == "__main__":
    main()
