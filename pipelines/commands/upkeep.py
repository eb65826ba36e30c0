"""Commands around the work: ui, clean, models."""

from __future__ import annotations

import shutil
import sys
import time
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

from campaigns.errors import EnvironmentProblem
from campaigns.settings import Settings
from pipelines.commands.options import Json, console, print_json


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("ui")(ui)
    app.command("models")(models)
    app.command("clean")(clean)


def ui(
    seconds: Annotated[
        float | None, typer.Option(help="End after so long; default: at Ctrl-C.")
    ] = None,
) -> None:
    """Start MLflow and Evidently on what this home holds, and print their links.

    \b
    Example:
      updraft ui
    """
    from pipelines.processes import child, free_port, python

    settings = Settings()
    mlflow_port, evidently_port = free_port(), free_port()
    store = settings.mlflow_uri
    settings.folder("mlflow")
    workspace = settings.folder("evidently")
    logs = settings.folder("logs")
    out = console()
    mlflow = python("mlflow", "server", "--backend-store-uri", store, "--workers", "1")
    mlflow += ["--host", "127.0.0.1", "--port", str(mlflow_port)]
    mlflow += ["--artifacts-destination", str(settings.folder("mlflow", "artifacts"))]
    script = Path(sys.executable).with_name("evidently")  # it has no __main__
    evidently = [str(script), "ui", "--workspace", str(workspace)]
    evidently += ["--host", "127.0.0.1", "--port", str(evidently_port)]
    with (
        child(mlflow, log=logs / "mlflow.log", environment=settings.environment()) as first,
        child(evidently, log=logs / "evidently.log", environment=settings.environment()) as second,
    ):
        for name, port, process in (
            ("MLflow", mlflow_port, first),
            ("Evidently", evidently_port, second),
        ):
            url = f"http://127.0.0.1:{port}"
            _await(name, url, process, logs / f"{name.lower()}.log")
            out.print(f"{name}: {url}")
        reports = sorted(settings.folder("runs").glob("*/report.html"))
        if reports:
            out.print(f"newest report: {reports[-1]}")
        out.print("Ctrl-C ends both")
        deadline = time.monotonic() + seconds if seconds else float("inf")
        while time.monotonic() < deadline and first.poll() is None and second.poll() is None:
            time.sleep(0.2)


def _await(name: str, url: str, process: object, log: object, patience: float = 120.0) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:  # type: ignore[attr-defined]
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise EnvironmentProblem(f"{name} didn't start; its log is {log}")


def models(as_json: Json = False) -> None:
    """List the models, and what each can serve.

    \b
    Example:
      updraft models
    """
    from dataclasses import asdict

    from models.catalog import catalog

    entries = catalog()
    if as_json:
        print_json({name: {"paper": e.paper, **asdict(e.supports)} for name, e in entries.items()})
        return
    out = console()
    for name, entry in sorted(entries.items()):
        can = entry.supports
        several = [trait for trait in ("arms", "factors", "outcomes") if getattr(can, trait)]
        says = [f"several {', '.join(several)}"] if several else []
        says += [trait for trait in ("dose", "sequence", "cost") if getattr(can, trait)]
        says += [f"needs {trait}" for trait in can.needs]
        out.print(f"[bold]{name}[/bold]: {'; '.join(says)}")
        out.print(f"  {entry.paper}")


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Empty UPDRAFT_HOME: runs, models, features, logged decisions and datasets.

    \b
    Example:
      updraft clean --yes
    """
    settings = Settings()
    if not settings.root.exists():
        typer.echo(f"{settings.root}: nothing there")
        return
    _only_ours(settings)
    if not yes:
        typer.confirm(f"empty {settings.root}, with all models and decisions?", abort=True)
    for path in settings.root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    typer.echo(f"{settings.root}: emptied")


# What Updraft keeps in its home; a folder with anything else in it isn't emptied.
OURS = frozenset("data events evidently exchange feast locks logs mlflow ray runs secrets".split())


def _only_ours(settings: Settings) -> None:
    from pipelines.lock import campaign_lock
    from pipelines.ray_runtime import living

    strange = sorted(path.name for path in settings.root.iterdir() if path.name not in OURS)
    if strange:
        raise EnvironmentProblem(
            f"{settings.root}: holds {strange[0]!r}, which Updraft didn't put there; "
            "nothing was removed: look whether UPDRAFT_HOME is right, or remove that first"
        )
    if living(settings):
        raise EnvironmentProblem(
            f"{settings.root}: 'updraft serve' runs on it; end that first, nothing was removed"
        )
    for lock in (settings.root / "locks").glob("*.lock"):
        with campaign_lock(lock.stem, "clean", settings):
            pass
