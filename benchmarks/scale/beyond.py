"""What a billion units and 100,000 decisions a second would take, by the measured cost of a row and of a decision.

Reads what ``benchmarks.scale`` (with the stage ``online``) and ``benchmarks.decision_path --json`` left in
``build/benchmarks``. Costs are multiplied, no more: rows by CPU seconds, decisions by bytes and by the
simulated cell.

Run: ``python -m benchmarks.scale.beyond [--page docs/scale.md]``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.models.tables import markdown, put
from benchmarks.scale.__main__ import ROOT, collect
from benchmarks.scale.report import of

UNITS, RATE, DAY = 10**9, 10**5, 86_400
STEPS = {
    "retrieval": "the join is unit by unit: buckets of units on many machines; or a sample",
    "mtmt epoch": "Ray Train over N workers, rows streamed; or a sample",
    "efin epoch": "the same",
    "evaluation": "a sample: the interval says when it is large enough",
    "allocation": "Ray Data: workers answer with sums",
}


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks")
    parser.add_argument("--page", type=Path, default=None, help="page whose table to replace")
    options = parser.parse_args()
    path = json.loads((options.folder / "decision_path.json").read_text())
    text = markdown(
        ["what", "measured", "then", "what helps"], lines(collect(options.folder / "scale"), path)
    )
    print(text)
    if options.page:
        options.page.write_text(put(options.page.read_text(), "beyond", text))


def lines(scale: Mapping[str, Any], path: Mapping[str, Any]) -> list[list[str]]:
    """What breaks, first what breaks first."""
    cell, http = path["cells"]["as measured"], path["costs"]["http"]
    found = [
        [
            "a campaign's ledger, one writer",
            f"{cell['rate']:,.0f} decisions/s",
            f"{cell['cells']:,} of them",
            "budgets by region, a cell each",
        ],
        [
            "a replica's interpreter, HTTP alone",
            f"{http * 1e6:,.0f} µs a request",
            f"{RATE * http:,.0f} cores",
            "more replicas; many units a request",
        ],
    ]
    for each in of(scale, "online")[-1:]:
        unit = each["cpu"] / each["units"]
        found.append(
            [
                "online store, Feast's SQLite",
                f"{unit * 1e6:,.0f} µs, {each['bytes a unit']:,.0f} bytes a unit",
                f"{UNITS * unit / 3600:,.0f} CPU hours, {UNITS * each['bytes a unit'] / 1e12:.1f} TB",
                "Redis Cluster; only units that are new; many writers",
            ]
        )
    size = path["bytes"]
    found.append(
        [
            "event store",
            f"{size:,.0f} bytes a decision",
            f"{RATE * DAY * size / 1e12:,.1f} TB a day",
            "a log in partitions (Kafka), a lakehouse behind it",
        ]
    )
    for stage, helps in STEPS.items():
        for each in of(scale, stage)[-1:]:
            row = each["cpu"] / each["rows"]
            hours = f"{UNITS * row / 3600:,.1f} CPU hours"
            found.append([stage, f"{row * 1e6:,.1f} CPU µs a row", hours, helps])
    return found


if __name__ == "__main__":
    main()
