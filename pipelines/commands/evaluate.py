"""The command that says what a model, or somebody's scores, are worth on logged rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from campaigns.errors import CampaignError, DataError
from campaigns.settings import Settings
from pipelines.commands.options import (
    File,
    Json,
    ModelName,
    Seed,
    console,
    open_campaign,
    open_model,
    print_json,
)
from pipelines.commands.tables import writing

if TYPE_CHECKING:
    import pandas as pd

    from campaigns.spec import Campaign


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("evaluate")(evaluate)


def evaluate(
    file: File,
    frame: Annotated[
        Path | None,
        typer.Option(help="Logged decisions, as the campaign's table; default: that table."),
    ] = None,
    model: ModelName = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Scores of any model: a column a treated arm, by decision_id or row."),
    ] = None,
    worth: Annotated[
        bool,
        typer.Option(
            "--worth", help="The scores are gains in the budget's unit: ask min_return of them."
        ),
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A metric such as autoc or lift@10; repeat for several."),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="Whose numbers: updraft, sklift, causalml, upliftml or econml.")
    ] = "updraft",
    html: Annotated[Path | None, typer.Option(help="Write a page with all charts here.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Say how well a model ranks, whether its effects are right in size, and what it would earn.

    A model of ours is judged on the randomized rows of units that no model was trained on; scores of
    another model on all randomized rows.

    \b
    Example:
      updraft evaluate mine.yaml                                     the champion
      updraft evaluate mine.yaml --frame log.parquet --model challenger --html report.html
      updraft evaluate mine.yaml --scores scores.parquet --convention sklift --json
    """
    from models.convention_table import require_metrics
    from pipelines.summary import print_judgement
    from serving.judgement import judge_model, judge_scores, read_scores

    if scores is not None and model is not None:
        raise CampaignError("--scores, --model: name one of the two")
    if worth and scores is None:
        raise CampaignError("--worth: says what scores are; name them by --scores")
    require_metrics(convention, metric or ())
    settings = Settings()
    campaign, rows = _rows(open_campaign(file, settings), frame)
    options: dict[str, Any] = {"metrics": metric, "convention": convention, "seed": seed}
    if scores is not None:
        from campaigns.sources import read_file

        given = read_scores(read_file(str(scores)), rows, campaign, str(scores))
        found = judge_scores(given, rows, campaign, name=str(scores), worth=worth, **options)
    else:
        judged, name = open_model(campaign, model, settings)
        found = judge_model(judged, rows, campaign, name=name, **options)
    if html is not None:
        from serving.reporting import write_judgement

        with writing(html):
            write_judgement(found, html)
    if as_json:
        print_json(found.to_dict() | {"html": None if html is None else str(html)})
        return
    out = console()
    print_judgement(found.to_dict(), out)
    if html is not None:
        out.print(f"page: {html}", soft_wrap=True)


def _rows(campaign: Campaign, frame: Path | None) -> tuple[Campaign, pd.DataFrame]:
    """The campaign with its features spelled out, and the decisions to judge on."""
    from campaigns.frame import decision_frame, expand_features
    from campaigns.sources import read_file
    from feature_repo.retrieval import resolved

    if frame is None:
        campaign, rows = resolved(campaign)
        if rows is None:
            raise DataError(f"{campaign.name}: its source is no table; name one by --frame")
        return campaign, rows
    table = read_file(str(frame))
    campaign = expand_features(campaign, table)
    return campaign, decision_frame(table, campaign, str(frame))
