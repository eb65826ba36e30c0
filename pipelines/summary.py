"""What a run or the demo found, as a table that a growth team reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

LABELS = {
    "nobody": "treat nobody",
    "everybody-best-arm": "everybody, best arm*",
    "random": "a random arm*",
    "champion": "champion",
    "challenger": "challenger",
}


def policy_table(verdict: dict[str, Any]) -> Table:
    """Value and cost of every policy, each kept to the budget."""
    policies = verdict["policies"]
    confidence = f"{policies[0]['confidence']:.0%}"
    table = Table(
        title=f"{verdict['campaign']}: value per unit, on {verdict['rows']:,} held-out rows"
    )
    table.add_column("policy", no_wrap=True)
    for name in ("value", f"{confidence} interval", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    known = any(policy.get("truth") is not None for policy in policies)
    if known:
        table.add_column("truth", justify="right", no_wrap=True)
    for policy in policies:
        row = [
            LABELS.get(policy["name"], policy["name"]),
            f"{policy['value']:.3f}",
            f"{policy['low']:.3f} to {policy['high']:.3f}",
            f"{policy['cost']:.3f}",
        ]
        if known:
            row.append(f"{policy['truth']:.3f}" if policy["truth"] is not None else "")
        style = "bold" if policy["name"] == verdict["deciding"] else None
        table.add_row(*row, style=style)
    budget = f"{verdict['budget_per_unit']:.3f}"
    table.caption = f"* by lot, to as many as {budget} per unit pays for"
    return table


def print_verdict(verdict: dict[str, Any], console: Console) -> None:
    """The policies, then who decides from now on and why."""
    console.print(policy_table(verdict))
    srm, drift = verdict["sample_ratio"], verdict["drift"]
    decider = next(p for p in verdict["policies"] if p["name"] == verdict["deciding"])
    lines = {
        "who decides": verdict["reason"],
        "it gives": ", ".join(f"{arm} to {share:.0%}" for arm, share in decider["mix"].items()),
        "sample ratio": f"p = {srm['p_value']:.3f} ({'as designed' if srm['ok'] else 'broken'})",
        "drift": drift_line(drift),
    }
    print_lines(lines, console)


def print_judgement(found: dict[str, Any], console: Console) -> None:
    """Metrics, policies and estimators of a model or of scores, as ``updraft evaluate`` found them."""
    table = Table(title=f"{found['campaign']}: {found['judged']}")
    for name in ("arm", "outcome", "metric"):
        table.add_column(name)
    for name in ("estimate", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    noted = any(row["note"] for row in found["metrics"])
    if noted:
        table.add_column("note")
    for row in found["metrics"]:
        told = [row["arm"], row["outcome"], row["metric"], *_interval(row["interval"])]
        table.add_row(*told, *([row["note"]] if noted else []))
    console.print(table)
    table = Table(title=f"within {found['budget_per_unit']:.3f} per unit")
    table.add_column("policy")
    for name in ("value", "gain", "interval", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for policy in found["policies"]:
        gain = _interval(policy["gain"]) if policy["gain"] else ["", ""]
        value, cost = (f"{each:.4f}" for each in (policy["value"]["estimate"], policy["cost"]))
        table.add_row(LABELS.get(policy["name"], policy["name"]), value, *gain, cost)
    table.caption = "gain over treating nobody; * by lot, to as many as the budget pays for"
    console.print(table)
    table = Table(title=f"value of the {found['policies'][-1]['name']}, by estimator")
    table.add_column("estimator")
    for name in ("value", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("to be read with care")
    for each in found["estimators"]:
        table.add_row(each["name"], *_interval(each["value"]), each["warning"] or "")
    console.print(table)
    warnings = [p for p in found["policies"] if p["warning"]]
    for policy in warnings:
        label = LABELS.get(policy["name"], policy["name"])
        console.print(f"{label}: {policy['warning']}", soft_wrap=True)
    for note in found["notes"]:
        console.print(note, soft_wrap=True)


def _interval(found: dict[str, float]) -> list[str]:
    """Estimate, and interval; a dash where one isn't defined."""
    if not math.isfinite(found["estimate"]):
        return ["-", "-"]
    if not math.isfinite(found["low"]):
        return [f"{found['estimate']:.4f}", "-"]
    return [f"{found['estimate']:.4f}", f"{found['low']:.4f} to {found['high']:.4f}"]


def drift_line(drift: dict[str, Any]) -> str:
    """The drift verdict in one line."""
    moved = drift["drifted_features"]
    count, features = len(moved), len(drift["columns"])
    verdict = "drifted" if drift["drifted"] else "no drift"
    which = f" ({', '.join(moved[:4])})" if moved else ""
    note = f"; {drift['note']}" if drift.get("note") else ""
    return f"{verdict}: {count} of {features} columns moved{which}{note}"


def print_lines(lines: dict[str, str], console: Console) -> None:
    """Labelled lines."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, text in lines.items():
        table.add_row(label, text)
    console.print(table)


def print_places(folder: Path, console: Console, commands: list[str]) -> None:
    """Where the reports lie, and what to try next."""
    for label, name in (("report", "report.html"), ("drift report", "drift.html")):
        if (folder / name).exists():  # never wrapped: people copy it
            console.print(f"{label}: {folder / name}", soft_wrap=True, highlight=False)
    console.print("\ntry next:", style="bold")
    for command in commands:
        console.print(f"  {command}", highlight=False)
