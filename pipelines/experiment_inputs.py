"""What the commands about experiments work on: files, logs, and the policies that variants name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from campaigns.errors import DataError, UpdraftError
from campaigns.experiment import Experiment, load_experiment
from campaigns.objective import arm_costs
from campaigns.settings import Settings
from campaigns.spec import EVERY, Campaign
from feature_repo.retrieval import resolved
from pipelines.commands.options import open_campaign, open_model
from serving.evaluation import best_arm
from serving.events import EventStore
from serving.experiment import Ready, decided_by
from serving.judgement import require_same_question


def opened(file: Path, variants: Path) -> tuple[Campaign, Experiment]:

    campaign = open_campaign(file, Settings())
    return campaign, load_experiment(variants, campaign)


def spelled(campaign: Campaign) -> Campaign:
    """With ``'*'`` in its features replaced by the log's columns."""

    return resolved(campaign)[0] if EVERY in campaign.features.names else campaign


def logged(campaign: Campaign, what: str) -> tuple[Campaign, pd.DataFrame]:
    """The campaign with features spelled out and its log: its table, else the event store's."""

    campaign, frame = resolved(campaign)
    if frame is None:
        frame = _stored(campaign)
    if not len(frame):
        raise DataError(f"{campaign.name}: nothing is logged yet; {what} goes by the log")
    return campaign, frame


def _stored(campaign: Campaign, since: datetime | None = None) -> pd.DataFrame:
    """Complete decisions of the event store."""

    settings = Settings()
    if settings.event_store is None:
        settings.folder("events")
    store = EventStore(settings.event_store_url)
    try:
        return store.decisions_frame(campaign, now=datetime.now(UTC), since=since)
    finally:
        store.close()


def recorded(campaign: Campaign, experiment: Experiment) -> pd.DataFrame:
    """The experiment's complete decisions in the event store, each with its variant."""
    frame = _stored(campaign, experiment.start)
    made = (
        frame["policy_version"].map(lambda version: decided_by(version, experiment)).astype(object)
    )
    ours = made.notna()
    if not ours.any():
        raise DataError(
            f"{experiment.name}: the event store has no decision of it whose outcomes are complete; "
            "'assign --record' makes them, and outcomes are awaited for attribution.days"
        )
    return frame[ours].assign(variant=made[ours])


def needed(campaign: Campaign, experiment: Experiment) -> tuple[Campaign, pd.DataFrame | None]:
    """The campaign with features spelled out, and its log where a policy goes by it."""
    asked = {variant.policy for variant in experiment.variants.values()}
    if "best_arm" in asked or (campaign.cost_outcome is not None and asked & {"random", "arm"}):
        return logged(campaign, "what an arm is worth or costs")
    return spelled(campaign), None


def policies(
    campaign: Campaign,
    experiment: Experiment,
    path: Path,
    frame: pd.DataFrame | None,
    settings: Settings,
) -> tuple[dict[str, Ready], np.ndarray, dict[str, str]]:
    """What each variant decides with, what arms cost, and what to call each policy."""

    ready: dict[str, Ready] = {}
    names: dict[str, str] = {}
    arms = list(campaign.arm_table.names)
    for name, variant in experiment.variants.items():
        names[name] = variant.policy
        if variant.policy == "model":
            try:
                model, names[name] = open_model(campaign, variant.model, settings)
                require_same_question(model, campaign)
            except UpdraftError as error:
                raise type(error)(f"{path}: variants.{name}.model: {error}") from error
            ready[name] = Ready(model, model.meta.get("version") or variant.model)
        elif variant.arm is not None:
            ready[name] = Ready(arm=arms.index(variant.arm))
            names[name] = f"arm {variant.arm}"
        elif variant.policy == "best_arm" and frame is not None:
            chosen = best_arm(frame, campaign)
            ready[name], names[name] = Ready(arm=chosen), f"best arm: {arms[chosen]}"
        else:
            ready[name] = Ready()
    costs = campaign.arm_table.costs if frame is None else arm_costs(frame, campaign)
    return ready, costs, names
