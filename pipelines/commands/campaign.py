"""Commands about campaign files and their data: init, check, data get."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from campaigns.errors import CampaignError, choices
from campaigns.settings import Settings
from campaigns.spec import EventsSource
from pipelines.commands.options import File, Json, console, open_campaign, print_json


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("init")(init)
    app.command("check")(check)
    data = typer.Typer(help="Get public datasets.", no_args_is_help=True, rich_markup_mode=None)
    data.command("get")(get)
    app.add_typer(data, name="data")


def init(
    name: Annotated[str, typer.Argument(help="The campaign's name; the file is NAME.yaml.")],
    table: Annotated[
        Path, typer.Option("--from", help="A Parquet or CSV table: one row a decision.")
    ],
    unit: Annotated[str | None, typer.Option(help="The column that names the unit.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="The column that says when.")] = None,
    treatment: Annotated[
        str | None, typer.Option(help="The column that says what was given.")
    ] = None,
    control: Annotated[str | None, typer.Option(help="Its value that means 'not treated'.")] = None,
    outcome: Annotated[
        list[str] | None, typer.Option(help="An outcome's column; repeat for several.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
) -> None:
    """Write a commented campaign file from a table's columns.

    \b
    Example:
      updraft init spring_mail --from log.parquet
      updraft init spring_mail --from log.csv --treatment segment --control 'No E-Mail'
    """
    from campaigns.drafting import draft_campaign
    from campaigns.sources import read_file

    target = Path(f"{name}.yaml")
    if target.exists() and not force:
        raise CampaignError(f"{target}: is there already; say --force to write over it")
    text = draft_campaign(
        name,
        read_file(str(table)),
        str(table),
        unit=unit,
        timestamp=timestamp,
        treatment=treatment,
        control=control,
        outcomes=outcome,
    )
    target.write_text(text, encoding="utf-8")
    typer.echo(
        f"wrote {target}: read its comments, set costs, values and the budget,\n"
        f"then: updraft check {target}"
    )


def check(file: File, as_json: Json = False) -> None:
    """Say everything that is wrong with a campaign and its table, at once.

    \b
    Example:
      updraft check campaigns/game_bonus.yaml
    """
    from feature_repo.retrieval import logged_decisions, spelled_out
    from models.checks.srm import require_sample_ratio
    from models.suitability import check_campaign
    from serving.limits import kept_online, nobody_meant

    settings = Settings()
    campaign = open_campaign(file, settings)
    log = None
    if not isinstance(campaign.source, EventsSource):
        campaign, log = spelled_out(campaign)
    check_campaign(campaign)
    found: dict[str, Any] = {"campaign": campaign.name, "arms": list(campaign.arm_table.names)}
    if log is not None:
        with logged_decisions(campaign, log) as stored:
            frame = stored.without_features()
            ratio = require_sample_ratio(frame, campaign)
            found |= {"rows": len(frame), "units": int(frame["unit_id"].nunique())}
            found |= {"randomized_rows": int(frame["explored"].sum())}
            found |= {"sample_ratio_p": ratio.p_value, "by_arm": ratio.counts}
            asked = {name for limit in campaign.limits for name in getattr(limit, "where", {})}
            columns = {name: stored.read([name])[name].to_numpy() for name in asked}
            if problems := nobody_meant(campaign, columns, len(frame)):
                raise CampaignError("\n".join(f"{file}: {problem}" for problem in problems))
    if campaign.limits:
        found["limits"] = kept_online(campaign)
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(f"{file}: good", style="green")
    for key, value in found.items():
        out.print(f"  {key}: {value}")


def get(
    dataset: Annotated[str, typer.Argument(help="Which dataset: hillstrom.")],
    source: Annotated[
        str | None, typer.Option("--from", help="A local copy; default: the public address.")
    ] = None,
) -> None:
    """Get a public dataset and lay it out as its campaign reads it, under UPDRAFT_HOME/data.

    \b
    Example:
      updraft data get hillstrom
      updraft data get hillstrom --from Kevin_Hillstrom_MineThatData.csv
      updraft run campaigns/hillstrom.yaml
    """
    from campaigns.datasets import hillstrom

    known = {"hillstrom": hillstrom}
    if dataset not in known:
        raise CampaignError(f"{dataset!r} is no dataset; choose from {choices(known)}")
    module = known[dataset]
    target = Settings().folder("data") / f"{dataset}.parquet"
    path = module.prepare(source or module.PUBLIC_URL, target)
    typer.echo(f"wrote {path}; next: updraft run campaigns/{dataset}.yaml")
