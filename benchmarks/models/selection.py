"""What to select by? Which number of the validation fold finds the best policy, and how noisy it is.

For each world and seed a few nets are trained to their last epoch, and every epoch of every net is a
snapshot. Its truth is the share of the oracle's value on fresh units (``decisions.score``). Its
criteria are computed on the validation fold, each signed so that more is better:

``loss``       factual: cross-entropy of binary outcomes, squared error over variance of others
               (what the pipeline selects by, there with the weights of rows).
``effects``    the squared error of the effects against doubly robust ones, less that of predicting 0
               (``models/selection.py``).
``r risk``     with u_a the predicted effect of arm a, e_a its probability and U what was realised, the
               mean of ((U - m(x)) - sum_a (1[A = a] - e_a) u_a(x))^2; m = sum_a e_a q_a.
``ips value``  inverse-propensity value of the policy within a budget of 20%.
``dr value``   the same, doubly robust.
``qini``       of the best arm's predicted value, among rows that got that arm or control, over that of
               the best order in hindsight.
``autoc``      mean over depths of how far the doubly robust effects of the best arms at the top exceed
               those of all; which arm is best counts for nothing in it, only the order of the units.

q is a cross-fitted ridge of U on x, one an arm. A criterion picks one snapshot of all nets (a search)
and one of each net's epochs (early stopping, averaged over nets). Beside what it picked: the regret
against the best snapshot at a budget of 20%, Spearman's correlation with the share at 20%, and its
noise: the standard deviation over bootstrap resamples of the validation rows over that over snapshots.
``apart`` is the same of a snapshot's distance from the mean snapshot: resampled rows move all snapshots
together, and what moves them together picks none of them. The price of the budget isn't resampled.

Sources: Nie & Wager, "Quasi-oracle estimation of heterogeneous treatment effects", 2021 (the R risk,
here for several arms); Yadlowsky et al., "Evaluating treatment prioritization rules via rank-weighted
average treatment effects", 2021 (AUTOC).

Run: ``python -m benchmarks.models.selection [--full] [--worlds bonus,rare] [--json out.json]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats
from torch import nn

from benchmarks.machine import machine, wide_console
from benchmarks.models.decisions import BUDGETS, score
from benchmarks.models.tables import interval
from benchmarks.models.worlds import WORLDS, Case, case
from campaigns.objective import realised, value_and_cost
from campaigns.spec import Campaign
from models.catalog import build
from models.dataset import Prepared, prepare
from models.inference import predict
from models.metrics import cross_fit_outcome_model, policy_value
from models.metrics.trial import check_trial
from models.metrics.uplift import qini_core
from models.plan import train_config
from models.selection import Judge, judge
from models.training import InMemoryBatches, fit, sized
from serving.policy.allocation import allocate

NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "mtmt": ("mtmt", {}),
    "mtmt small": ("mtmt", {"width": 8, "experts": 2, "hidden": 32}),
    "mtmt dropout": ("mtmt", {"dropout": 0.3, "blocks": 2}),
    "s_learner": ("s_learner", {}),
    "t_learner": ("t_learner", {}),
}
BUDGET = 0.2  # of what treating everybody costs: the policy whose value is estimated
RESAMPLES = 100
SCOPES = ("all nets", "epochs of a net")
SHARES = tuple(f"at {share:.0%}" for share in BUDGETS)
CRITERIA = ("loss", "effects", "r risk", "ips value", "dr value", "qini", "autoc")
BEST, LAST = "best there is", "last epoch"


@dataclass(frozen=True)
class Held:
    """Randomized held-out rows.

    Attributes:
        campaign: Gives values, costs and which outcomes are binary.
        judge: Their pseudo-effects.
        arm, propensity: The arm given and its probability, [N].
        outcomes: Observed, in their own units, [N, K].
        q: Cross-fitted reward of every arm, [N, A].
        chances: Probability of every arm, [A].
    """

    campaign: Campaign
    judge: Judge
    arm: np.ndarray
    propensity: np.ndarray
    outcomes: np.ndarray
    q: np.ndarray
    chances: np.ndarray

    @classmethod
    def of(cls, prepared: Prepared, seed: int) -> Held:
        """The validation fold of a trial of constant probabilities whose outcomes are all observed."""
        recipe, rows = prepared.recipe, prepared.validation
        seen = judge(prepared)
        arm, propensity = rows.arm.numpy(), rows.propensity.numpy().astype(np.float64)
        if len(seen.effects) != len(arm):
            raise ValueError("some validation rows are not randomized or not observed")
        outcomes = recipe.scaler.restore(rows.y.numpy().astype(np.float64))
        small = [place for place, size in enumerate(recipe.shape.categories) if size <= 64]
        x_cat = rows.x_cat.numpy()
        hot = [np.eye(recipe.shape.categories[place])[x_cat[:, place]] for place in small]
        q = cross_fit_outcome_model(
            np.concatenate([rows.x_num.numpy(), *hot], axis=1),
            arm,
            realised(outcomes, arm, recipe.campaign)[0],
            propensity,
            arms=recipe.shape.arms,
            seed=seed,
            model="ridge",
        )
        chances = np.array([propensity[arm == a].mean() for a in range(recipe.shape.arms)])
        return cls(recipe.campaign, seen, arm, propensity, outcomes, q, chances)


@dataclass(frozen=True)
class Snapshot:
    """A net after an epoch.

    Attributes:
        net: Its name in ``NETS``.
        epoch: From 0.
        criteria: Each on the rows and on R resamples of them, [1 + R].
        truth: What ``decisions.score`` says on fresh units.
    """

    net: str
    epoch: int
    criteria: dict[str, np.ndarray]
    truth: dict[str, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more rows, more seeds")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--units", type=int, default=None, help="fresh units that give the truth")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--worlds", default=",".join(["bonus", *WORLDS]))
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--training", default="{}", help="training settings, as JSON")
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    options = parser.parse_args()
    rows = options.rows or (100_000 if options.full else 20_000)
    units = options.units or (100_000 if options.full else 20_000)
    seeds = options.seeds or (5 if options.full else 1)
    training, nets = json.loads(options.training), options.nets.split(",")
    console = wide_console()
    results: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for world in options.worlds.split(","):
        for seed in range(seeds):
            started = time.perf_counter()
            found = snapshots(case(world, rows, seed, units), nets, training, seed)
            where = {"world": world, "seed": seed}
            results += [{**where, **line} for line in summary(found)]
            told += [
                {**where, "net": one.net, "epoch": one.epoch, "truth": one.truth}
                | {"criteria": {name: float(each[0]) for name, each in one.criteria.items()}}
                for one in found
            ]
            seconds = time.perf_counter() - started
            console.print(f"{world} {seed}: {len(found)} snapshots, {seconds:.1f} s")
    show(results, console)
    if options.json:
        report = {"machine": machine("torch", "numpy"), "rows": rows, "results": results}
        options.json.write_text(json.dumps({**report, "snapshots": told}, indent=1))


def snapshots(
    made: Case, nets: Sequence[str], training: dict[str, Any], seed: int
) -> list[Snapshot]:
    """Every epoch of every net, none of them stopped early."""
    prepared = prepare(made.frame, made.campaign, seed=seed)
    recipe, held = prepared.recipe, Held.of(prepared, seed)
    columns = {column: made.units[column].to_numpy() for column in made.campaign.features.names}
    fresh = recipe.encoder.encode(columns)
    seen = prepared.validation.x_num.numpy(), prepared.validation.x_cat.numpy()
    weight = resamples(len(held.arm), RESAMPLES, seed)
    training = {"metric": "loss", "mode": "min", **training}
    found: list[Snapshot] = []

    def outcomes(net: nn.Module, x_num: np.ndarray, x_cat: np.ndarray) -> np.ndarray:
        return recipe.scaler.restore(predict(net, x_num, x_cat).astype(np.float64))

    for label in nets:
        name, config = NETS[label]
        settings = train_config(name, training, seed=seed, device="cpu")
        settings = replace(settings, patience=settings.epochs)
        settings = sized(settings, len(prepared.train), recipe.shape.features)
        net: Any = build(name, recipe.shape, config, seed=seed)
        net.start_from(recipe.scaler.start)
        mine: list[Snapshot] = []

        def keep(
            net: nn.Module, label: str = label, mine: list[Snapshot] = mine
        ) -> dict[str, float]:
            measured = criteria(outcomes(net, *seen), held, weight)
            believed = value_and_cost(outcomes(net, *fresh), made.campaign)[0]
            mine.append(Snapshot(label, len(mine), measured, score(believed, made)))
            return {"loss": -float(measured["loss"][0])}

        fit(net, InMemoryBatches(prepared.train, settings.batch_size, seed), keep, settings)
        found += mine
    return found


def resamples(rows: int, count: int, seed: int) -> np.ndarray:
    """How often each row is drawn: once, then in ``count`` bootstrap resamples, [1 + count, rows]."""
    rng = np.random.default_rng([seed, 79])
    drawn = [np.bincount(rng.integers(0, rows, rows), minlength=rows) for _ in range(count)]
    return np.stack([np.ones(rows), *drawn]).astype(np.float64)


def criteria(predicted: np.ndarray, held: Held, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Every criterion under every row of weights, more is better.

    Args:
        predicted: Expected potential outcomes of the held-out rows, [N, A, K].
        held: Those rows.
        weight: Of the rows, [R, N].

    Returns:
        By the name in ``CRITERIA``, [R] each.
    """
    value, cost = value_and_cost(predicted, held.campaign)
    reward = realised(held.outcomes, held.arm, held.campaign)[0]
    chosen = allocate(value, cost, BUDGET * cost[:, 1:].mean() * len(cost)).arm
    log = chosen, reward, held.arm, held.propensity
    each = {
        "loss": -factual(predicted, held),
        "effects": np.sum(value * (2.0 * held.judge.effects - value), axis=1),
        "r risk": -r_loss(value, reward, held),
        "ips value": policy_value(*log, estimator="ips").contributions,
        "dr value": policy_value(*log, q_hat=held.q, estimator="dr").contributions,
    }
    total = weight.sum(axis=1)
    found = {name: weight @ rows / total for name, rows in each.items()}
    best = value[:, 1:].argmax(axis=1) + 1
    rank = value[np.arange(len(best)), best]
    return found | {
        "qini": _qini(rank, best, reward, held, weight),
        "autoc": _autoc(rank, held.judge.effects[np.arange(len(best)), best], weight),
    }


