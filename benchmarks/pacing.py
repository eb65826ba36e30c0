"""How much of the best value does the paced price keep, over a day that isn't as expected?

A day of arrivals, each decided on by itself when it comes, by the price that `serving.pacing` sets from
the ledger and the clock; from the first decision that no longer fits on, units get control. It is
compared with a price that stays as training found it, and with hindsight: the best allocation of the
budget over the whole day (`allocate`), which no rule can know. Traffic has a daily wave, bursts, and a
spike of 12 times the traffic for half an hour; what differs from what training saw is the scenario's.
`unguarded` is what the price alone would spend, were nothing refused. `shaped` is the paced price where the
campaign gives the hours' arrivals, counted over seven days before; a peak within an hour it doesn't know.

The restart: half of the day by one controller, the rest by a new one that knows the ledger alone.

Run: ``python -m benchmarks.pacing [--arrivals 1000000] [--seeds 3] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.machine import machine, wide_console
from campaigns.spec import Budget
from serving.pacing import elapsed, paced_price
from serving.policy.allocation import allocate

COST = np.array([0.0, 0.3, 0.55])
SHARE = 0.06  # of cost per arrival: about a seventh of treating everybody
TRAINED = 200_000
PER_DAY = 20_000  # arrivals of a day that the traffic's shape is counted on
MIDNIGHT = datetime(2026, 2, 3, tzinfo=UTC)
SPIKE = slice(840, 870)  # minutes of the day
SCENARIOS = {
    "as expected": "the traffic that training expects, no waves",
    "waves": "the number expected, with a daily wave, bursts and the spike",
    "poor spike": "waves, and the spike's arrivals gain 40% less",
    "twice": "waves, and twice the arrivals that training expects",
    "half": "waves, and half the arrivals that training expects",
    "falling": "waves, and from noon on arrivals gain half as much",
    "rising": "waves, and from noon on arrivals gain twice as much",
}
EXPECTED = {
    "twice": 2.0,
    "half": 0.5,
}  # of the arrivals that training thought of, there are so many
Price = Callable[[float, float], float]


@dataclass(frozen=True, eq=False)
class Day:
    """Arrivals in order: value [n, 3], time of day [n] in 0..1; the budget and the trained price; and
    the arrivals of each hour of the days before, [24]."""

    value: np.ndarray
    time: np.ndarray
    budget: float
    base: float
    traffic: list[float]


@dataclass(frozen=True)
class Ledger:
    """What a day has come to so far."""

    value: float = 0.0
    spent: float = 0.0


def day(scenario: str, arrivals: int, seed: int) -> Day:
    """A day of a scenario; the price is trained on another sample of what was expected."""
    rng = np.random.default_rng(seed)
    budget = SHARE * arrivals
    trained = _values(rng, TRAINED)
    planned = SHARE * EXPECTED.get(scenario, 1.0) * TRAINED
    base = allocate(trained, COST, planned).price
    time = _arrivals(rng, arrivals, flat=scenario == "as expected")
    size = np.ones(arrivals)
    if scenario == "poor spike":
        size[(time >= SPIKE.start / 1440) & (time < SPIKE.stop / 1440)] = 0.6
    if scenario in ("falling", "rising"):
        size[time > 0.5] = 0.5 if scenario == "falling" else 2.0
    value = _values(rng, arrivals) * size[:, None]
    return Day(value, time, budget, base, _traffic(seed, flat=scenario == "as expected"))


def _traffic(seed: int, *, flat: bool) -> list[float]:
    """Arrivals of each hour, counted over seven other days of the same kind."""
    rng = np.random.default_rng([seed, 7])
    counts = [
        np.histogram(_arrivals(rng, PER_DAY, flat=flat), bins=24, range=(0, 1))[0] for _ in range(7)
    ]
    return [float(count) for count in np.sum(counts, axis=0)]


def _values(rng: np.random.Generator, units: int) -> np.ndarray:
    return np.c_[np.zeros(units), rng.normal(0.2, 0.4, (units, 2))]


def _arrivals(rng: np.random.Generator, count: int, *, flat: bool) -> np.ndarray:
    """Times of day, in order: a wave over the day, bursts of about half an hour, the spike."""
    minute = np.arange(1440)
    noise = np.convolve(rng.normal(0, 1, 1440 + 29), np.ones(30) / 30**0.5, "valid")
    rate = (1 + 0.6 * np.sin(2 * np.pi * (minute / 1440 - 0.35))) * np.exp(0.5 * noise)
    rate[SPIKE] *= 12
    if flat:
        rate = np.ones(1440)
    reached = np.r_[0.0, np.cumsum(rate)]
    at = np.sort(rng.random(count)) * reached[-1]
    return np.interp(at, reached, np.arange(1441) / 1440)


def fixed(the_day: Day) -> Price:
    """The price that training found."""
    return lambda spent, time: the_day.base


def paced(the_day: Day) -> Price:
    """The service's price: it knows the ledger and the clock."""
    return lambda spent, time: paced_price(
        the_day.base, min_return=0.0, spent=spent, budget=the_day.budget, elapsed=time
    )


