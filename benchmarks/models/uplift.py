"""Who ranks units best by uplift? Qini, AUUC and LIFT@30 in the form of MTMT's tables 1 to 3.

``bonus``      the world game_bonus, a fresh log a seed: two bonuses, login and plays.
``hillstrom``  a real trial: two e-mails; visits, purchases and spend. Each seed draws its rows and
               its folds anew; the samples overlap, so that the intervals over seeds are too narrow.

Every model learns as the pipeline would train it: its default settings, no search, 60% of the units
to learn from and 20% to stop by. Measured is each arm against control, for each outcome, on the
trial's rows of the test fold (20%), which no model saw: Qini over that of the best order in hindsight
(0 random, 1 perfect), the area under the uplift curve per capita (half the ATE for a random order),
and the mean outcome of the treated less that of control among the first 30%.

The best order in hindsight knows each outcome's noise, and nobody ranks like it. The row ``truth`` of
the world is the ranking by true effects: what there is to reach. The paper's own numbers are of data
that aren't public, so they can't stand beside these.

``mtmt`` is our default, with trees beside the net; ``mtmt without trees`` is the paper's. With
``--ablations`` that joins in the forms of table 3, and in the single-task form of table 1. Seconds are
the processor's.

Run: ``python -m benchmarks.models.uplift [--full] [--ablations] [--models mtmt,efin] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
from benchmarks.models.worlds import case
from campaigns.datasets import hillstrom
from campaigns.errors import CampaignError, EnvironmentProblem
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.spec import Campaign
from campaigns.worlds import world
from models.metrics import uplift_table
from models.split import TEST, folds

ROOT = Path(__file__).resolve().parents[2]
METRICS = {"qini_perfect": "Qini", "auuc": "AUUC", "lift@30": "LIFT@30"}
MAIN = ("mtmt", "mtmt without trees", "s_learner", "t_learner", "dragonnet", "efin", "x_boost")
OTHERS = ("tarnet", "cfr", "euen", "descn", "m3tn", "causal_forest")
ALONE = {"trees": 0}  # as in the paper
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "mtmt without interaction": ("mtmt", {**ALONE, "interaction": False}),
    "mtmt without enhancer": ("mtmt", {**ALONE, "enhancer": False}),
    "mtmt without tiers": ("mtmt", {**ALONE, "tiered": False}),
    "mtmt without tasks": ("mtmt", {**ALONE, "task_wise": False}),
    "mtmt with resnet": ("mtmt", {**ALONE, "encoder": "resnet"}),
    "mtmt with mlp": ("mtmt", {**ALONE, "encoder": "mlp"}),
    "mtmt single-task": ("mtmt", {**ALONE, "multi_task": False}),
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in (*MAIN, *OTHERS)},
    "mtmt without trees": ("mtmt", ALONE),
    **ABLATIONS,
}
Answer = Callable[[pd.DataFrame], np.ndarray]  # a frame's rows -> potential outcomes, [N, A, K]


@dataclass(frozen=True)
class Log:
    """A campaign's log.

    Attributes:
        campaign: With features spelled out; its name draws the folds.
        frame: Its decision frame.
        truth: Expected potential outcomes of a frame's rows; None where nobody knows them.
    """

    campaign: Campaign
    frame: pd.DataFrame
    truth: Answer | None = None


def bonus(rows: int | None, seed: int) -> Log:
    """A fresh log of game_bonus."""
    made = case("bonus", rows or 100_000, seed, units=1)
    simulated, outcomes = world("game_bonus"), len(made.campaign.outcomes)
    return Log(
        made.campaign, made.frame, lambda units: simulated.truth(units)[:, :, :outcomes]
    )  # fmt: skip


def emails(rows: int | None, seed: int) -> Log:
    """So many rows of Hillstrom's trial, or all; the seed draws them and their folds.

    Raises:
        EnvironmentProblem: The file isn't there; what to do.
    """
    data = os.environ.get("UPDRAFT_SHARED_DATA")
    home = Path(data) if data else ROOT.parent / "shared" / "data"
    source = home / "hillstrom" / "hillstrom.csv"
    if not source.exists():
        raise EnvironmentProblem(
            f"hillstrom is left out: there is no {source}; put the file hillstrom.csv into a folder "
            "'hillstrom', and give the folder that holds it as UPDRAFT_SHARED_DATA"
        )
    with tempfile.TemporaryDirectory() as folder:
        table = pd.read_parquet(hillstrom.prepare(source, Path(folder) / "hillstrom.parquet"))
    if rows is not None and rows < len(table):
        table = table.sample(rows, random_state=seed).sort_index()
    campaign = load_campaign(ROOT / "campaigns" / "hillstrom.yaml")
    campaign = campaign.model_copy(update={"name": f"hillstrom_{seed}"})
    return Log(campaign, decision_frame(table, campaign, "hillstrom"))


DATA: dict[str, Callable[[int | None, int], Log]] = {"bonus": bonus, "hillstrom": emails}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--full", action="store_true", help="all rows, models and ablations; 5 seeds"
    )
    parser.add_argument("--ablations", action="store_true", help="MTMT without its parts, too")
    parser.add_argument("--rows", type=int, default=None, help="of each data; 20,000")
    parser.add_argument("--seeds", type=int, default=None, help="2")
    parser.add_argument("--data", default=",".join(DATA), help="some of %(default)s")
    parser.add_argument("--models", default=None, help=f"some of {', '.join([*MAIN, *OTHERS])}")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    rows = options.rows or (None if options.full else 20_000)
    default = [*MAIN, *OTHERS] if options.full else [*MAIN]
    names: list[str] = options.models.split(",") if options.models else default
    if options.ablations or (options.full and not options.models):
        names += ABLATIONS
    data = options.data.split(",")
    for kind, given, known in (("data", data, DATA), ("model", names, MODELS)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"no {kind} {', '.join(unknown)}; there are {', '.join(known)}")
    console, results = wide_console(), list[dict[str, Any]]()
    for name in data:
        for seed in range(options.seeds or (5 if options.full else 2)):
            try:
                log = DATA[name](rows, seed)
            except EnvironmentProblem as problem:
                print(problem, file=sys.stderr)
                break
            found = measured(log, names, seed, console)
            results += [{"data": name, "seed": seed, **one} for one in found]
    if not results:
        raise SystemExit(EnvironmentProblem.exit_code)
    about = machine("torch", "numpy")
    if options.json:
        report = {"machine": about, "rows": rows, "results": results}
        options.json.write_text(json.dumps(report, indent=1))
    show(results, console)
    console.print(about, highlight=False)


def measured(log: Log, names: Sequence[str], seed: int, console: Console) -> list[dict[str, Any]]:
    """What each model, and the truth where it is known, got on a log; those that can't learn it say so."""
    results = []
    for name in [*names, *(["truth"] if log.truth else [])]:
        started = time.process_time()
        try:
            answer = log.truth if name == "truth" else None
            answer = answer or trained(log, *MODELS[name], seed)
        except (CampaignError, EnvironmentProblem) as problem:
            console.print(
                f"{log.campaign.name} {seed} {name}: left out, {problem}", highlight=False
            )
            continue
        seconds = time.process_time() - started
        found = score(answer, log)
        results += [{"model": name, **one, "seconds": seconds} for one in found]
        told = ", ".join(f"{one['arm']}/{one['outcome']} {one['Qini']:.3f}" for one in found)
        console.print(
            f"{log.campaign.name} {seed} {name}: Qini {told}; {seconds:.1f} s", highlight=False
        )
    return results


