"""Commands about experiments: plan, assign, read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from campaigns.errors import CampaignError, CheckFailed
from campaigns.settings import Settings
from pipelines.commands.options import (
    File,
    Json,
    console,
    print_json,
)
from pipelines.commands.tables import require_table, save_table, writing

if TYPE_CHECKING:
    import pandas as pd

    from campaigns.experiment import Experiment
    from models.readout import ReadOut

Variants = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT", help="The experiment's file (YAML).")
]


HELP = """Compare policies on units that are split by lot: plan, assign, read.

\b
Example:
  updraft experiment plan mine.yaml test.yaml --effect 0.03
  updraft experiment assign mine.yaml test.yaml --units units.parquet --out decisions.parquet
  updraft experiment read mine.yaml test.yaml --decisions decisions.parquet --outcomes outcomes.parquet
"""


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("plan")(plan)
    group.command("assign")(assign)
    group.command("read")(read)
    app.add_typer(group, name="experiment")


def plan(
    file: File,
    variants: Variants,
    units: Annotated[
        int | None, typer.Option(min=2, help="Units of all variants; default: the file's.")
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(help="A change in shares of the mean, such as 0.02: how many units show it?"),
    ] = None,
    power: Annotated[float, typer.Option(help="Probability of finding an effect.")] = 0.8,
    as_json: Json = False,
) -> None:
    """Say which differences an experiment could show, by how outcomes varied in the campaign's log.

    \b
    Example:
      updraft experiment plan mine.yaml experiment.yaml --units 200000
      updraft experiment plan mine.yaml experiment.yaml --effect 0.02 --json
    """
    from dataclasses import asdict

    from models.readout_plan import plan_experiment
    from pipelines.experiment_inputs import logged, opened
    from pipelines.experiment_tables import print_plan

    campaign, experiment = opened(file, variants)
    planned = units or experiment.units
    if planned is None:
        raise CampaignError(f"{variants}: says no 'units'; say how many, there or by --units")
    campaign, frame = logged(campaign, "a plan")
    found = plan_experiment(frame, experiment, campaign, units=planned, effect=effect, power=power)
    told = {
        "experiment": experiment.name,
        "campaign": campaign.name,
        "reference": experiment.reference,
        "units": planned,
        "power": power,
        "effect": effect,
        "effects": [asdict(each) for each in found],
    }
    if as_json:
        print_json(told)
    else:
        print_plan(told, console())


def assign(
    file: File,
    variants: Variants,
    units: Annotated[Path, typer.Option(help="Parquet or CSV: one row a unit, with its features.")],
    out: Annotated[Path, typer.Option(help="The decisions: Parquet, or CSV by its ending.")],
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Most that all variants may spend; default: the campaign's."),
    ] = None,
    record: Annotated[
        bool,
        typer.Option("--record", help="Decide for good: charge the budget, log each decision."),
    ] = False,
    request: Annotated[
        str | None,
        typer.Option(
            help="With --record: asked again by this name, the first decisions come back."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which unit is in which variant, and what that variant's policy gives it.

    Every variant has the same budget for a unit. Held-out units take no part. Nothing is logged or
    charged unless --record says so.

    \b
    Example:
      updraft experiment assign mine.yaml experiment.yaml --units units.parquet --out decisions.parquet
      updraft experiment assign mine.yaml experiment.yaml --units units.csv --out day1.csv --record
    """
    from campaigns.sources import read_file
    from pipelines.experiment_inputs import needed, opened, policies
    from pipelines.experiment_tables import print_decisions
    from serving.experiment import deal, prepare

    require_table(out, "--out")
    if request is not None and not record:
        raise CampaignError("--request: names what is recorded; say --record as well")
    settings = Settings()
    campaign, experiment = opened(file, variants)
    table = read_file(str(units))
    campaign, frame = needed(campaign, experiment)
    ready, costs, names = policies(campaign, experiment, variants, frame, settings)
    prepared = prepare(experiment, campaign, table, ready, costs)
    repeated = False
    if record:
        from serving.events import EventStore
        from serving.experiment_record import record as write

        if settings.event_store is None:
            settings.folder("events")
        store = EventStore(settings.event_store_url)
        try:
            made, repeated = write(prepared, store, budget=budget, request_id=request)
        finally:
            store.close()
    else:
        now = max(datetime.now(UTC), experiment.start)
        made = deal(prepared, budget, now)
    save_table(made, out)
    told = {
        "experiment": experiment.name,
        "campaign": campaign.name,
        "out": str(out),
        "recorded": record,
        "repeated": repeated,
        **_told(made, experiment, names),
    }
    if as_json:
        print_json(told)
        return
    printed = console()
    print_decisions(told, printed)
    if told["held_out"]:
        printed.print(f"{told['held_out']:,} held-out units take no part")
    printed.print(f"decisions: {out}", soft_wrap=True)


