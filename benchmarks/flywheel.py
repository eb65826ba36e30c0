"""The loop against what it replaces: explore, log, train, promote, serve, week after week, under drift.

The world is ``game_bonus``, whose effects turn and whose players change as the weeks go by. Every policy
decides on the same players with the same budget, and all but ``random`` know the same randomized trial
of the four weeks before:

``loop``           each week a model is trained on the log of the last weeks (the trial's rows, explored
                   ones, exploited ones with their propensities, as the pipeline weighs them) and decides
                   next. Exploration and the holdout are paid for out of the same budget.
``gated loop``     the same, but a model only decides once the campaign's gate has seen it win over the
                   champion on held-out explored rows: the 95% interval of its gain lies above 0.
``trained once``   the loops' first model, for ever; explores nothing, holds nobody out.
``best arm``       the arm that won the trial, by lot to as many as the budget pays for.
``random``         a random arm, likewise.
``oracle``         the allocation of the budget by the true effects.

Outcomes are drawn from the world and logged; what a policy is worth is the true expected value of the
arms that it gave over control, less what they cost, so that the only noise is who was drawn and learned
from. Decisions, propensities, spend caps, training, gate and promotion are the project's own code, run
in this process. Left out: Kubeflow, Ray, Feast, MLflow, HTTP, the search for settings, late outcomes,
checks and drift reports (``make demo`` runs the whole loop, twice), and the trial that the pipeline
draws beside the decisions; the budget is settled once a week for a whole batch, not paced. A campaign
has no key for the window that the loops learn from: there it is up to the table that the source reads.

Run: ``python -m benchmarks.flywheel [--seeds 3] [--cycles 12] [--json out.json] [--figure out.png]``
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.flywheel_report import figure, show
from benchmarks.flywheel_world import (
    Week,
    account,
    best_possible,
    by_lot,
    logged,
    of_arm,
    players,
)
from benchmarks.machine import machine, wide_console
from benchmarks.models.decisions import fit_model
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import value_and_cost
from campaigns.spec import Campaign
from campaigns.worlds import world
from campaigns.worlds.base import START
from models.gate import decide
from models.uplift_model import UpliftModel
from serving.batch_draw import draw_batch
from serving.decider import Assessed, Unit
from serving.evaluation import NOBODY, best_arm, constant_policies, held_out, model_policy
from serving.ledger import Ledger
from serving.policy.allocation import allocate
from serving.policy.exploration import Draw

CAMPAIGN = Path(__file__).resolve().parents[1] / "campaigns" / "game_bonus.yaml"
WEEK, TRIAL_DAYS = 7, 28
LOOP, GATED = LOOPS = ("loop", "gated loop")
POLICIES = (*LOOPS, "trained once", "best arm", "random", "oracle")


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
        window: Weeks of its log that a loop learns from; the trial's rows age out of it like others.
        loops: Which of the two run: the gate takes most of the time.
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
    loops: str = ",".join(LOOPS)
    model: str = "s_boost"

    def campaign(self) -> Campaign:
        """``game_bonus`` with the same money for a decision, whatever the number of decisions."""
        made = load_campaign(CAMPAIGN)
        source, rules = made.source, made.exploration
        config = {"bags": 1} if self.model == "s_boost" else {}  # there are models enough to fit
        each = made.budget.amount * source.days / source.rows  # type: ignore[union-attr]
        return made.model_copy(
            update={
                "budget": made.budget.model_copy(update={"per": "unit", "amount": each}),
                "exploration": rules.model_copy(
                    update={"epsilon": self.epsilon, "max_spend_share": self.explore_spend}
                ),
                "model": made.model.model_copy(update={"name": self.model, "config": config}),
            }
        )


@dataclass(eq=False)
class Loop:
    """One of the loops.

    Attributes:
        gated: Whether a challenger must pass the gate.
        log: What it has decided and seen since the trial began, as a table.
        champion: What decides; None: nobody is treated but to explore.
    """

    gated: bool
    log: pd.DataFrame
    champion: UpliftModel | None


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
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
        net = {
            name: round(sum(week["policies"][name]["net"] for week in found))
            for name in found[0]["policies"]
        }
        console.print(f"seed {seed}: {net}, {time.monotonic() - started:.0f} s", highlight=False)
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
    winner = np.eye(len(campaign.arm_table))[best_arm(frame, campaign)]
    anyone = np.full(len(winner), 1 / len(winner))
    model = fit_model(frame, campaign, setting.model, seed=seed)
    first = model if contest(model, None, frame, campaign, seed)[0] else None
    loops = {name: Loop(name == GATED, log, first) for name in setting.loops.split(",")}
    weeks = []
    for cycle in range(setting.cycles):
        week = players(simulated, campaign, setting.units, TRIAL_DAYS + WEEK * cycle, seed)
        drawn = {
            name: loop_decisions(loop.champion, week, campaign) for name, loop in loops.items()
        }
        given = {name: draw.arm for name, draw in drawn.items()} | {
            "trained once": by_model(first, week, campaign),
            "best arm": by_lot(winner, week, seed),
            "random": by_lot(anyone, week, seed),
            "oracle": best_possible(week, campaign),
        }
        told = {}
        for name, loop in loops.items():
            outcomes = logged(drawn[name], week, simulated, seed)
            told[name] = _explored(drawn[name], week) | learn(
                loop, outcomes, week, campaign, setting.window, seed + cycle + 1
            )
        accounts = {name: account(arms, week) for name, arms in given.items()}
        weeks.append({"week": cycle, "policies": accounts, "loops": told})
    return weeks


def learn(
    loop: Loop, outcomes: pd.DataFrame, week: Week, campaign: Campaign, window: int, seed: int
) -> dict[str, Any]:
    """Log a week, train on the last ones, promote; says whether it promoted, and why."""
    loop.log = pd.concat([loop.log, outcomes], ignore_index=True)
    since = START + timedelta(days=week.day + WEEK - WEEK * window)
    recent = loop.log[loop.log["event_timestamp"] >= since].reset_index(drop=True)
    frame = decision_frame(recent, campaign, "the log")
    model = fit_model(frame, campaign, campaign.model.name, campaign.model.config, seed=seed)
    if not loop.gated:
        loop.champion = model
        return {"promoted": True, "reason": "the newest model decides"}
    promote, reason = contest(model, loop.champion, frame, campaign, seed)
    loop.champion = model if promote else loop.champion
    return {"promoted": promote, "reason": reason}


def contest(
    model: UpliftModel,
    champion: UpliftModel | None,
    frame: pd.DataFrame,
    campaign: Campaign,
    seed: int,
) -> tuple[bool, str]:
    """Whether the gate lets a model decide instead of the champion (None: of nobody), and why."""
    log = held_out(frame, campaign, seed=seed)
    mine = model_policy("challenger", model.predict(log.rows), log, campaign)
    rival = None
    if champion is not None:
        rival = model_policy("champion", champion.predict(log.rows), log, campaign).contributions
    nobody = next(p for p in constant_policies(log, frame, campaign) if p.name == NOBODY)
    verdict = decide(mine.contributions, rival, campaign.gate, nobody=nobody.contributions)
    return verdict.promote, verdict.reason


def loop_decisions(champion: UpliftModel | None, week: Week, campaign: Campaign) -> Draw:
    """The champion's allocation, exploration and the holdout, within the week's budget."""
    value = np.zeros_like(week.value)
    if champion is not None:
        value, _ = value_and_cost(champion.predict(week.units), campaign)
    units = [Unit(unit, {}) for unit in week.units[campaign.unit]]
    assessed = Assessed(units, value, week.cost, np.ones(value.shape, dtype=bool))
    now = START + timedelta(days=week.day)
    drawn = draw_batch(assessed, campaign, Ledger(), week.budget, now).drawn
    return drawn


def by_model(model: UpliftModel | None, week: Week, campaign: Campaign) -> np.ndarray:
    """What a model's allocation of the whole budget gives, [N]."""
    if model is None:
        return np.zeros(len(week.units), dtype=np.int64)
    value, cost = value_and_cost(model.predict(week.units), campaign)
    return allocate(value, cost, week.budget, min_return=campaign.budget.min_return).arm


def _explored(drawn: Draw, week: Week) -> dict[str, float]:
    """Share of the units that were explored, and what that cost."""
    cost = float(of_arm(week.cost, drawn.arm)[drawn.explored].sum())
    return {"explored": float(drawn.explored.mean()), "explored_cost": cost}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