def shaped(the_day: Day) -> Price:
    """The same, where the campaign says how arrivals spread over a day (`budget.traffic`)."""
    budget = Budget(per="day", amount=the_day.budget, traffic=the_day.traffic)
    clock = np.array(
        [elapsed(budget, MIDNIGHT + timedelta(minutes=at)) for at in range(1440)] + [1.0]
    )
    by_minute = clock.tolist()

    def price(spent: float, time: float) -> float:
        minute = min(int(time * 1440), 1439)
        into = time * 1440 - minute
        passed = by_minute[minute] + into * (by_minute[minute + 1] - by_minute[minute])
        return paced_price(
            the_day.base, min_return=0.0, spent=spent, budget=the_day.budget, elapsed=passed
        )

    return price


def live(
    the_day: Day,
    price: Price,
    start: Ledger = Ledger(),
    *,
    part: slice = slice(None),
    guard: bool = True,
) -> Ledger:
    """Decide on a part of the day's arrivals, one by one, from what the ledger says."""
    value, spent = start.value, start.spent
    costs = COST.tolist()
    for gains, time in zip(the_day.value[part].tolist(), the_day.time[part].tolist()):
        now = price(spent, time)
        arm = max(range(3), key=lambda a: gains[a] - now * costs[a])
        if not guard or spent + costs[arm] <= the_day.budget:
            value += gains[arm]
            spent += costs[arm]
    return Ledger(value, spent)


def measure(scenario: str, arrivals: int, seed: int) -> dict[str, Any]:
    """Shares of the hindsight optimum's value, and of the budget, by each rule."""
    the_day = day(scenario, arrivals, seed)
    best = allocate(the_day.value, COST, the_day.budget)
    found: dict[str, Any] = {"scenario": scenario, "seed": seed}
    for name, rule in (("fixed", fixed), ("paced", paced), ("shaped", shaped)):
        kept = live(the_day, rule(the_day))
        free = live(the_day, rule(the_day), guard=False)
        found[name] = {
            "value": kept.value / best.value,
            "spent": kept.spent / the_day.budget,
            "unguarded": free.spent / the_day.budget,
        }
    half = slice(0, arrivals // 2), slice(arrivals // 2, None)
    before = live(the_day, paced(the_day), part=half[0])
    after = live(the_day, paced(the_day), Ledger(before.value, before.spent), part=half[1])
    found["restart"] = after.value / best.value - found["paced"]["value"]
    return found


def main() -> None:
    """Measure, print, and exit 1 where a price alone overspends by more than 1%."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arrivals", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    results = [
        measure(scenario, options.arrivals, seed)
        for scenario in SCENARIOS
        for seed in range(options.seeds)
    ]
    report = {"machine": machine("numpy"), "arrivals": options.arrivals, "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    show(report)
    if max(found[rule]["unguarded"] for found in results for rule in ("paced", "shaped")) > 1.01:
        raise SystemExit(1)


def show(report: dict[str, Any]) -> None:
    """Print the means over seeds, and the most that was ever spent."""
    title = f"{report['arrivals']:,} arrivals, shares of hindsight's value and of the budget"
    table = Table(title=title, caption=report["machine"])
    for column in ("day", "rule", "value", "least", "spent", "most unguarded", "restart changes"):
        table.add_column(column, no_wrap=True)
    for scenario in SCENARIOS:
        found = [each for each in report["results"] if each["scenario"] == scenario]
        for rule in ("fixed", "paced", "shaped"):
            value = [each[rule]["value"] for each in found]
            table.add_row(
                scenario,
                rule,
                f"{np.mean(value):.4f}",
                f"{min(value):.4f}",
                f"{np.mean([each[rule]['spent'] for each in found]):.4f}",
                f"{max(each[rule]['unguarded'] for each in found):.4f}",
                f"{max(abs(each['restart']) for each in found):.1e}" if rule == "paced" else "",
            )
    wide_console().print(table)


if __name__ == "__main__":
    main()