def read(
    file: File,
    variants: Variants,
    decisions: Annotated[
        Path | None,
        typer.Option(help="A table of decisions, as 'assign' writes it; default: the event store."),
    ] = None,
    outcomes: Annotated[
        Path | None,
        typer.Option(help="A table of their outcomes, by decision_id or unit; default: the same."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of all intervals.")] = 0.95,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
    as_json: Json = False,
) -> None:
    """Read an experiment out: means, differences with intervals, and whether the split is sound.

    Ends with exit code 4 where it isn't: then no difference is to be read.

    \b
    Example:
      updraft experiment read mine.yaml experiment.yaml
      updraft experiment read mine.yaml experiment.yaml --decisions decisions.parquet --outcomes out.parquet
    """
    from models.readout import read_out
    from pipelines.experiment_inputs import opened, recorded, spelled
    from pipelines.experiment_tables import print_read_out
    from serving.experiment_log import joined, unit_log

    if outcomes is not None and decisions is None:
        raise CampaignError("--outcomes: are those of decisions; name their table by --decisions")
    if not 0.5 < confidence < 1:
        raise CampaignError(f"--confidence: is {confidence:g}; give a share between 0.5 and 1")
    campaign, experiment = opened(file, variants)
    campaign = spelled(campaign)
    if decisions is None:
        frame, where = recorded(campaign, experiment), "the event store"
    else:
        from campaigns.sources import read_file

        frame, where = read_file(str(decisions)), str(decisions)
        if outcomes is not None:
            frame = joined(frame, read_file(str(outcomes)), campaign)
    found = read_out(
        unit_log(frame, experiment, campaign, where), experiment, campaign, confidence=confidence
    )
    if html is not None:
        from models.report.experiment import render_experiment

        with writing(html):
            render_experiment(found, campaign, html)
    if as_json:
        print_json(found.to_dict() | {"html": None if html is None else str(html)})
    else:
        print_read_out(found, console())
        if html is not None:
            console().print(f"page: {html}", soft_wrap=True)
    _require_sound(found)


def _require_sound(found: ReadOut) -> None:
    if not found.sound:
        raise CheckFailed(
            f"{found.experiment}: the split isn't sound, so that its differences aren't to be read: "
            "find out which units are missing, and why"
        )


def _told(made: pd.DataFrame, experiment: Experiment, names: dict[str, str]) -> dict[str, Any]:
    told = []
    for name, share in zip(experiment.names, experiment.shares.tolist()):
        mine = made[made["variant"] == name]
        told.append(
            {
                "variant": name,
                "share": share,
                "decides": names[name],
                "units": len(mine),
                "arms": mine["arm_name"].value_counts(sort=False).to_dict(),
                "cost": float(mine["cost"].sum()),
                "value": float(mine["value"].sum(skipna=False)) if len(mine) else 0.0,
            }
        )
    held = int(made["holdout"].sum())
    return {"units": len(made) - held, "held_out": held, "variants": told}
