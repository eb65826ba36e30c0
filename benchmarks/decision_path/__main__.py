"""How long does a decision take, what limits how many there are, and what would 100,000 a second need?

1. The cost of a batch, measured in this process; the CPU of a request in client, proxy and replica, measured on
   the real service (Ray Serve, two replicas, SQLite) under one client.
2. From these alone the simulation tells throughput and latency at 1, 16 and 64 clients; the real service is
   put under the same load beside it.
3. The simulation then grows: a cell is one event store and the replicas that it can feed.

Run: ``python -m benchmarks.decision_path [--seconds 15] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.decision_path.simulation import Costs, simulate
from benchmarks.machine import machine, wide_console
from benchmarks.models.tables import markdown, put

CLIENTS = (1, 16, 64)
GOAL, LATENCY = 100_000, 0.1  # decisions a second, and the p99 that they may take
SEEN = ("rate", "p50", "p99")
FEEDS = (2, 4, 8, 12, 16, 24, 32)  # replicas of a cell that are tried

CHANGES: dict[str, Callable[[Costs], Costs]] = {
    "as measured": lambda costs: costs,
    "rows written outside the lock": lambda costs: replace(
        costs, model=(costs.model[0], costs.model[1] + 0.9 * costs.write[1]),
        write=(costs.write[0], 0.1 * costs.write[1]),
    ),
    "also HTTP at a quarter": lambda costs: replace(
        CHANGES["rows written outside the lock"](costs), http=costs.http / 4
    ),
}  # fmt: skip


def main() -> None:
    """Measure, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    parser.add_argument("--turns", type=int, default=100, help="of each batch that is timed")
    kept = Path(__file__).resolve().parents[2] / "build" / "benchmarks" / "decision_path.json"
    parser.add_argument("--json", type=Path, default=kept, help="where to write the numbers")
    parser.add_argument("--page", type=Path, default=None, help="page whose tables to replace")
    options = parser.parse_args()
    costs, size, measured = measure(options.seconds, options.turns)
    report = {
        "machine": machine("ray", "torch", "sqlalchemy"),
        "load": os.getloadavg()[0],
        "costs": asdict(costs),
        "bytes": size,
        "measured": measured,
        "simulated": {
            str(n): told(simulate(costs, replicas=2, cores=2, clients=n)) for n in CLIENTS
        },
        "cells": {name: cell(change(costs)) for name, change in CHANGES.items()},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1))
    show(report)
    if options.page:
        options.page.write_text(put(options.page.read_text(), "decision path", page(report)))


def measure(seconds: float, turns: int) -> tuple[Costs, float, dict[str, dict[str, float]]]:
    """Service times, bytes of a decision in the store, and what the real service does under each load."""
    from campaigns.settings import Settings
    from models.ray_session import attach
    from pipelines.ray_runtime import ray_runtime

    with tempfile.TemporaryDirectory() as home, ray_runtime(Settings(home=Path(home))) as settings:
        attach(settings)  # Ray reads its token when it is imported
        import ray

        from benchmarks.decision_path.load import load
        from benchmarks.decision_path.service import (
            GAME,
            PATH,
            batch_costs,
            bearer,
            counting_cpu,
            per_request,
            register,
        )  # fmt: skip
        from serving.deploy import deploy, undeploy

        body = register(settings)
        batches = batch_costs(settings, body, turns)
        url = deploy(settings, {GAME.name: "1"})
        load(url, PATH, bearer(settings), body, 4, 5.0)  # warms up
        measured, used = {}, {}
        for clients in CLIENTS:
            with counting_cpu("ServeReplica") as replica, counting_cpu("haproxy") as proxy:
                seen = load(url, PATH, bearer(settings), body, clients, seconds)
            measured[str(clients)] = told(seen)
            if clients == CLIENTS[0]:
                asked = len(seen.latency)
                used = {"replica": replica[0] / asked, "proxy": proxy[0] / asked}
                used["client"] = seen.cpu
        undeploy()
        ray.shutdown()  # else it ends this process once its own are gone
    return per_request(batches, used), batches["bytes"], measured