def factual(predicted: np.ndarray, held: Held) -> np.ndarray:
    """Loss of the outcomes of the arm given, mean over outcomes, [N]."""
    mine, y = predicted[np.arange(len(held.arm)), held.arm], held.outcomes
    loss = (y - mine) ** 2 / np.maximum(y.var(axis=0), 1e-12)
    for k, outcome in enumerate(held.campaign.outcomes.values()):
        if outcome.kind == "binary":
            p = np.clip(mine[:, k], 1e-6, 1.0 - 1e-6)
            loss[:, k] = -np.log(np.where(y[:, k] > 0.5, p, 1.0 - p))
    return loss.mean(axis=1)


def r_loss(effect: np.ndarray, reward: np.ndarray, held: Held) -> np.ndarray:
    """Squared residual on residual of each row, [N]; effects are [N, A] with 0 for control."""
    given = effect[np.arange(len(effect)), held.arm]
    return (reward - held.q @ held.chances - given + effect @ held.chances) ** 2


def _qini(
    rank: np.ndarray, best: np.ndarray, reward: np.ndarray, held: Held, weight: np.ndarray
) -> np.ndarray:
    rows = (held.arm == best) | (held.arm == 0)
    treated = (held.arm[rows] > 0).astype(int)
    trial = check_trial(reward[rows], rank[rows], treated, propensity=held.propensity[rows])
    return qini_core(trial.points(weight[:, rows]), "perfect")


