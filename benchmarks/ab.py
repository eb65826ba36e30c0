"""Four policies in four buckets of players, read out as an A/B test: MTMT's table 4 on ``game_bonus``.

The paper's test gave four independent sets of users a random policy, EFIN, MTMT single-task and MTMT
multi-task, and told the activity of the next day and of the month against random. Here, for each
seed: one log, on which every net is trained at its defaults; then players of another population, whose
bucket is a keyed hash of their id; in each bucket a policy within the same budget for a player, and
outcomes drawn from the world. Buckets and read-out are those of ``updraft experiment``.

``login_next_day`` is the short term, ``plays_more_7d`` the long one (the world knows no month). What is
read out is what an experimenter would see: the difference from the random bucket in percent of its
mean, adjusted for the players' features (CUPED), with a 95% interval and the test of the buckets' sizes
(sample ratio). Beside it stands the truth: the expected outcomes of the arms given to *all* players, in
percent of what the random policy gives them.

Run: ``python -m benchmarks.ab [--seeds 3] [--rows 20000] [--units 200000] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine, wide_console
from benchmarks.models.decisions import fit_model
from benchmarks.models.tables import interval
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from campaigns.worlds import World, world
from models.checks.srm import split_ratio
from models.metrics.experiments import compare_variants
from models.uplift_model import UpliftModel
from serving.policy.allocation import allocate
from serving.policy.buckets import buckets
from serving.policy.ration import ration

CAMPAIGN = Path(__file__).resolve().parents[1] / "campaigns" / "game_bonus.yaml"
RANDOM = "random"
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "EFIN": ("efin", {}),
    "MTMT, single-task": ("mtmt", {"multi_task": False, "trees": 0}),
    "MTMT, multi-task": ("mtmt", {"trees": 0}),
}
POLICIES = (RANDOM, *NETS)
SHARES = [1 / len(POLICIES)] * len(POLICIES)
TERMS = {"login_next_day": "short term", "plays_more_7d": "long term"}
DAY, FRESH = 14, 10_000  # the day of the test; added to the log's seed: another population


@dataclass(frozen=True, eq=False)
class Trial:
    """The players of a test.

    Attributes:
        units: Ids and features, N rows.
        bucket: Whose policy decides on each, an index of ``POLICIES``, [N].
        covariates: What is known of them before the draw, [N, F], finite.
        truth: Expected outcomes of every arm, [N, A, K].
        budget: What one decision may cost on average.
    """

    units: pd.DataFrame
    bucket: np.ndarray
    covariates: np.ndarray
    truth: np.ndarray
    budget: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000, help="decisions of the log")
    parser.add_argument("--units", type=int, default=200_000, help="players of the test")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    console, results = wide_console(), []
    for seed in range(options.seeds):
        started = time.monotonic()
        results.append(measure(options.rows, options.units, seed))
        seconds = time.monotonic() - started
        found = results[-1]["read_out"]
        told = {name: [round(found[name][o]["estimate"], 2) for o in TERMS] for name in NETS}
        console.print(f"seed {seed}: {told} {seconds:.0f} s", highlight=False)
    report = {
        "machine": machine("torch", "numpy"),
        "rows": options.rows,
        "units": options.units,
        "results": results,
    }
    show(report, console)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def measure(rows: int, units: int, seed: int) -> dict[str, Any]:
    """One seed: the read-out of every policy against random, the sample ratio, and the truth."""
    campaign, simulated = load_campaign(CAMPAIGN), world("game_bonus")
    frame = decision_frame(simulated.log(rows, seed=seed), campaign, "the log")
    source = campaign.source
    budget = campaign.budget.amount * source.days / source.rows  # type: ignore[union-attr]
    test = players(simulated, campaign, units, budget, seed + FRESH)
    arms = {RANDOM: by_lot(test, campaign, seed)}
    for name, (net, config) in NETS.items():
        model = fit_model(frame, campaign, net, config, seed=seed)
        arms[name] = by_model(model, test, campaign)
    return {"seed": seed} | read_out(test, arms, simulated, campaign, seed)


def players(simulated: World, campaign: Campaign, count: int, budget: float, seed: int) -> Trial:
    """Players of population ``seed`` with their buckets."""
    units = simulated.units(count, seed=seed, day=DAY)
    numbers = units[list(campaign.features.numeric)]
    words = pd.get_dummies(units[list(campaign.features.categorical)], drop_first=True)
    known = [numbers.fillna(numbers.median()), numbers.isna().loc[:, numbers.isna().any()], words]
    columns = [simulated.outcomes.index(name) for name in campaign.outcomes]
    return Trial(
        units=units,
        bucket=buckets(units[campaign.unit].to_numpy(), SHARES, salt=str(seed), experiment="ab"),
        covariates=np.column_stack([part.to_numpy(dtype=np.float64) for part in known]),
        truth=simulated.truth(units, day=DAY)[:, :, columns],
        budget=budget,
    )


def by_model(model: UpliftModel, test: Trial, campaign: Campaign) -> np.ndarray:
    """The arms [N] that a model gives, within the budget of each bucket."""
    value, cost = value_and_cost(model.predict(test.units), campaign)
    given = np.zeros(len(cost), dtype=np.int64)
    for rows in _buckets(test):
        limit = test.budget * len(rows)
        floor = campaign.budget.min_return
        given[rows] = allocate(value[rows], cost[rows], limit, min_return=floor).arm
    return given


def by_lot(test: Trial, campaign: Campaign, seed: int) -> np.ndarray:
    """Random arms [N], to as many of each bucket as its budget pays for."""
    _, cost = value_and_cost(test.truth, campaign)
    given = np.zeros(len(cost), dtype=np.int64)
    ids = test.units[campaign.unit].to_numpy()
    for rows in _buckets(test):
        chances = np.full(cost[rows].shape, 1 / cost.shape[1])
        limit = test.budget * len(rows)
        given[rows] = ration(chances, cost[rows], limit, units=ids[rows], salt=str(seed)).arm
    return given


def read_out(
    test: Trial, arms: dict[str, np.ndarray], simulated: World, campaign: Campaign, seed: int
) -> dict[str, Any]:
    """What the test shows of each policy in its bucket, in percent of random's mean.

    Args:
        test: The players.
        arms: What each policy would give to every player, [N], of which its bucket is given it.
        simulated: Answers.
        campaign: Names the outcomes.
        seed: Of the players' luck.
    """
    rows = np.arange(len(test.bucket))
    given = np.stack([arms[name] for name in POLICIES])[test.bucket, rows]
    drawn = simulated.respond(test.units, given, seed=seed, day=DAY)
    _, cost = value_and_cost(test.truth, campaign)
    ratio = split_ratio(test.bucket, np.array(SHARES), POLICIES)
    found: dict[str, Any] = {
        name: {
            "cost": float(cost[rows, given][test.bucket == place].mean()),
            "units": ratio.counts[name],
        }
        for place, name in enumerate(POLICIES)
    }
    for k, outcome in enumerate(campaign.outcomes):
        y, expected = drawn[:, simulated.outcomes.index(outcome)], test.truth[:, :, k]
        effects = compare_variants(y, test.bucket, SHARES, covariates=test.covariates)
        base = float(expected[rows, arms[RANDOM]].mean())
        for name, effect in zip(POLICIES, effects):
            truth = float(expected[rows, arms[name]].mean()) / base - 1
            told = {"mean": effect.mean, "truth": 100 * truth}
            if effect.difference is not None:
                told |= {
                    key: 100 * getattr(effect.difference, key) / effects[0].mean
                    for key in ("estimate", "low", "high")
                }
            found[name][outcome] = told
    return {"read_out": found, "sample_ratio": ratio.p_value}


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table: means over seeds with 95% t-intervals, and how many seeds show a gain."""
    results = report["results"]
    table = Table(
        title=f"change against random in %, {len(results)} tests of {report['units']:,} players",
        caption=report["machine"],
    )
    table.add_column("policy", no_wrap=True)
    for term in TERMS.values():
        for column in (term, "above 0", "truth"):
            table.add_column(column, justify="right", no_wrap=True)
    table.add_column("cost", justify="right")
    for name in POLICIES:
        found = [result["read_out"][name] for result in results]
        cells = []
        for outcome in TERMS:
            told = [one[outcome] for one in found]
            if name == RANDOM:
                cells += ["0.0", "", ""]
                continue
            sure = sum(one["low"] > 0 for one in told)
            cells += [
                interval([one["estimate"] for one in told], 2),
                f"{sure} of {len(told)}",
                interval([one["truth"] for one in told], 2),
            ]
        table.add_row(name, *cells, f"{np.mean([one['cost'] for one in found]):.3f}")
    console.print(table)
    ratios = ", ".join(f"{result['sample_ratio']:.2f}" for result in results)
    console.print(f"sample ratio of the buckets: p = {ratios}", highlight=False)


def _buckets(test: Trial) -> list[np.ndarray]:
    return [np.flatnonzero(test.bucket == place) for place in range(len(POLICIES))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
