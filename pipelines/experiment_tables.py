"""An experiment's plan, decisions and read-out as tables that a growth team reads."""

from __future__ import annotations

import math
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from models.metrics.intervals import Interval
from models.readout import BROKEN, COST, HIGHER, LOWER, ReadOut

STYLES = {HIGHER: "green", LOWER: "red", BROKEN: "bold red"}


def print_plan(found: dict[str, Any], console: Console) -> None:
    """The least effects that are found."""
    table = Table(
        title=f"{found['experiment']}: what {found['units']:,} units show against "
        f"{found['reference']}, power {found['power']:g}",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for name in ("outcome", "variant"):
        table.add_column(name, no_wrap=True)
    asked = found["effect"] is not None
    columns = ["units", "mean", "shows", "in %"]
    for name in columns + ([f"for {found['effect']:.1%}"] if asked else []):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["effects"]:
        cells = [
            f"{row['units']:,}",
            f"{row['mean']:.4g}",
            f"{row['detectable']:.3g}",
            "" if row["relative"] is None else f"{row['relative']:.2%}",
        ]
        if asked:
            cells.append(f"{row['needed']:,.0f}" if math.isfinite(row["needed"]) else "none do")
        table.add_row(row["outcome"], row["variant"], *cells)
    if asked:
        table.caption = f"last: units of all variants that show {found['effect']:.1%} of the mean"
    console.print(table)


def print_decisions(found: dict[str, Any], console: Console) -> None:
    """What each variant decided."""
    table = Table(
        title=f"{found['experiment']}: {found['units']:,} units", box=box.SIMPLE, pad_edge=False
    )
    table.add_column("variant", no_wrap=True)
    table.add_column("decides")
    for name in ("units", "arms", "cost", "a unit"):
        table.add_column(name, justify="right")
    for row in found["variants"]:
        arms = ", ".join(f"{arm} {count:,}" for arm, count in row["arms"].items())
        each = row["cost"] / row["units"] if row["units"] else 0.0
        cells = [f"{row['units']:,}", arms, f"{row['cost']:,.2f}", f"{each:.4f}"]
        table.add_row(row["variant"], row["decides"], *cells)
    console.print(table)


def print_read_out(found: ReadOut, console: Console) -> None:
    """Every outcome and variant; what is wrong with the split first."""
    for problem in found.problems:
        console.print(problem, style="bold red", soft_wrap=True)
    peeking = found.planned is not None
    console.print(f"{found.experiment}: {found.units:,} units, against {found.reference}")
    for outcome, rows in found.outcomes.items():
        table = Table(title=outcome, title_justify="left", box=box.SIMPLE, pad_edge=False)
        table.add_column("variant", no_wrap=True)
        columns = ["mean", f"difference ({found.confidence:.0%})", "in %"]
        for name in columns + (["at every look"] if peeking else []):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for variant, row in rows.items():
            effect = row.effect
            style = "" if outcome == COST else STYLES.get(row.verdict, "")
            cells = [
                number(effect.mean),
                about(effect.difference),
                "" if row.relative is None else f"{row.relative.estimate:+.2%}",
                *([about(effect.always_valid)] if peeking else []),
            ]
            verdict = f"[{style}]{row.verdict}[/{style}]" if style else row.verdict
            table.add_row(variant, *cells, verdict)
        console.print(table)
    ratio = found.sample_ratio
    told = "as designed" if ratio.ok else "broken"
    counts = ", ".join(f"{name} {count:,}" for name, count in ratio.counts.items())
    console.print(f"units: {counts}", soft_wrap=True)
    console.print(
        f"sample ratio: p = {ratio.p_value:.3g} ({told}); at every look: {ratio.sequential_p:.3g}"
    )
    if found.balance_p is not None:
        console.print(f"features alike in all variants: p = {found.balance_p:.3g}")
    for note in found.notes:
        console.print(note, soft_wrap=True)


def number(value: float) -> str:
    """Four digits, or a dash."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def about(interval: Interval | None) -> str:
    """``+0.0123 ± 0.0045``; a dash where it isn't defined, nothing where there is none."""
    if interval is None:
        return ""
    if not math.isfinite(interval.low):
        return "-"
    return f"{interval.estimate:+.4f} ± {(interval.high - interval.low) / 2:.4f}"
