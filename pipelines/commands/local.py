"""Commands that run the loop on this machine: demo, run, monitor, explore, serve, status, rollback."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from campaigns.errors import CampaignError
from campaigns.settings import Settings
from pipelines.commands.options import (
    File,
    Json,
    Port,
    Seed,
    Workers,
    console,
    open_campaign,
    print_json,
)

GAME_BONUS = Path(__file__).resolve().parents[2] / "campaigns" / "game_bonus.yaml"

Name = Annotated[str, typer.Argument(metavar="NAME", help="A campaign's name.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (demo, run, monitor, explore, serve, status, rollback):
        app.command(command.__name__)(command)


def demo(
    campaign: Annotated[
        Path, typer.Option(help="A simulated campaign; default: game_bonus.")
    ] = GAME_BONUS,
    decisions: Annotated[int, typer.Option(min=1, help="Decisions to ask for over HTTP.")] = 2000,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run the whole loop twice on a simulated game, and print what it earned.

    Simulates a log, retrieves features, checks, searches, trains, evaluates, promotes, serves 2,000
    decisions over HTTP, takes their outcomes back, and goes round again.

    \b
    Example:
      updraft demo
      updraft demo --json > result.json
    """
    from pipelines.demo import demo as run_demo

    settings = Settings()
    spec = open_campaign(campaign, settings)
    result = run_demo(
        spec, campaign, settings, console(quiet=as_json), decisions=decisions, seed=seed
    )
    if as_json:
        print_json(result)


def run(
    file: File,
    seed: Seed = 0,
    workers: Workers = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Train on GPUs (UPDRAFT_GPU).")] = False,
    no_deploy: Annotated[bool, typer.Option("--no-deploy", help="Promote, don't serve.")] = False,
    as_json: Json = False,
) -> None:
    """Run the retrain pipeline: from the table to a champion, and the next trial.

    \b
    Example:
      updraft run campaigns/game_bonus.yaml
      updraft run mine.yaml --workers 2 --json
    """
    settings = Settings()
    arguments = {
        "seed": seed,
        "workers": workers or settings.workers,
        "gpu": gpu or settings.gpu,
        "deploy": not no_deploy,
    }
    _run("retrain", file, arguments, settings, as_json)


def monitor(file: File, seed: Seed = 0, as_json: Json = False) -> None:
    """Look for drift in what came in, and retrain where there is some.

    \b
    Example:
      updraft monitor mine.yaml
    """
    _run("monitor", file, {"seed": seed}, Settings(), as_json)


def explore(
    file: File,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the exploration budget that is left.")
    ] = 0.5,
    stratify_by: Annotated[str, typer.Option(help="A categorical feature to balance in.")] = "",
    as_json: Json = False,
) -> None:
    """Draw the next randomized trial inside the exploration budget.

    \b
    Example:
      updraft explore mine.yaml --share 0.5 --stratify-by region
    """
    arguments = {"trial_share": share, "stratify_by": stratify_by}
    _run("explore", file, arguments, Settings(), as_json)


def _run(
    pipeline: str, file: Path, arguments: dict[str, Any], settings: Settings, as_json: bool
) -> None:
    from pipelines.lock import campaign_lock
    from pipelines.ray_runtime import ray_runtime
    from pipelines.runner import cycle
    from pipelines.summary import print_places, print_verdict
    from pipelines.watching import phase

    campaign = open_campaign(file, settings)
    out = console(quiet=as_json)
    with ExitStack() as stack:
        stack.enter_context(campaign_lock(campaign.name, f"updraft {pipeline}", settings))
        if pipeline != "explore":
            with phase(out, "Starting Ray", "ray"):
                settings = stack.enter_context(ray_runtime(settings))
        done = cycle(f"{pipeline}: {campaign.name}", pipeline, campaign, settings, out, arguments)
    if as_json:
        print_json(
            {
                "run": done.name,
                "folder": done.folder,
                "seconds": done.seconds,
                "verdict": done.verdict,
            }
        )
        return
    if done.verdict:
        print_verdict(done.verdict, out)
    next_steps = [f"updraft serve {campaign.name}", "updraft ui", f"updraft status {campaign.name}"]
    print_places(done.folder, out, next_steps)


def serve(
    name: Name,
    port: Port = None,
    seconds: Annotated[
        float | None, typer.Option(help="End after so long; default: at Ctrl-C.")
    ] = None,
) -> None:
    """Serve a campaign's champion over HTTP until Ctrl-C; a run that promotes swaps it in place.

    \b
    Example:
      updraft serve game_bonus --port 8000
      curl -H "Authorization: Bearer $(cat .updraft/secrets/token)" -d '{"units": [{"unit_id": "p7-1"}]}' \\
           http://127.0.0.1:8000/v1/campaigns/game_bonus/decisions
    """
    from models.ray_session import attach
    from models.registry import Registry
    from pipelines.ray_runtime import ray_runtime
    from pipelines.watching import phase
    from serving.deploy import deploy

    settings = Settings()
    version = Registry(settings).version_of(name, "champion")
    if version is None:
        raise CampaignError(f"{name}: has no champion; 'updraft run' trains and promotes one")
    out = console()
    with ExitStack() as stack:
        with phase(out, f"Serving {name}, version {version}", "serve") as say:
            say("starting Ray", None)
            settings = stack.enter_context(ray_runtime(settings, serving=True))
            attach(settings)
            say("starting the replicas", None)
            url = deploy(settings, {name: version}, port=port)
        out.print(f"decisions: POST {url}/v1/campaigns/{name}/decisions")
        out.print(f"outcomes:  POST {url}/v1/outcomes")
        out.print(f"docs:      {url}/docs")
        out.print(f"token:     {settings.root / 'secrets' / 'token'}")
        out.print("Ctrl-C ends it")
        deadline = time.monotonic() + seconds if seconds else float("inf")
        while time.monotonic() < deadline:
            time.sleep(0.2)


def status(name: Name, as_json: Json = False) -> None:
    """Show a campaign's versions, who decides, and what was spent and explored.

    \b
    Example:
      updraft status game_bonus
    """
    from dataclasses import asdict

    from models.registry import Registry
    from serving.events import EventStore

    settings = Settings()
    versions = Registry(settings).describe(name)
    periods = EventStore(settings.event_store_url).summary(name)
    if not versions and not periods:
        raise CampaignError(f"{name}: nothing is known of it; 'updraft run' starts it")
    if as_json:
        print_json({"versions": versions, "periods": [asdict(period) for period in periods]})
        return
    out = console()
    for version in versions:
        aliases = ", ".join(version["aliases"]) or "-"
        out.print(
            f"version {version['version']}: {aliases}, {version['net']}, {version['created_at']}"
        )
    for period in periods[-5:]:
        out.print(
            f"{period.period}: {period.decisions:,} decisions, {period.explored:,} explored, "
            f"{period.holdout:,} held out, spend {period.spend:,.2f}"
        )


def rollback(name: Name) -> None:
    """Make the previous champion decide again, in one step.

    \b
    Example:
      updraft rollback game_bonus
    """
    from models.ray_session import attach
    from models.registry import Registry
    from pipelines.ray_runtime import living
    from serving.deploy import deploy, served

    settings = Settings()
    address = settings.ray_address or living(settings)
    if address:  # attach first: the alias must not move if the service can't follow
        settings = settings.model_copy(update={"ray_address": address})
        attach(settings)
    version = Registry(settings).rollback(name)
    if address and name in served():
        deploy(settings, {name: version})
    typer.echo(f"{name}: version {version} decides again")