def trained(log: Log, name: str, config: dict[str, Any], seed: int) -> Answer:
    """A model of the catalogue, trained in this process as the pipeline's workers train it."""
    return fit_model(log.frame, log.campaign, name, config, seed=seed).predict


def score(answer: Answer, log: Log) -> list[dict[str, Any]]:
    """The metrics of each arm and outcome, on the trial's rows of the test fold."""
    frame, campaign = log.frame, log.campaign
    trial = frame["explored"].to_numpy() & ~frame["holdout"].to_numpy()
    rows = frame[trial & (folds(frame["unit_id"], campaign.name) == TEST)]
    outcomes = list(campaign.outcomes)
    table = uplift_table(
        answer(rows),
        rows[outcomes].to_numpy(np.float64),
        rows["arm"].to_numpy(),
        rows["explored_propensity"].to_numpy(),
        arm_names=campaign.arm_table.names,
        outcome_names=outcomes,
        metrics=list(METRICS),
        replicates=0,
    )
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in table:
        one = found.setdefault((row.arm, row.outcome), {"arm": row.arm, "outcome": row.outcome})
        one[METRICS[row.metric]] = float(row.interval.estimate)
    return list(found.values())


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """A table for each data, arm and outcome: means over seeds with 95% t-intervals."""
    for part in dict.fromkeys((one["data"], one["arm"], one["outcome"]) for one in results):
        here = [one for one in results if (one["data"], one["arm"], one["outcome"]) == part]
        seeds = len({one["seed"] for one in here})
        table = Table(title=f"{part[0]}, {part[1]}: {part[2]}; mean ± 95%, seeds: {seeds}")
        table.add_column("model", no_wrap=True)
        for column in (*METRICS.values(), "seconds"):
            table.add_column(column, justify="right", no_wrap=True)
        for name in dict.fromkeys(one["model"] for one in here):
            mine = [one for one in here if one["model"] == name]
            cells = [interval([one[metric] for one in mine], 4) for metric in METRICS.values()]
            seconds = np.mean([one["seconds"] for one in mine])
            table.add_row(name, *cells, "" if name == "truth" else f"{seconds:.1f}")
        console.print(table)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
