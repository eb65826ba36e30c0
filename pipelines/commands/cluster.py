"""Commands that talk to Kubeflow Pipelines: compile, submit, schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from campaigns.errors import CampaignError, choices
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from pipelines.commands.options import File, Json, print_json

Name = Annotated[str, typer.Option("--pipeline", help="retrain, monitor or explore.")]
Platform = Annotated[
    Path | None,
    typer.Option("--platform", help="What the cluster gives the steps, YAML (UPDRAFT_PLATFORM)."),
]
Endpoint = Annotated[str | None, typer.Option(help="URL of the KFP API (UPDRAFT_KFP_ENDPOINT).")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("compile")(compile_)
    app.command("submit")(submit)
    app.command("schedule")(schedule)


def compile_(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("build/pipelines"),
    campaign: Annotated[
        Path | None, typer.Option(help="A campaign file to prefill the run form with.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Image of the steps (UPDRAFT_IMAGE).")] = None,
    platform: Platform = None,
) -> None:
    """Write the three pipelines as KFP YAML, to upload or to review.

    \b
    Example:
      updraft compile --campaign campaigns/game_bonus.yaml --image ghcr.io/me/updraft:0.1.0
      updraft compile --platform infra/train/steps.yaml
    """
    from pipelines.compiling import compile_pipelines
    from pipelines.platform import read_platform

    settings = Settings()
    spec = load_campaign(campaign) if campaign else None
    file = platform or settings.platform
    paths = compile_pipelines(
        out,
        image=image or settings.image,
        campaign=spec,
        platform=read_platform(file) if file else None,
    )
    for path in paths:
        typer.echo(str(path))


def submit(
    file: File,
    pipeline: Name = "retrain",
    endpoint: Endpoint = None,
    platform: Platform = None,
    experiment: Annotated[str, typer.Option(help="KFP experiment.")] = "updraft",
    as_json: Json = False,
) -> None:
    """Run a pipeline on Kubeflow.

    \b
    Example:
      updraft submit mine.yaml --endpoint https://kubeflow.example.com/pipeline
    """
    from pipelines import kubeflow

    settings = _settings(endpoint, platform)
    arguments = {"campaign": load_campaign(file).model_dump_json()}
    run = kubeflow.submit(_known(pipeline), arguments, settings, experiment=experiment)
    print_json(run) if as_json else typer.echo(f"run {run['run_id']}: {run['url']}")


def schedule(
    file: File,
    cron: Annotated[str, typer.Option(help="Six fields, seconds first: '0 0 3 * * *' is 3:00.")],
    pipeline: Name = "retrain",
    endpoint: Endpoint = None,
    platform: Platform = None,
    name: Annotated[str | None, typer.Option(help="The schedule's name.")] = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline again and again on Kubeflow, at most one at a time.

    \b
    Example:
      updraft schedule mine.yaml --cron '0 0 3 * * *'                 retrain at three every night
      updraft schedule mine.yaml --pipeline monitor --cron '0 0 * * * *'    look for drift every hour
    """
    from pipelines import kubeflow

    settings = _settings(endpoint, platform)
    campaign = load_campaign(file)
    made = kubeflow.schedule(
        _known(pipeline),
        {"campaign": campaign.model_dump_json()},
        cron,
        settings,
        name=name or f"{campaign.name}-{pipeline}",
    )
    print_json(made) if as_json else typer.echo(f"schedule {made['schedule_id']}: {made['url']}")


def _settings(endpoint: str | None, platform: Path | None) -> Settings:
    given = {"kfp_endpoint": endpoint, "platform": platform}
    return Settings().model_copy(update={name: value for name, value in given.items() if value})


def _known(pipeline: str) -> str:
    from pipelines.catalog import PIPELINES

    if pipeline not in PIPELINES:
        raise CampaignError(f"--pipeline: {pipeline!r} is none; choose from {choices(PIPELINES)}")
    return pipeline
