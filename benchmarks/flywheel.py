"""The loop against what it replaces: explore, log, train, promote, serve, week after week, under drift.

The world is ``game_bonus``, whose effects turn and whose players change as the weeks go by. Every policy
decides on the same players with the same budget, and all but ``random`` know the same randomized trial
of the four weeks before:

``loop``           each week a model is trained on the log of the last weeks (the trial's rows, explored
                   ones, exploited ones with their propensities, as the pipeline weighs them), the gate
                   compares it with the champion on held-out explored rows, and what wins decides next.
                   Exploration and the holdout are paid for out of the same budget.
``trained once``   the loop's first model, for ever; explores nothing, holds nobody out.
``best arm``       the arm that won the trial, by lot to as many as the budget pays for.
``random``         a random arm, likewise.
``oracle``         the allocation of the budget by the true effects.

Outcomes are drawn from the world and logged; what a policy is worth is the true expected value of the
arms that it gave over control, less what they cost, so that the only noise is who was drawn and learned
from. Decisions, propensities, spend caps, training, gate and promotion are the project's own code, run
in this process. Left out: Kubeflow, Ray, Feast, MLflow, HTTP, the search for settings, late outcomes,
checks and drift reports (``make demo`` runs the whole loop, twice), and the trial that the pipeline
draws beside the decisions; the budget is settled once a week for a whole batch, not paced.

Run: ``python -m benchmarks.flywheel [--seeds 5] [--cycles 12] [--json out.json] [--figure out.png]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.flywheel_report import figure, show
from benchmarks.machine import machine, wide_console
from benchmarks.models.decisions import fit_model
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from campaigns.worlds import World, world
from campaigns.worlds.base import START
from models.gate import decide
from models.uplift_model import UpliftModel
from serving.batch import draw_batch
from serving.decider import Assessed, Unit
from serving.evaluation import NOBODY, best_arm, constant_policies, held_out, model_policy
from serving.ledger import Ledger
from serving.policy.allocation import allocate
from serving.policy.exploration import Draw
from serving.policy.ration import ration

CAMPAIGN = Path(__file__).resolve().parents[1] / "campaigns" / "game_bonus.yaml"
WEEK, TRIAL_DAYS = 7, 28
POLICIES = ("loop", "trained once", "best arm", "random", "oracle")


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        cycles: Weeks.
        units: Decisions a week, of the same players.
        trial: Decisions of the randomized trial before the first week.
        effect_drift: Radians a day by which the effects turn.
        covariate_drift: Standard deviations a day by which activity falls.
        epsilon: Share of the loop's decisions that are drawn at random.
        explore_spend: Most of the budget that these may cost.
        window: Weeks of its own log that the loop learns from; the trial leaves it week by week too.
        model: A model of the catalogue, at its default settings.
    """

    cycles: int = 12
    units: int = 20_000
    trial: int = 40_000
    effect_drift: float = 0.02
    covariate_drift: float = 0.005
    epsilon: float = 0.05
    explore_spend: float = 0.2
    window: int = 4
    model: str = "s_boost"

    def campaign(self) -> Campaign:
        """``game_bonus`` with the same money for a decision, whatever the number of decisions."""
        made = load_campaign(CAMPAIGN)
        source, rules = made.source, made.exploration
        each = made.budget.amount * source.days / source.rows  # type: ignore[union-attr]
        return made.model_copy(
            update={
                "budget": made.budget.model_copy(update={"per": "unit", "amount": each}),
                "exploration": rules.model_copy(
                    update={"epsilon": self.epsilon, "max_spend_share": self.explore_spend}
                ),
                "model": made.model.model_copy(update={"name": self.model}),
            }
        )


@dataclass(frozen=True, eq=False)
class Week:
    """The players of a week, and what is true of them.

    Attributes:
        day: The world's.
        units: Ids and features, N rows.
        value, cost: True ones of every arm over control, [N, A].
        budget: What the week may cost.
    """

    day: int
    units: pd.DataFrame
    value: np.ndarray
    cost: np.ndarray
    budget: float


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    for field in fields(Setting):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default)
    parser.add_argument("--json", type=Path, default=None, help="where to write the numbers")
    parser.add_argument("--figure", type=Path, default=None, help="where to draw them (PNG)")
    options = parser.parse_args()
    setting = Setting(**{field.name: getattr(options, field.name) for field in fields(Setting)})
    console, results = wide_console(), []
    for seed in range(options.seeds):
        started = time.monotonic()
        found = run(setting, seed)
        net = {name: round(sum(w["policies"][name]["net"] for w in found)) for name in POLICIES}
        promoted = sum(week["promoted"] for week in found)
        console.print(
            f"seed {seed}: {net}, {promoted} promotions, {time.monotonic() - started:.0f} s",
            highlight=False,
        )
        results.append({"seed": seed, "weeks": found})
    report = {
        "machine": machine("torch", "scikit-learn", "numpy"),
        "setting": asdict(setting),
        "results": results,
    }
    show(report, console)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    if options.figure:
        figure(report, options.figure)


