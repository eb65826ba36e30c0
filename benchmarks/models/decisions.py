"""Are a model's decisions good? Share of the oracle's value inside budgets, on worlds with truth.

For each world and seed: a fresh log, every model trained on it as the pipeline would train it (its
default settings, no search), then the units that are in no log are treated by the model's
predictions within 10, 20 and 50% of what treating everybody with an average arm would cost. Beside
it the error of the effects (PEHE) and their correlation with the truth, and the processor's seconds
from log to answers.

Ours learn from the pipeline's training fold (60% of the units) and stop by its validation fold (20%),
bags of trees learn from both; the test fold is the gate's. EconML's learners get all rows, as a user
who has no gate would have it.
EconML's causal forest takes minutes a world, so only the long form has it.

Run: ``python -m benchmarks.models.decisions [--full] [--models mtmt,x_boost] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.machine import machine, wide_console
from benchmarks.models.peers import PEERS
from benchmarks.models.worlds import WORLDS, Case, case
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from models.catalog import build, build_learner, entry
from models.dataset import prepare
from models.plan import train_config
from models.selection import Validation
from models.space import configure
from models.training import InMemoryBatches, fit, sized
from models.uplift_model import TREES, UpliftModel, trees_config
from serving.policy.allocation import allocate

BUDGETS = (0.1, 0.2, 0.5)
OURS = ("mtmt", "s_boost", "s_learner", "t_learner", "x_boost", "dr_boost")
SHORT = ("mtmt", "s_boost", "econml x-learner")
Fitted = Callable[[Any], np.ndarray]  # features of N units -> effects on the value, [N, A]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more rows, more seeds")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--worlds", default=",".join(["bonus", *WORLDS]))
    parser.add_argument("--models", default=None, help=f"of the catalogue, or {', '.join(PEERS)}")
    parser.add_argument("--set", default="{}", help="settings of the nets, as JSON")
    parser.add_argument("--training", default="{}", help="training settings, as JSON")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    rows = options.rows or (100_000 if options.full else 20_000)
    seeds = options.seeds or (5 if options.full else 2)
    models = options.models or ",".join([*OURS, *PEERS] if options.full else SHORT)
    config, training = json.loads(options.set), json.loads(options.training)
    console, results = wide_console(), []
    for world in options.worlds.split(","):
        for seed in range(seeds):
            made = case(world, rows, seed)
            for name in models.split(","):
                started = time.process_time()
                if name in PEERS:
                    effects = PEERS[name](made, seed)(made.units)
                else:
                    effects = trained(made, name, config, training, seed)(made.units)
                seconds = time.process_time() - started
                found = score(effects, made)
                results.append(
                    {"world": world, "seed": seed, "model": name, "seconds": seconds, **found}
                )
                told = {key: round(value, 3) for key, value in found.items()}
                console.print(f"{world} {seed} {name}: {told} {seconds:.1f} s", highlight=False)
    show(results, console)
    if options.json:
        report = {"machine": machine("torch", "numpy"), "rows": rows, "results": results}
        options.json.write_text(json.dumps(report, indent=1))


def trained(
    made: Case, name: str, config: dict[str, Any], training: dict[str, Any], seed: int
) -> Fitted:
    """A model of the catalogue, trained on a world's log; what it says of the value's effects."""
    model = fit_model(made.frame, made.campaign, name, config, training, seed=seed)
    return lambda units: value_and_cost(model.predict(units), made.campaign)[0]


def fit_model(
    frame: pd.DataFrame,
    campaign: Campaign,
    name: str,
    config: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    *,
    seed: int,
) -> UpliftModel:
    """A model of the catalogue, trained in this process as the pipeline's workers train it.

    Args:
        frame: A decision frame.
        campaign: Its campaign.
        name: The net or learner.
        config, training: Settings that differ from the defaults.
        seed: Of weights, batches and samples.
    """
    prepared = prepare(frame, campaign, seed=seed)
    recipe, config = prepared.recipe, config or {}
    model: Any
    if entry(name).learner:
        model = build_learner(name, recipe.shape, config)
        model.fit(prepared.train, validation=prepared.validation, seed=seed)
    else:
        settings = sized(
            train_config(name, training or {}, seed=seed, device="cpu"),
            len(prepared.train),
            recipe.shape.features,
        )
        model = build(name, recipe.shape, config, seed=seed)
        model.start_from(recipe.scaler.start)
        batches = InMemoryBatches(prepared.train, settings.batch_size, seed)
        fit(model, batches, Validation.of(prepared), settings)
    made = UpliftModel(name, config, recipe.shape, recipe.encoder, recipe.scaler, model, campaign)
    chosen = asdict(configure(entry(name).config, config, f"model '{name}'"))
    if not entry(name).learner and (trees := trees_config(chosen)):
        beside = build_learner(TREES, recipe.shape, trees)
        made.trees = beside.fit(prepared.train, validation=prepared.validation, seed=seed)
    return made


def score(believed: np.ndarray, made: Case) -> dict[str, float]:
    """Share of the oracle's value at each budget, PEHE and correlation of the value's effects."""
    value, cost = value_and_cost(made.truth, made.campaign)
    everybody = cost[:, 1:].mean() * len(cost)
    rows = np.arange(len(cost))
    found = {}
    for share in BUDGETS:
        mine = allocate(believed, cost, share * everybody).arm
        best = allocate(value, cost, share * everybody).arm
        found[f"at {share:.0%}"] = float(value[rows, mine].mean() / value[rows, best].mean())
    error = believed[:, 1:] - value[:, 1:]
    found["pehe"] = float(np.sqrt(np.mean(error**2)))
    pairs = zip(believed[:, 1:].T, value[:, 1:].T)
    found["correlation"] = float(np.mean([np.corrcoef(mine, true)[0, 1] for mine, true in pairs]))
    return found


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """A table a world: means over seeds with 95% intervals."""
    columns = [*(f"at {share:.0%}" for share in BUDGETS), "pehe", "correlation", "seconds"]
    for world in dict.fromkeys(result["world"] for result in results):
        table = Table(title=f"{world}: share of the oracle's value, means over seeds")
        table.add_column("model", no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        here = [result for result in results if result["world"] == world]
        for name in dict.fromkeys(result["model"] for result in here):
            mine = [result for result in here if result["model"] == name]
            table.add_row(name, *(_told([one[column] for one in mine]) for column in columns))
        console.print(table)


def _told(values: list[float]) -> str:
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.3f} ± {half:.3f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