def told(seen: Any) -> dict[str, float]:
    """Rate, and latency in milliseconds."""
    return {
        "rate": seen.rate,
        "p50": seen.quantile(0.5) * 1e3,
        "p99": seen.quantile(0.99) * 1e3,
        **getattr(seen, "busy", {}),
    }


def cell(costs: Costs) -> dict[str, float]:
    """The replicas on cores of their own with which one event store answers most within ``LATENCY``.

    Told are its rate and latency there, the rate at which a replica's interpreter would be the limit, and
    how many such cells make ``GOAL``.
    """
    best = {"rate": 0.0, "replicas": 0}
    for replicas in FEEDS:
        low, high = 0.0, replicas / (costs.http + costs.model[1] + costs.write[1])
        for _ in range(7):
            rate = (low + high) / 2
            seen = simulate(costs, replicas=replicas, cores=float("inf"), rate=rate, seconds=6)
            good = seen.quantile(0.99) <= LATENCY and seen.rate > 0.97 * rate
            low, high = (rate, high) if good else (low, rate)
            if good:
                found = {"replicas": replicas, **told(seen), "rate": rate}
        if low > best["rate"] * 1.05:
            best = found
    cells = ceil(GOAL / best["rate"]) if best["rate"] else 0
    return {**best, "cells": cells, "all replicas": cells * int(best["replicas"])}


def tables(report: dict[str, Any]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """The numbers as tables: title to header and rows."""
    costs = report["costs"]
    parts = [[name, _micros(costs[name]), ""] for name in ("client", "proxy", "http")]
    parts += [[name, *(_micros(each) for each in costs[name])] for name in ("model", "write")]
    parts.append(["flush", _micros(costs["flush"]), ""])
    compared = []
    for clients, real in report["measured"].items():
        both = [found[name] for found in (real, report["simulated"][clients]) for name in SEEN]
        shares = [f"{report['simulated'][clients][name]:.0%}" for name in ("lock", "cores")]
        compared.append([clients, *(f"{value:,.1f}" for value in both), *shares])
    grown = [
        [name, f"{c['replicas']}", f"{c['rate']:,.0f}", f"{c['p50']:.0f}", f"{c['p99']:.0f}",
         f"{c['lock']:.0%}", f"{c['interpreter']:.0%}", f"{c['cells']:,}", f"{c['all replicas']:,}"]
        for name, c in report["cells"].items()
    ]  # fmt: skip
    seen = [f"{kind} {name}" for kind in ("real", "simulated") for name in ("per s", "p50", "p99")]
    header = [
        "a cell",
        "replicas",
        "per s",
        "p50",
        "p99",
        "lock",
        "interpreter",
        "cells",
        "replicas in all",
    ]
    return {
        "Microseconds": (["part", "of a request or batch", "of each decision"], parts),
        "Answers per second, and milliseconds": (["clients", *seen, "lock", "cores"], compared),
        f"One event store, and how many make {GOAL:,} a second": (header, grown),
    }


def page(report: dict[str, Any]) -> str:
    """What stands between the markers of the page."""
    found = ["```console\npython -m benchmarks.decision_path\n```"]
    found.append(
        f"{report['machine']}; load average {report['load']:.1f}. A decision takes {report['bytes']:,.0f} bytes "
        "of the event store."
    )
    for title, (header, rows) in tables(report).items():
        found += [f"{title}:", markdown(header, rows)]
    return "\n\n".join(found)


def show(report: dict[str, Any]) -> None:
    """The tables on the console."""
    console = wide_console()
    for title, (header, rows) in tables(report).items():
        table = Table(title=title)
        for place, name in enumerate(header):
            table.add_column(name, justify="right" if place else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"{report['machine']}; load average {report['load']:.1f}", highlight=False)


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"


if __name__ == "__main__":
    main()