def run(setting: Setting, seed: int) -> list[dict[str, Any]]:
    """All weeks of one seed: what every policy gave and earned, and what became of the loop's models."""
    campaign = setting.campaign()
    simulated = world(
        "game_bonus",
        effect_drift=setting.effect_drift,
        covariate_drift=setting.covariate_drift,
    )
    log = simulated.log(setting.trial, seed=seed, days=TRIAL_DAYS)
    log["holdout"], log["explored_propensity"] = False, log["propensity"]
    frame = decision_frame(log, campaign, "the trial")
    arm = best_arm(frame, campaign)
    first, reason = challenge(frame, campaign, None, seed)
    champion, weeks = first, []
    for cycle in range(setting.cycles):
        week = players(simulated, campaign, setting, TRIAL_DAYS + WEEK * cycle, seed)
        drawn = loop_decisions(champion, week, campaign)
        given = {
            "loop": drawn.arm,
            "trained once": by_model(first, week, campaign),
            "best arm": by_lot(np.eye(len(campaign.arm_table))[arm], week, seed),
            "random": by_lot(np.full(3, 1 / 3), week, seed),
            "oracle": best_possible(week, campaign),
        }
        weeks.append(
            {
                "week": cycle,
                "policies": {name: account(arms, week) for name, arms in given.items()},
                "explored": float(drawn.explored.mean()),
                "explored_cost": float(_of(week.cost, drawn.arm)[drawn.explored].sum()),
                "reason": reason,
            }
        )
        log = pd.concat([log, logged(drawn, week, simulated, seed)], ignore_index=True)
        since = START + timedelta(days=week.day + WEEK - WEEK * setting.window)
        recent = log[log["event_timestamp"] >= since].reset_index(drop=True)
        frame = decision_frame(recent, campaign, "the log")
        before = champion
        champion, reason = challenge(frame, campaign, champion, seed + cycle + 1)
        weeks[-1]["promoted"] = champion is not before
    return weeks


def players(simulated: World, campaign: Campaign, setting: Setting, day: int, seed: int) -> Week:
    """The same players as last week, as they are on ``day``."""
    units = simulated.units(setting.units, seed=seed, day=day)
    columns = [simulated.outcomes.index(name) for name in campaign.outcomes]
    truth = simulated.truth(units, day=day)[:, :, columns]
    value, cost = value_and_cost(truth, campaign)
    return Week(day, units, value, cost, campaign.budget.amount * len(units))


def challenge(
    frame: pd.DataFrame, campaign: Campaign, champion: UpliftModel | None, seed: int
) -> tuple[UpliftModel | None, str]:
    """Train a challenger; who decides from now on, and why. None: nobody is treated but to explore."""
    model = fit_model(frame, campaign, campaign.model.name, seed=seed)
    log = held_out(frame, campaign, seed=seed)
    mine = model_policy("challenger", model.predict(log.rows), log, campaign)
    rival = None
    if champion is not None:
        rival = model_policy("champion", champion.predict(log.rows), log, campaign).contributions
    nobody = next(p for p in constant_policies(log, frame, campaign) if p.name == NOBODY)
    verdict = decide(mine.contributions, rival, campaign.gate, nobody=nobody.contributions)
    return (model if verdict.promote else champion), verdict.reason


def loop_decisions(champion: UpliftModel | None, week: Week, campaign: Campaign) -> Draw:
    """The champion's allocation, exploration and the holdout, within the week's budget."""
    value = np.zeros_like(week.value)
    if champion is not None:
        value, _ = value_and_cost(champion.predict(week.units), campaign)
    units = [Unit(unit, {}) for unit in week.units[campaign.unit]]
    assessed = Assessed(units, value, week.cost, np.ones(value.shape, dtype=bool))
    now = START + timedelta(days=week.day)
    drawn, _, _, _ = draw_batch(assessed, campaign, Ledger(), week.budget, now)
    return drawn


def by_model(model: UpliftModel | None, week: Week, campaign: Campaign) -> np.ndarray:
    """What a model's allocation of the whole budget gives, [N]."""
    if model is None:
        return np.zeros(len(week.units), dtype=np.int64)
    value, cost = value_and_cost(model.predict(week.units), campaign)
    return allocate(value, cost, week.budget, min_return=campaign.budget.min_return).arm


def by_lot(policy: np.ndarray, week: Week, seed: int) -> np.ndarray:
    """A policy that is the same for all, [A], given to as many as the budget pays for; arms [N]."""
    chances = np.broadcast_to(policy, week.cost.shape)
    return ration(chances, week.cost, week.budget, salt=str(seed), epoch=week.day).arm


def best_possible(week: Week, campaign: Campaign) -> np.ndarray:
    """The allocation by the true effects, [N]."""
    return allocate(week.value, week.cost, week.budget, min_return=campaign.budget.min_return).arm


def account(arm: np.ndarray, week: Week) -> dict[str, float]:
    """What arms [N] are truly worth over control, what they cost, and what that leaves."""
    value, cost = float(_of(week.value, arm).sum()), float(_of(week.cost, arm).sum())
    return {"value": value, "cost": cost, "net": value - cost, "budget": week.budget}


def logged(drawn: Draw, week: Week, simulated: World, seed: int) -> pd.DataFrame:
    """The loop's decisions with what came of them, as a log that a campaign can read."""
    outcomes = simulated.respond(week.units, drawn.arm, seed=seed, day=week.day)
    ids = [f"{week.day}-{row}" for row in range(len(drawn.arm))]
    return week.units.assign(
        decision_id=ids,
        event_timestamp=pd.Timestamp(START + timedelta(days=week.day)),
        **{simulated.factor: np.array(simulated.arms, dtype=object)[drawn.arm]},
        propensity=drawn.propensity,
        explored=drawn.explored,
        explored_propensity=drawn.explored_propensity,
        holdout=drawn.holdout,
        **{name: outcomes[:, k] for k, name in enumerate(simulated.outcomes)},
    )


def _of(matrix: np.ndarray, arm: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.asarray(matrix[np.arange(len(matrix)), arm])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
