"""The command that writes a simulated world's log, and its truth, as tables."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from campaigns.errors import CampaignError, choices
from pipelines.commands.options import Json, console, print_json
from pipelines.commands.tables import require_table, save_table


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("simulate")(simulate)


def simulate(
    name: Annotated[str | None, typer.Argument(metavar="WORLD", help="Which world.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Logged decisions.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same tables.")] = 0,
    days: Annotated[int, typer.Option(min=1, help="Days that the log covers.")] = 28,
    first_day: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the world, such as effect_drift=0.02.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The log: Parquet, or CSV by its ending.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Expected outcomes of every arm, row by row.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the worlds and end.")] = False,
    as_json: Json = False,
) -> None:
    """Write the log of a randomized trial in a simulated world, and what is true there, as tables.

    Over one day each unit comes at most once, so that such a log is a unit table as well.

    \b
    Example:
      updraft simulate --list
      updraft simulate game_bonus --rows 50000 --seed 1 --out log.parquet --truth truth.parquet
      updraft simulate game_bonus --rows 5000 --first-day 28 --days 1 --out units.parquet
    """
    from campaigns.worlds import world

    if listed:
        _list(as_json)
        return
    if name is None or out is None:
        missing = "WORLD" if name is None else "--out"
        raise CampaignError(f"{missing}: is missing; 'updraft simulate --list' lists the worlds")
    for path, key in ((out, "--out"), (truth, "--truth")):
        if path is not None:
            require_table(path, key)
    simulated = world(name, **_numbers(option or []))
    log = simulated.log(rows, seed=seed, days=days, first_day=first_day)
    expected = simulated.truth(log, day=_days(log))
    save_table(log, out)
    if truth is not None:
        columns = {
            f"{outcome}.{arm}": expected[:, a, k]
            for k, outcome in enumerate(simulated.outcomes)
            for a, arm in enumerate(simulated.arms)
        }
        save_table(log[["decision_id", simulated.unit]].assign(**columns), truth)
    means = (expected - expected[:, :1]).mean(axis=0)
    told: dict[str, Any] = {
        "world": name,
        "rows": len(log),
        "units": int(log[simulated.unit].nunique()),
        "seed": seed,
        "out": str(out),
        "truth": None if truth is None else str(truth),
        "mean_effects": {
            arm: dict(zip(simulated.outcomes, means[a].tolist()))
            for a, arm in enumerate(simulated.arms)
            if a
        },
    }
    if as_json:
        print_json(told)
        return
    printed = console()
    printed.print(f"{out}: {told['rows']:,} decisions on {told['units']:,} units", soft_wrap=True)
    if truth is not None:
        printed.print(f"{truth}: expected outcomes of every arm", soft_wrap=True)
    for arm, effects in told["mean_effects"].items():
        printed.print(
            f"  true mean effect of {arm}: "
            + ", ".join(f"{outcome} {effect:+.4f}" for outcome, effect in effects.items()),
            soft_wrap=True,
        )


def _days(log: pd.DataFrame) -> np.ndarray:
    """The day of each row, [N]: effects may change with it."""
    from campaigns.worlds.base import START

    return np.asarray((log["event_timestamp"] - pd.Timestamp(START)).dt.days, dtype=np.int64)


def _numbers(given: list[str]) -> dict[str, float]:
    options = {}
    for text in given:
        name, sign, value = text.partition("=")
        try:
            options[name] = float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise CampaignError(f"--option: {text!r} is no option; write effect_drift=0.02")
    return options


def _list(as_json: bool) -> None:
    from campaigns.worlds import known_worlds

    found: dict[str, dict[str, Any]] = {}
    for name, make in known_worlds().items():
        made = make()
        options = inspect.signature(make).parameters.values()
        found[name] = {
            "about": (inspect.getdoc(inspect.getmodule(make)) or "").partition("\n")[0],
            "factor": made.factor,
            "arms": list(made.arms),
            "outcomes": list(made.outcomes),
            "options": {each.name: each.default for each in options},
        }
    if as_json:
        print_json(found)
        return
    out = console()
    for name, world in found.items():
        out.print(f"[bold]{name}[/bold]: {world['about']}")
        out.print(f"  {world['factor']}: {choices(world['arms'])}")
        out.print(f"  outcomes: {', '.join(world['outcomes'])}")
        settings = ", ".join(f"{each}={value:g}" for each, value in world["options"].items())
        out.print(f"  options: {settings or 'none'}")
