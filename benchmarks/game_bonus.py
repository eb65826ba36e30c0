"""Does the champion's policy beat a random arm and everybody's best arm, on the known truth?

For each seed: a fresh log of ``game_bonus``, the campaign's net trained as the pipeline trains it (Ray
Train, default settings, no search), then every policy inside the same budget on units that are in no
log. Values are true expected ones, net of cost, so that the only noise is which units were drawn.

Run: ``python -m benchmarks.game_bonus [--seeds 5] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.machine import machine, wide_console
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import budget_per_unit, value_and_cost
from campaigns.settings import Settings
from campaigns.spec import Campaign
from campaigns.worlds import world
from serving.evaluation import best_arm
from serving.policy.allocation import allocate
from serving.policy.ration import ration

CAMPAIGN = Path(__file__).resolve().parents[1] / "campaigns" / "game_bonus.yaml"
UNITS, DAY = 200_000, 14
FRESH = 10_000  # added to the log's seed: another population


def main() -> None:
    """Measure, print, and exit 1 where the claim doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--rows", type=int, default=None, help="logged decisions; default: the campaign's"
    )
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    from pipelines.ray_runtime import ray_runtime

    console = wide_console()
    results = []
    with tempfile.TemporaryDirectory() as home, ray_runtime(Settings(home=Path(home))) as settings:
        for seed in range(options.seeds):
            results.append(measure(seed, options.rows, settings))
            told = {
                name: round(found["value"], 4) for name, found in results[-1]["policies"].items()
            }
            console.print(f"seed {seed}: {told}", highlight=False)
    report = {"machine": machine("torch", "ray", "numpy"), "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    if not show(report, console):
        raise SystemExit(1)


def measure(seed: int, rows: int | None, settings: Settings) -> dict[str, Any]:
    """One seed: the true value per unit of each policy, with its interval over units."""
    from models.ray_session import attach

    attach(settings)  # Ray reads its token when it is imported
    from models.distributed import train

    campaign = _campaign(seed, rows)
    source = campaign.source
    simulated = world(source.world)  # type: ignore[union-attr]
    log = simulated.log(source.rows, seed=seed, days=source.days)  # type: ignore[union-attr]
    frame = decision_frame(log, campaign, "log")
    path = settings.folder("runs") / f"log-{seed}.parquet"
    frame.to_parquet(path, index=False)
    started = time.monotonic()
    trained = train(
        str(path), campaign, training={"seed": seed}, storage=settings.folder("ray", "train")
    )
    seconds = time.monotonic() - started

    units = simulated.units(UNITS, seed=seed + FRESH, day=DAY)
    columns = [simulated.outcomes.index(name) for name in campaign.outcomes]
    true_value, cost = value_and_cost(simulated.truth(units, day=DAY)[:, :, columns], campaign)
    budget = budget_per_unit(campaign, frame["decided_at"]) * len(units)
    floor = campaign.budget.min_return
    net = true_value - floor * cost
    predicted, _ = value_and_cost(trained.model.predict(units), campaign)
    arms = np.eye(len(campaign.arm_table))
    best = np.broadcast_to(arms[best_arm(frame, campaign)], cost.shape)
    policies = {
        "nobody": np.broadcast_to(arms[0], cost.shape),
        "random arm": ration(np.full(cost.shape, 1 / len(arms)), cost, budget).probabilities,
        "everybody, best arm": ration(best, cost, budget).probabilities,
        "champion": arms[allocate(predicted, cost, budget, min_return=floor).arm],
        "oracle": arms[allocate(true_value, cost, budget, min_return=floor).arm],
    }
    return {
        "seed": seed,
        "rows": len(frame),
        "train_seconds": seconds,
        "budget_per_unit": budget / len(units),
        "policies": {
            name: _value((p * net).sum(axis=1), (p * cost).sum(axis=1))
            for name, p in policies.items()
        },
    }


def _campaign(seed: int, rows: int | None) -> Campaign:
    campaign = load_campaign(CAMPAIGN)
    update: dict[str, Any] = {"seed": seed} | ({"rows": rows} if rows else {})
    return campaign.model_copy(update={"source": campaign.source.model_copy(update=update)})


def _value(net: np.ndarray, cost: np.ndarray) -> dict[str, float]:
    error = float(net.std(ddof=1)) / len(net) ** 0.5
    mean = float(net.mean())
    return {
        "value": mean,
        "low": mean - 1.96 * error,
        "high": mean + 1.96 * error,
        "cost": float(cost.mean()),
    }


def show(report: dict[str, Any], console: Console) -> bool:
    """Print the table over seeds; whether the champion's interval lies above the others'."""
    results = report["results"]
    names = list(results[0]["policies"])
    oracle = np.array([r["policies"]["oracle"]["value"] for r in results])
    table = Table(title=f"true net value per unit, {len(results)} seeds", caption=report["machine"])
    for column in (
        "policy",
        "mean",
        "95% over seeds",
        "worst unit interval",
        "cost",
        "of the oracle",
    ):
        table.add_column(column, no_wrap=True)
    spans = {}
    for name in names:
        found = [r["policies"][name] for r in results]
        values = np.array([f["value"] for f in found])
        half = 0.0
        if len(values) > 1:
            half = (
                float(stats.t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
            )
        spans[name] = (values.mean() - half, values.mean() + half)
        widest = max(found, key=lambda f: f["high"] - f["low"])
        table.add_row(
            name,
            f"{values.mean():.4f}",
            f"[{spans[name][0]:.4f}, {spans[name][1]:.4f}]",
            f"[{widest['low']:.4f}, {widest['high']:.4f}]",
            f"{np.mean([f['cost'] for f in found]):.4f}",
            f"{(values / oracle).mean():.0%}",
        )
    console.print(table)
    rivals = ("nobody", "random arm", "everybody, best arm")
    return all(
        min(r["policies"]["champion"]["low"] for r in results)
        > max(r["policies"][rival]["high"] for r in results)
        and spans["champion"][0] > spans[rival][1]
        for rival in rivals
    )


if __name__ == "__main__":
    main()
