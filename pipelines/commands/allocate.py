"""The command that decides on a unit table within a budget and other limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from campaigns.errors import CampaignError
from campaigns.settings import Settings
from pipelines.commands.options import (
    File,
    Json,
    ModelName,
    console,
    open_model,
    print_json,
)
from pipelines.commands.tables import require_table, save_table, writing

if TYPE_CHECKING:
    import pandas as pd

    from campaigns.spec import Campaign
    from models.uplift_model import UpliftModel


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("allocate")(allocate)


def allocate(
    file: File,
    units: Annotated[Path, typer.Option(help="Parquet or CSV: one row a unit, with its features.")],
    out: Annotated[Path, typer.Option(help="The decisions: Parquet, or CSV by its ending.")],
    model: ModelName = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Most to spend; default: the campaign's of a period."),
    ] = None,
    limits: Annotated[
        Path | None,
        typer.Option(help="A file (YAML) of limits, in place of the campaign's."),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Decide for good: explore, charge the period's budget, log each decision.",
        ),
    ] = False,
    request: Annotated[
        str | None,
        typer.Option(
            help="With --record: asked again by this name, the first decisions come back."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
    as_json: Json = False,
) -> None:
    """Say who should get what within the budget, and what one more unit of each limit would bring.

    The campaign's limits are kept: stocks, part budgets, eligibility, least shares, guardrails.
    Nothing is logged or charged unless --record says so. Held-out units get control.

    \b
    Example:
      updraft allocate mine.yaml --units units.parquet --budget 500 --out decisions.parquet --html plan.html
      updraft allocate mine.yaml --units units.csv --limits limits.yaml --out decisions.csv --json
      updraft allocate mine.yaml --units units.parquet --out decisions.parquet --record
    """
    from campaigns.loading import load_campaign
    from campaigns.sources import read_file
    from serving.judgement import require_same_question

    require_table(out, "--out")
    if request is not None and not record:
        raise CampaignError("--request: names what is recorded; say --record as well")
    settings = Settings()
    table = read_file(str(units))
    chosen, name = open_model(load_campaign(file), model, settings)
    campaign = load_campaign(file).model_copy(update={"features": chosen.campaign.features})
    require_same_question(chosen, campaign)
    if limits is not None:
        campaign = _limited(campaign, limits, table)
    chosen.campaign = campaign  # the file's budget and rules, whatever they were at the training
    made, found = (
        _recorded(chosen, table, budget, request, settings)
        if record
        else _planned(chosen, table, budget)
    )
    save_table(made, out)
    told: dict[str, Any] = {
        "campaign": campaign.name,
        "model": name,
        "out": str(out),
        "recorded": record,
    }
    found = told | found
    if html is not None:
        from models.report.allocation import render_allocation

        with writing(html):
            render_allocation(found, html)
    if as_json:
        print_json(found | {"html": None if html is None else str(html)})
        return
    printed = console()
    given = ", ".join(f"{arm} {count:,}" for arm, count in found["arms"].items())
    printed.print(f"{out}: {found['units']:,} units, {given}", soft_wrap=True)
    printed.print(f"  value over control {found['value']:,.2f} for {found['cost']:,.2f}, by {name}")
    for key, each in found["limits"].items():
        printed.print(
            f"  {key}: {each['uses']:,.2f} of at most {each['at_most']:,.2f}; "
            f"one more would bring {each['price']:.4f}",
            soft_wrap=True,
        )
    printed.print(f"  at most {found['gap']:.4%} from the best there can be")
    if html is not None:
        printed.print(f"page: {html}", soft_wrap=True)


def _limited(campaign: Campaign, file: Path, table: pd.DataFrame) -> Campaign:
    """The campaign with the file's limits in place of its own."""
    from campaigns.limits import limit_problems
    from campaigns.loading import load_limits
    from serving.batch import table_columns
    from serving.limits import nobody_meant

    campaign = campaign.model_copy(update={"limits": load_limits(file)})
    problems = list(limit_problems(campaign, columns=False))
    problems = problems or nobody_meant(campaign, table_columns(table), len(table))
    if problems:
        raise CampaignError("\n".join(f"{file}: {problem}" for problem in problems))
    return campaign


def _planned(
    model: UpliftModel, table: pd.DataFrame, amount: float | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    from serving.unit_plan import plan_units

    plan = plan_units(model, table, model.campaign, amount=amount)
    return plan.table, plan.to_dict()


def _recorded(
    model: UpliftModel,
    table: pd.DataFrame,
    amount: float | None,
    request: str | None,
    settings: Settings,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    from serving.batch import decide_batch
    from serving.events import EventStore

    if settings.event_store is None:
        settings.folder("events")
    store = EventStore(settings.event_store_url)
    try:
        run = decide_batch(
            model,
            table,
            store,
            model_version=model.meta.get("version"),
            budget=amount,
            request_id=request,
        )
    finally:
        store.close()
    made = run.frame()
    bound = {
        "uses": run.spend,
        "at_most": run.budget,
        "price": max(run.price - model.campaign.budget.min_return, 0.0),
    }
    return made, {
        "units": len(made),
        "arms": made["arm_name"].value_counts(sort=False).to_dict(),
        "held_out": int(made["holdout"].sum()),
        "explored": int(made["explored"].sum()),
        "repeated": run.repeated,
        "value": float(run.value.sum()),
        "cost": run.spend,
        "gap": run.gap,
        "limits": {"budget": bound} | run.limits,
    }
