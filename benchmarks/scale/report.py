"""What the stages took, as tables and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.models.tables import markdown
from benchmarks.scale.stages import STAGES

JUDGED = [name for name in STAGES if name != "generate"]
GIB = 2**30


def slope(results: Sequence[Mapping[str, Any]]) -> float:
    """Of log CPU seconds against log rows, by least squares; 1 is linear; nan of fewer than two sizes."""
    if len({each["rows"] for each in results}) < 2:
        return float("nan")
    x = np.log([each["rows"] for each in results])
    y = np.log([each["cpu"] for each in results])
    return float(np.polyfit(x, y, 1)[0])


def of(report: Mapping[str, Any], stage: str, features: int = 12) -> list[dict[str, Any]]:
    """A stage's results by rising size."""
    found = [r for r in report["results"] if r["stage"] == stage and r["features"] == features]
    return sorted(found, key=lambda each: int(each["rows"]))


def tables(report: Mapping[str, Any], features: int = 12) -> tuple[list[str], list[list[str]]]:
    """Header and rows: wall and CPU seconds and GiB of each stage by size, slope, floor at the largest."""
    sizes = sorted({each["rows"] for stage in JUDGED for each in of(report, stage, features)})
    header = ["stage", *(f"{_short(size)}: s / CPU s (GiB)" for size in sizes), "slope", "floor, s"]
    rows = []
    for stage in JUDGED:
        here = {each["rows"]: each for each in of(report, stage, features)}
        if not here:
            continue
        cells = [
            f"{here[size]['seconds']:.0f} / {here[size]['cpu']:.0f} ({here[size]['peak'] / GIB:.1f})"
            if size in here
            else ""
            for size in sizes
        ]
        known = slope(list(here.values()))
        told = "" if np.isnan(known) else f"{known:z.2f}"
        rows.append([stage, *cells, told, f"{here[max(here)]['floor']:.1f}"])
    return header, rows


def peers(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What pandas, EconML and scikit-uplift took, beside ours of the same parts."""
    header = ["rows", "retrieval", "validation", "learning", "evaluation", "all, s", "GiB"]
    rows = []
    for each in of(report, "peer"):
        parts = [f"{each['parts'][name]:.1f}" for name in header[1:5]]
        row = [f"{each['rows']:,}", *parts, f"{each['seconds']:.1f}", f"{each['peak'] / GIB:.1f}"]
        rows.append(row)
    return header, rows


def page(report: Mapping[str, Any]) -> str:
    """What stands between the markers of the page."""
    speed = report["rates"]
    rate = (
        f"{report['machine']}. Disk {speed['disk'] / 1e9:.1f} GB/s, memory {speed['memory'] / 1e9:.1f} "
        f"GB/s, matrix product {speed['product'] / 1e9:.0f} GFLOP/s, one thread each."
    )
    if loads := [each["load"] for each in report["results"] if "load" in each]:
        rate += f" Load average: {min(loads):.0f} to {max(loads):.0f}."
    parts = ["```console\npython -m benchmarks.scale --peers\n```", rate, markdown(*tables(report))]
    header, rows = tables(report, 700)
    if rows:
        parts += ["700 features, by the second command above:", markdown(header, rows)]
    if of(report, "peer"):
        parts += ["pandas, EconML over LightGBM, scikit-uplift:", markdown(*peers(report))]
    for each in of(report, "trees")[-1:]:
        parts.append(
            f"The trees that `mtmt` has beside it ({each['bags']} bags) on {each['rows']:,} rows: {each['seconds']:.0f} s "
            f"(CPU: {each['cpu']:.0f}, {each['peak'] / GIB:.1f} GiB), then {each['answering']:.0f} s to answer every unit."
        )
    for each in of(report, "online")[-1:]:
        parts.append(
            f"Online store (Feast, SQLite): {each['seconds'] / each['units'] * 1e6:.0f} µs a unit "
            f"(CPU: {each['cpu'] / each['units'] * 1e6:.0f}), {each['bytes a unit']:,.0f} bytes each."
        )
    for each in of(report, "pipeline")[-1:]:
        parts.append(
            f"`updraft run` on {each['rows']:,} rows: {each['seconds']:.0f} s, of which its "
            f"{len(each['steps'])} steps worked {each['work']:.0f} s: {each['overhead']:.0%} on top."
        )
    return "\n\n".join(parts)


def show(report: Mapping[str, Any], console: Console) -> None:
    """The tables on the console."""
    for features in sorted({each["features"] for each in report["results"]}):
        header, rows = tables(report, features)
        table = Table(title=f"{features} features", caption=report["machine"])
        for place, name in enumerate(header):
            table.add_column(name, justify="right" if place else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def figure(report: Mapping[str, Any], path: Path) -> None:
    """CPU seconds (beside a line of slope 1) and peak memory of every stage by rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for stage in JUDGED:
        here = of(report, stage)
        rows = np.array([each["rows"] for each in here])
        if not len(rows):
            continue
        axes[0].plot(rows, [each["cpu"] for each in here], marker="o", label=stage)
        axes[1].plot(rows, [each["peak"] / GIB for each in here], marker="o", label=stage)
    sizes = np.array(sorted({each["rows"] for stage in JUDGED for each in of(report, stage)}))
    axes[0].plot(sizes, sizes / sizes[0] * 2.0, color="grey", linestyle=":", label="linear")
    axes[0].set(xscale="log", yscale="log", xlabel="rows", ylabel="CPU seconds")
    axes[1].axhline(8, color="grey", linestyle=":")
    axes[1].set(xscale="log", xlabel="rows", ylabel="peak memory, GiB", ylim=(0, 9))
    axes[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=120)


def _short(rows: int) -> str:
    return f"{rows / 1e6:g}M" if rows >= 100_000 else f"{rows / 1e3:g}k"