def _autoc(rank: np.ndarray, effect: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean over units of the mean effect of those ranked no lower, less the mean of all, [R]."""
    order = np.argsort(-rank, kind="stable")
    weight = weight[:, order]
    so_far, units = np.cumsum(weight * effect[order], axis=1), np.cumsum(weight, axis=1)
    top = so_far / np.maximum(units, 1.0)  # nobody yet: 0, and of no weight in the mean
    return (weight * top).sum(axis=1) / units[:, -1] - so_far[:, -1] / units[:, -1]


def summary(found: Sequence[Snapshot]) -> list[dict[str, Any]]:
    """What each criterion picks, in each scope: ``scope``, ``criterion`` and its figures."""
    nets = list(dict.fromkeys(one.net for one in found))
    each = [compare([one for one in found if one.net == net]) for net in nets]
    mean = {name: {key: _mean([one[name][key] for one in each]) for key in each[0][name]}
            for name in each[0]}  # fmt: skip
    everything = compare(found)
    del everything[LAST]  # of which net?
    return [
        {"scope": scope, "criterion": name, **figures}
        for scope, group in zip(SCOPES, (everything, mean))
        for name, figures in group.items()
    ]


def compare(found: Sequence[Snapshot]) -> dict[str, dict[str, float]]:
    """Figures of each criterion among some snapshots, and the shares of the best and of the last."""
    truth = np.array([[one.truth[share] for share in SHARES] for one in found])
    middle = truth[:, BUDGETS.index(BUDGET)]
    lines = {
        BEST: dict(zip(SHARES, truth.max(axis=0).tolist())),
        LAST: dict(zip(SHARES, truth[-1].tolist())),
    }
    for name in CRITERIA:
        values = np.stack([one.criteria[name] for one in found])  # [S, 1 + R]
        measured, drawn = values[:, 0], values[:, 1:]
        pick = int(np.where(np.isnan(measured), -np.inf, measured).argmax())
        spread = measured.std()
        moves = bool(spread > 0 and middle.std() > 0)
        lines[name] = {
            **dict(zip(SHARES, truth[pick].tolist())),
            "regret": float(middle.max() - middle[pick]),
            "rank": float(stats.spearmanr(measured, middle)[0]) if moves else np.nan,
            "noise": float(drawn.std(axis=1).mean() / spread) if moves else np.nan,
            "apart": float((drawn - drawn.mean(axis=0)).std(axis=1).mean() / spread)
            if moves
            else np.nan,
        }
    return lines


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """A table a world and scope: means over seeds with 95% intervals."""
    columns = (*SHARES, "regret", "rank", "noise", "apart")
    for world in dict.fromkeys(line["world"] for line in results):
        for scope in SCOPES:
            table = Table(title=f"{world}, {scope}: share of the oracle's value of what is picked")
            table.add_column("criterion", no_wrap=True)
            for column in columns:
                table.add_column(column, justify="right", no_wrap=True)
            here = [one for one in results if (one["world"], one["scope"]) == (world, scope)]
            for name in dict.fromkeys(one["criterion"] for one in here):
                mine = [one for one in here if one["criterion"] == name]
                table.add_row(name, *(_told([one.get(c) for one in mine]) for c in columns))
            console.print(table)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


def _told(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return interval(known, 2 if abs(np.mean(known)) < 10 else 0) if known else ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
