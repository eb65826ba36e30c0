"""The flywheel's numbers as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.models.tables import interval

COLOURS = {
    "oracle": "#6b7280",
    "loop": "#1d6fd1",
    "gated loop": "#059669",
    "trained once": "#d97706",
    "best arm": "#7c3aed",
    "random": "#9ca3af",
}


def series(report: dict[str, Any], policy: str, quantity: str) -> np.ndarray:
    """A quantity of a policy, [seeds, weeks]."""
    return np.array(
        [[w["policies"][policy][quantity] for w in run["weeks"]] for run in report["results"]]
    )


def totals(report: dict[str, Any], policy: str) -> dict[str, np.ndarray]:
    """What a policy comes to over all weeks, [seeds] each; shares are of the oracle and the budget."""
    net, cost, budget = (series(report, policy, q).sum(axis=1) for q in ("net", "cost", "budget"))
    best = series(report, "oracle", "net").sum(axis=1)
    loop = series(report, "loop", "net").sum(axis=1)
    return {
        "net": net,
        "regret": best - net,
        "share": net / best,
        "used": cost / budget,
        "loop's lead": loop - net,
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table: means over seeds with 95% t-intervals."""
    setting, seeds = report["setting"], len(report["results"])
    table = Table(
        title=f"{setting['cycles']} weeks of {setting['units']:,} decisions, {seeds} seeds",
        caption=report["machine"],
    )
    for column in (
        "policy",
        "net value",
        "regret",
        "of the oracle's",
        "budget used",
        "loop's lead",
    ):
        table.add_column(column, no_wrap=True, justify="left" if column == "policy" else "right")
    for name in report["results"][0]["weeks"][0]["policies"]:
        found = totals(report, name)
        table.add_row(
            name,
            interval(list(found["net"]), 0),
            interval(list(found["regret"]), 0),
            interval(list(100 * found["share"]), 1) + " %",
            interval(list(100 * found["used"]), 1) + " %",
            "" if name == "loop" else interval(list(found["loop's lead"]), 0),
        )
    console.print(table)
    weeks = [week for run in report["results"] for week in run["weeks"]]
    for name in weeks[0]["loops"]:
        told = [week["loops"][name] for week in weeks]
        budget = sum(week["policies"][name]["budget"] for week in weeks)
        console.print(
            f"{name}: explored {np.mean([one['explored'] for one in told]):.1%} of its decisions for "
            f"{sum(one['explored_cost'] for one in told) / budget:.1%} of the budget; "
            f"{sum(one['promoted'] for one in told)} of {len(told)} challengers became champion",
            highlight=False,
        )


def figure(report: dict[str, Any], path: Path) -> None:
    """Left: net value so far; right: net value of each week. Thick: means over seeds; thin: each."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9, 3.6), layout="constrained", dpi=110)
    left, right = drawing.subplots(1, 2)
    weeks = np.arange(1, report["setting"]["cycles"] + 1)
    for name, colour in COLOURS.items():
        if name not in report["results"][0]["weeks"][0]["policies"]:
            continue
        net = series(report, name, "net") / 1000
        for axes, values in ((left, net.cumsum(axis=1)), (right, net)):
            dashes = "--" if name == "oracle" else "-"
            axes.plot(weeks, values.mean(axis=0), dashes, color=colour, lw=1.8, label=name)
            axes.plot(weeks, values.T, color=colour, lw=0.5, alpha=0.5)
    left.set(title="net value so far (thousands)", xlabel="week")
    right.set(title="net value of each week (thousands)", xlabel="week")
    for axes in (left, right):
        axes.axhline(0, color="#6b7280", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    left.legend(frameon=False, fontsize="small")
    drawing.savefig(path)
