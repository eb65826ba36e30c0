"""Run a pipeline here: KFP's local runner in a child process, its steps attached to one Ray."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from campaigns.errors import (
    CampaignError,
    CheckFailed,
    DataError,
    EnvironmentProblem,
    RemoteError,
    UpdraftError,
)
from campaigns.settings import Settings
from campaigns.spec import Campaign
from components.step import PROGRESS, read_progress
from pipelines.processes import child, python
from pipelines.watching import Watcher, watching

POLL_S = 0.2
KINDS = (CampaignError, DataError, CheckFailed, EnvironmentProblem, RemoteError)

# Where the steps leave what people look at: {name in the run's folder: step/artifact}.
KEPT = {
    "report.html": "compare-with-champion/evaluation_report",
    "drift.html": "detect-drift/drift_report",
    "verdict.json": "compare-with-champion/verdict",
    "drift.json": "detect-drift/drift",
    "trials.parquet": "search-hyperparameters/trials",
    "decision_record.parquet": "sample-exploration/decision_record",
    "power.json": "sample-exploration/power_report",
}


@dataclass(frozen=True)
class Run:
    """A pipeline run that ended well.

    Attributes:
        name: Its name under ``runs/`` in the home.
        folder: Where its artifacts and reports lie.
        seconds: How long it took.
        verdict: What compare_with_champion said; empty where the pipeline has no such step.
        steps: Seconds that each step's own work took.
        url: Where a version was deployed, or None.
    """

    name: str
    folder: Path
    seconds: float
    verdict: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    url: str | None = None


def cycle(
    title: str,
    pipeline: str,
    campaign: Campaign,
    settings: Settings,
    console: Console,
    arguments: Mapping[str, Any],
) -> Run:
    """As :func:`run_pipeline`, shown on the console under a title."""
    with watching(console, title) as watcher:
        return run_pipeline(pipeline, campaign, arguments, settings, watcher)


def run_pipeline(
    pipeline: str,
    campaign: Campaign,
    arguments: Mapping[str, Any],
    settings: Settings,
    watcher: Watcher,
) -> Run:
    """Run a pipeline to its end.

    Args:
        pipeline: Name in :data:`pipelines.catalog.PIPELINES`.
        campaign: The campaign, its source's path absolute.
        arguments: The pipeline's other parameters.
        settings: With ``ray_address`` set.
        watcher: Told of progress.

    Raises:
        UpdraftError: A step failed: its own sentence, of its own kind.
    """
    name = _new_name(pipeline, campaign, settings)
    folder = settings.folder("runs", name)
    values = {"campaign": campaign.model_dump_json(), **arguments}
    (folder / "arguments.json").write_text(json.dumps(values, indent=2))
    log, root = folder / "log.txt", folder / "artifacts"
    environment = settings.model_copy(update={"run": name}).environment()
    command = python("pipelines.local_run", pipeline, str(folder / "arguments.json"), str(root))
    started = time.monotonic()
    with child(command, log=log, environment=environment) as process:
        told = 0
        while True:
            running = process.poll() is None
            events = read_progress(folder / PROGRESS)
            for event in events[told:]:
                watcher.tell(event)
            told = len(events)
            if not running:
                break
            time.sleep(POLL_S)
    if process.returncode != 0:
        raise _failure(events, log)
    seconds = time.monotonic() - started
    _keep(root, folder)
    return _finish(name, folder, seconds, events)


def _new_name(pipeline: str, campaign: Campaign, settings: Settings) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    base = f"{campaign.name}-{stamp}-{pipeline}"
    taken = settings.folder("runs")
    names = (base, *(f"{base}-{number}" for number in range(2, 1000)))
    return next(name for name in names if not (taken / name).exists())


def _failure(events: list[dict[str, Any]], log: Path) -> UpdraftError:
    last: dict[str, dict[str, Any]] = {event["step"]: event for event in events}
    failed = [event for event in last.values() if event["event"] == "failed"]  # retried: not failed
    if not failed:
        return EnvironmentProblem(f"the run ended early (a process was killed?); its log is {log}")
    told = failed[-1]
    for kind in KINDS:
        if kind.exit_code == told["exit_code"]:
            return kind(told["message"])
    return UpdraftError(f"{told['step']}: {told['message']}; the run's log is {log}")


def _keep(root: Path, folder: Path) -> None:
    """Copy what people look at from KFP's tree to the run's folder."""
    for name, place in KEPT.items():
        for found in sorted(root.glob(f"*/{place}")):
            shutil.copyfile(found, folder / name)


def _finish(name: str, folder: Path, seconds: float, events: list[dict[str, Any]]) -> Run:
    verdict = folder / "verdict.json"
    run = Run(
        name=name,
        folder=folder,
        seconds=seconds,
        verdict=json.loads(verdict.read_text()) if verdict.exists() else {},
        steps={e["step"]: e["seconds"] for e in events if e["event"] == "finished"},
        url=next((e["url"] for e in events if e["event"] == "served"), None),
    )
    # Written last: a run without it was killed or failed, and nobody reads it.
    done = {"seconds": seconds, "steps": run.steps}
    (folder / "done.json").write_text(json.dumps(done, indent=2))
    return run
