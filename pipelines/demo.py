"""The demonstration: two whole cycles of the loop, with a day of decisions over HTTP between them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from campaigns.errors import CheckFailed
from campaigns.settings import Settings
from campaigns.spec import Campaign
from pipelines.lock import campaign_lock
from pipelines.ray_runtime import ray_runtime
from pipelines.runner import Run, cycle
from pipelines.summary import print_lines, print_places, print_verdict
from pipelines.traffic import Played, play
from pipelines.watching import phase

NEXT_DAY = 28  # the first day after the simulated log


def demo(
    campaign: Campaign,
    file: Path,
    settings: Settings,
    console: Console,
    *,
    decisions: int,
    seed: int,
) -> dict[str, Any]:
    """Run the loop twice and print what it earned.

    Raises:
        CheckFailed: The first cycle's model didn't beat treating nobody, so there is nothing to serve.
        UpdraftError: A step failed.
    """
    with ExitStack() as stack:
        stack.enter_context(campaign_lock(campaign.name, "updraft demo", settings))
        with phase(console, "Starting Ray", "ray"):
            settings = stack.enter_context(ray_runtime(settings))
        first = cycle("First cycle", "retrain", campaign, settings, console, {"seed": seed})
        if first.url is None:
            raise CheckFailed(f"the first cycle promoted nothing: {first.verdict['reason']}")
        played = _day(campaign, first, settings, console, decisions, seed)
        arguments = {"seed": seed + 1}
        second = cycle("Second cycle", "retrain", campaign, settings, console, arguments)
    _tell(campaign, file, first, second, played, console)
    return {
        "campaign": campaign.name,
        "cycles": [first.verdict, second.verdict],
        "played": asdict(played),
        "seconds": {"first": first.seconds, "second": second.seconds},
        "reports": str(second.folder),
    }


def _day(
    campaign: Campaign,
    first: Run,
    settings: Settings,
    console: Console,
    decisions: int,
    seed: int,
) -> Played:
    with phase(console, f"A day of decisions over HTTP, at {first.url}", "play_a_day") as say:
        played = play(
            campaign,
            str(first.url),
            settings,
            decisions=decisions,
            day=NEXT_DAY,
            seed=seed,
            trial=pd.read_parquet(first.folder / "decision_record.parquet"),
            say=say,
        )
    if played.decisions != decisions:
        raise CheckFailed(f"{played.decisions} of {decisions} decisions were answered")
    return played


def _tell(
    campaign: Campaign, file: Path, first: Run, second: Run, played: Played, console: Console
) -> None:
    console.print()
    print_verdict(second.verdict, console)
    asked = campaign.exploration.epsilon
    budget = campaign.budget
    mix = ", ".join(f"{arm} {count:,}" for arm, count in sorted(played.by_arm.items()))
    print_lines(
        {
            "decided over HTTP": f"{played.decisions:,} ({mix}), {played.outcomes:,} outcomes back",
            "spend": f"{played.spend:,.2f} of {budget.amount:,.2f} a {budget.per}",
            "explored": f"{played.explored / played.decisions:.1%} of them (asked: {asked:.1%}), "
            f"and {played.trial:,} units in a trial",
            "time": f"{first.seconds:.0f} s and {second.seconds:.0f} s for the two cycles",
        },
        console,
    )
    commands = [f"updraft serve {campaign.name}", "updraft ui", f"updraft check {file}"]
    print_places(second.folder, console, commands)
