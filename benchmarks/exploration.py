"""Does smarter exploration pay, at equal exploration spend, where the world drifts?

The first open question of "Heterogeneous causal learning for optimizing aggregated functions in user
growth" (arXiv 2507.05510): can exploration that model uncertainty guides do better than
epsilon-greedy? ``game_bonus``, 20 cycles of four days. In each, fresh players come, the ensemble
(`benchmarks.exploration_model`) is fit again on all rows that were logged so far, a strategy decides
inside the cycle's budget, outcomes are drawn for the arms given, and the rows are logged with their
propensities. Cycle 1 is a uniform trial, the same for all strategies, and in no mean.

The ensemble learns from rows of equal weight (``plain``), or weighs them as the pipeline's training
does (``inverse``): 1 of the uniform trial, else 1 / (A * propensity), from 0.1 to 10.

Exploration spend is what arms cost that are drawn in place of the greedy one (`exploration_cost`). Each
strategy's rate is set so that it is expected to be the same share of the budget, cycle by cycle, but for
the schedule, where it is the same over all cycles. The greedy part has what is left of the budget. Value
and regret are expected ones by the truth, net of cost, so that what was drawn is no noise of theirs; model
quality is judged on the players who come next, before anything is decided.

Players and the luck of outcomes are the same for all strategies of a seed: differences are paired.

Run: ``python -m benchmarks.exploration [--seeds 5] [--worlds effects,players] [--weights plain,inverse]
[--json out.json] [--figure out.png]``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.exploration_model import Ensemble, Features
from benchmarks.machine import machine, wide_console
from campaigns.worlds import world
from serving.policy.allocation import allocate
from serving.policy.committee import choices_of, disagreement, vote_shares
from serving.policy.mixture import Mixture, draw, exploration_cost, rate_within
from serving.policy.schedules import constant, decaying, with_mean
from serving.policy.strategies import dial, directed, epsilon_greedy, thompson

COST = np.array([0.0, 0.30, 0.55])
WORTH = np.array([1.0, 2.0, 0.0])  # of login_next_day, plays_more_7d, reward_spend
BUDGET = 0.08  # a player, as in campaigns/game_bonus.yaml
SHARE = 0.15  # of the budget, for exploration
FLOOR = 0.004  # least propensity of an arm, of directed and Thompson draws
DAYS = 4  # a cycle
MEMBERS, KEEP = 8, 0.9
WORLDS = {
    "still": {},
    "effects": {"effect_drift": 0.02},
    "players": {"covariate_drift": 0.02},
}
WEIGHTS = {"plain": (1.0, 1.0), "inverse": (0.1, 10.0)}  # bounds of what a chosen row weighs
STRATEGIES = ("none", "constant", "schedule", "directed", "thompson")


@dataclass(frozen=True, eq=False)
class Scene:
    """What a cycle's decision knows: members' values [M, N, 3], the budget, and what may be explored."""

    members: np.ndarray
    budget: float
    spend: float

    @property
    def eligible(self) -> np.ndarray:
        return np.ones(self.members.shape[1:], dtype=bool)


def plan(strategy: str, scene: Scene) -> Mixture:
    """The strategy's mixture: it spends the budget, and its exploration what it may, in expectation.

    The greedy part's budget is found in a few steps: its arms are in part replaced by draws.
    """
    mean, greedy_budget = scene.members.mean(axis=0), scene.budget
    for _ in range(6):
        found = allocate(mean, COST, max(greedy_budget, 0.0), min_return=1.0)
        votes = vote_shares(choices_of(scene.members, COST, found.price), len(COST))
        make = _maker(strategy, found.arm, scene.eligible, votes)
        rate = 0.0 if strategy == "none" else rate_within(make, COST, scene.spend)
        decided = make(rate)
        spent = float((decided.propensities() @ COST).sum())
        if abs(spent - scene.budget) <= 0.002 * scene.budget:
            break
        greedy_budget += scene.budget - spent
    return decided


def _maker(
    strategy: str, greedy: np.ndarray, eligible: np.ndarray, votes: np.ndarray
) -> Callable[[float], Mixture]:
    if strategy == "directed":
        doubt = disagreement(votes)

        def make(rate: float) -> Mixture:
            dialled = dial(doubt, epsilon=rate, floor=FLOOR, arms=len(COST))
            return directed(greedy, eligible, votes, dialled)

        return make
    if strategy == "thompson":
        return lambda rate: thompson(greedy, eligible, votes, rate=rate, floor=FLOOR)
    return lambda rate: epsilon_greedy(greedy, eligible, rate)


def live(
    name: str, strategy: str, weights: str, seed: int, *, cycles: int, players: int
) -> dict[str, Any]:
    """One strategy over the cycles; means a player for cycles 2, 3, ... of what :func:`_told` gives."""
    simulated = world("game_bonus", **WORLDS[name])
    shares = constant(SHARE)
    if strategy == "schedule":
        shape = decaying(1.0, floor=0.2, half=3.0)
        shares = with_mean(shape, SHARE, cycles=cycles - 1)
    told: list[dict[str, float]] = []
    for cycle in range(1, cycles + 1):
        key, day = 1000 * seed + cycle, DAYS * (cycle - 1)
        frame = simulated.units(players, seed=key, day=day)
        if cycle == 1:
            phi_of = Features.of(simulated, frame, seed)
            phi = phi_of(frame)
            model = Ensemble(phi.shape[1], len(COST), MEMBERS, KEEP, seed)
            decided = epsilon_greedy(np.zeros(players, int), np.ones((players, 3), bool), 1.0)
        else:
            phi = phi_of(frame)
            members = model.values(phi)
            budget = BUDGET * players
            decided = plan(strategy, Scene(members, budget, shares(cycle - 1) * budget))
            truth = simulated.truth(frame, day=day) @ WORTH
            told.append(_told(members.mean(axis=0), truth - truth[:, :1], decided))
        drawn = draw(decided, frame[simulated.unit].to_numpy(), cycle, f"seed {seed}")
        y = simulated.respond(frame, drawn.arm, seed=key, day=day) @ WORTH
        weight = np.clip(1 / (len(COST) * drawn.propensity), *WEIGHTS[weights])
        model.add(phi, drawn.arm, y, np.where(drawn.explored, 1.0, weight))
    columns = {key: [each[key] for each in told] for key in told[0]}
    run = {"world": name, "weights": weights, "strategy": strategy, "seed": seed}
    return run | {"cycles": columns}


def _told(predicted: np.ndarray, effect: np.ndarray, decided: Mixture) -> dict[str, float]:
    """Quality of the model, and what the cycle is worth, a player; effects are [N, 3] over control."""
    players, full = len(effect), decided.propensities()
    net, budget = effect - COST, BUDGET * len(effect)
    oracle = allocate(effect, COST, budget, min_return=1.0).value / players
    value = float((full * net).sum() / players)
    apart = predicted[:, 1:] - effect[:, 1:]
    related = [np.corrcoef(predicted[:, a], effect[:, a])[0, 1] for a in (1, 2)]
    departed = 1 - full[np.arange(players), decided.greedy]
    return {
        "pehe": float(np.sqrt((apart**2).mean())),
        "correlation": float(np.nan_to_num(related).mean()),
        "value": value,
        "regret": oracle - value,
        "greedy_value": float(net[np.arange(players), decided.greedy].mean()),
        "spend": float((full @ COST).mean()),
        "exploration_spend": float(exploration_cost(decided, COST).mean()),
        "epsilon": float(decided.epsilon.mean()),
        "departed": float(departed.mean()),
        "least_propensity": float(full.min()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--players", type=int, default=2000, help="of each cycle")
    parser.add_argument("--worlds", default="effects,players", help=f"of {', '.join(WORLDS)}")
    parser.add_argument("--weights", default=",".join(WEIGHTS), help="of rows that are learnt from")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    parser.add_argument("--figure", type=Path, default=None, help="where to draw the curves")
    options = parser.parse_args()
    console, results = wide_console(), []
    for name, weights in product(options.worlds.split(","), options.weights.split(",")):
        for seed in range(options.seeds):
            results += [
                live(name, each, weights, seed, cycles=options.cycles, players=options.players)
                for each in STRATEGIES
            ]
            console.print(f"{name}, {weights}: seed {seed} done", highlight=False)
    report = {
        "machine": machine("numpy", "pandas"),
        "players": options.players,
        "cycles": options.cycles,
        "results": results,
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    show(report, console)
    if options.figure:
        figure(report, options.figure)


def summary(report: dict[str, Any]) -> pd.DataFrame:
    """One row for each world, weights and strategy: of every figure its mean over cycles and seeds, and
    half a 95% t-interval over seeds (``_half``); the same of the paired difference to constant epsilon
    (``_more``, ``_more_half``). ``last_``: of the last five cycles alone."""
    keys = ["world", "weights", "strategy", "seed"]
    rows = [
        {key: run[key] for key in keys}
        | {key: np.mean(each) for key, each in run["cycles"].items()}
        | {f"last_{key}": np.mean(each[-5:]) for key, each in run["cycles"].items()}
        for run in report["results"]
    ]
    flat = pd.DataFrame(rows).set_index(keys).sort_index()
    found = []
    for run in dict.fromkeys(tuple(each[key] for key in keys[:3]) for each in rows):
        own, usual = flat.loc[run], flat.loc[(*run[:2], "constant")]
        row: dict[str, Any] = dict(zip(keys, run))
        for name in flat:
            row[name], row[f"{name}_half"] = _interval(own[name])
            row[f"{name}_more"], row[f"{name}_more_half"] = _interval(own[name] - usual[name])
        found.append(row)
    return pd.DataFrame(found)


def _interval(values: pd.Series) -> tuple[float, float]:
    """Mean and half its 95% t-interval; NaN of a single value."""
    count = len(values)
    if count < 2:
        return float(values.mean()), float("nan")
    half = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5
    return float(values.mean()), float(half)


def show(report: dict[str, Any], console: Console) -> None:
    """Print the means over cycles 2 and on; value and regret are sums over the cycles."""
    cycles = report["cycles"] - 1
    for (name, weights), part in summary(report).groupby(["world", "weights"], sort=False):
        title = f"world {name}, {weights} weights, {report['players']:,} players a cycle"
        table = Table(title=title, caption=report["machine"])
        for column in (
            "strategy", "correlation", "in the end", "pehe", "value", "over constant", "regret",
            "of it in the end", "spend", "exploring", "departed",
        ):  # fmt: skip
            table.add_column(column)
        for _, row in part.iterrows():
            table.add_row(
                row["strategy"],
                f"{row['correlation']:.3f} ±{row['correlation_half']:.3f}",
                f"{row['last_correlation']:.3f} ±{row['last_correlation_half']:.3f}",
                f"{row['pehe']:.3f} ±{row['pehe_half']:.3f}",
                f"{cycles * row['value']:.3f} ±{cycles * row['value_half']:.3f}",
                f"{cycles * row['value_more']:+.3f} ±{cycles * row['value_more_half']:.3f}",
                f"{cycles * row['regret']:.3f}",
                f"{5 * row['last_regret']:.3f} ±{5 * row['last_regret_half']:.3f}",
                f"{row['spend']:.4f}",
                f"{row['exploration_spend']:.4f}",
                f"{row['departed']:.3f}",
            )
        console.print(table)


def figure(report: dict[str, Any], path: Path) -> None:
    """Draw correlation, cumulative value and cumulative regret by cycle; means over seeds."""
    from matplotlib.figure import Figure

    runs = report["results"]
    scenes = list(dict.fromkeys((run["world"], run["weights"]) for run in runs))
    drawing = Figure(figsize=(12, 3.2 * len(scenes)), layout="constrained")
    panels = drawing.subplots(len(scenes), 3, squeeze=False)
    for scene, row in zip(scenes, panels):
        for axes, key in zip(row, ("correlation", "value", "regret")):
            for strategy in STRATEGIES:
                own = [
                    run["cycles"][key]
                    for run in runs
                    if (run["world"], run["weights"], run["strategy"]) == (*scene, strategy)
                ]
                curve = np.mean(own, axis=0)
                curve = curve if key == "correlation" else curve.cumsum()
                axes.plot(np.arange(2, len(curve) + 2), curve, label=strategy)
            told = key if key == "correlation" else f"cumulative {key}"
            axes.set(title=f"{scene[0]}, {scene[1]} weights: {told}", xlabel="cycle")
    panels[0, 0].legend(frameon=False)
    drawing.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
