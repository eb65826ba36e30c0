"""From a campaign to its training frame: the table, what was decided since, and the features of then."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from campaigns.errors import DataError
from campaigns.frame import UTC_MICROSECONDS, decision_frame, expand_features
from campaigns.settings import Settings
from campaigns.sources import read_table, source_name
from campaigns.spec import Campaign, EventsSource


def resolved(campaign: Campaign) -> tuple[Campaign, pd.DataFrame | None]:
    """The campaign with ``'*'`` features spelled out, and its table as a decision frame.

    An ``events`` source has no table (None).

    Raises:
        DataError: Everything that is wrong with the table, one line each.
    """
    if isinstance(campaign.source, EventsSource):
        return campaign, None
    table = read_table(campaign)
    campaign = expand_features(campaign, table)
    return campaign, decision_frame(table, campaign, source_name(campaign))


def retrieve(
    campaign: Campaign,
    logged: pd.DataFrame | None,
    frame: pd.DataFrame | None,
    settings: Settings,
    *,
    say: Callable[[str], None] = lambda message: None,
) -> pd.DataFrame:
    """The training frame: decisions in the order of time, features joined point-in-time by Feast.

    Args:
        campaign: With features spelled out.
        logged: Decisions that Updraft made itself, as a decision frame.
        frame: The campaign's own table, as a decision frame.
        settings: Where the feature repository lies.
        say: Told what happens.

    Raises:
        DataError: There is no decision at all.
    """
    from feature_repo.store import FeatureRepository

    parts = [part for part in (frame, logged) if part is not None and len(part)]
    if not parts:
        raise DataError(
            f"{campaign.name}: no decision with complete outcomes is logged yet; "
            "serve some decisions first, or give the campaign a table as its source"
        )
    decisions = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    decisions = decisions.sort_values("decided_at", kind="stable", ignore_index=True)
    repository = FeatureRepository(campaign, settings)
    say("applying the feature repository")
    repository.apply()
    repository.ingest(decisions)
    say(f"joining features of {len(decisions):,} decisions")
    joined = repository.training_frame(decisions)
    say("loading the online store")
    repository.materialize()
    return joined


def latest_units(campaign: Campaign, settings: Settings) -> pd.DataFrame:
    """Every unit that the campaign has seen, with its features as they are known now.

    Args:
        campaign: With features spelled out.
        settings: Where the feature repository lies.

    Returns:
        ``unit_id`` and the features, one row a unit.
    """
    from feature_repo.names import UNIT
    from feature_repo.store import FeatureRepository

    repository = FeatureRepository(campaign, settings)
    units = repository.log.latest()[0][UNIT].to_pylist()
    now = pd.Series(pd.Timestamp.now(tz="UTC"), index=range(len(units)), dtype=UTC_MICROSECONDS)
    asked = pd.DataFrame({"unit_id": pd.Series(units, dtype=object), "decided_at": now})
    return repository.training_frame(asked).drop(columns="decided_at")
