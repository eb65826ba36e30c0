"""The command that looks for what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from campaigns.errors import EnvironmentProblem, RemoteError
from campaigns.settings import Settings
from pipelines.commands.options import Json, console, print_json

STYLES = {"ok": "green", "warning": "yellow", "miss": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at the cluster of the kube context as well.")
    ] = False,
    platform: Annotated[
        Path | None,
        typer.Option("--platform", help="What the cluster gives the steps (UPDRAFT_PLATFORM)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine, and with --cluster a cluster; each miss comes with what mends it.

    A miss on this machine ends with exit code 5, one in the cluster with 6; warnings end with 0.

    \b
    Example:
      updraft doctor
      updraft doctor --cluster --platform infra/train/steps.yaml
    """
    from dataclasses import asdict

    from rich.table import Table
    from rich.text import Text

    from pipelines.doctor import examine

    settings = Settings()
    if platform:
        settings = settings.model_copy(update={"platform": platform})
    here, there = examine(settings), []
    if cluster:
        from pipelines.doctor_cluster import examine_cluster

        there = examine_cluster(settings)
    if as_json:
        print_json([asdict(finding) for finding in (*here, *there)])
    else:
        table = Table("check", "result", "seen", "what to do", box=None, pad_edge=False)
        for finding in (*here, *there):
            result = Text(finding.result, style=STYLES[finding.result])
            table.add_row(Text(finding.check), result, Text(finding.seen), Text(finding.fix))
        console().print(table)
    for findings, kind, where in (
        (here, EnvironmentProblem, "this machine"),
        (there, RemoteError, "the cluster"),
    ):
        misses = [finding.check for finding in findings if finding.result == "miss"]
        if misses:
            raise kind(f"{where} lacks {', '.join(dict.fromkeys(misses))}")
