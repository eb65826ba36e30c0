"""From a campaign to its training frame: the table, what was decided since, and the features of then."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from campaigns.errors import DataError
from campaigns.frame import (
    UTC_MICROSECONDS,
    arm_shares,
    decision_frame,
    decision_frames,
    expand_features,
)
from campaigns.frame_file import FrameFile
from campaigns.settings import Settings
from campaigns.sources import Log, read_table, source_name
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


def spelled_out(campaign: Campaign) -> tuple[Campaign, Log]:
    """The campaign with ``'*'`` features spelled out, and its log as the user has it."""
    log = Log(campaign)
    return expand_features(campaign, log.head), log


def retrieve(
    campaign: Campaign,
    logged: pd.DataFrame | None,
    log: Log | None,
    settings: Settings,
    target: Path,
    *,
    say: Callable[[str], None] = lambda message: None,
) -> int:
    """Write the training frame: decisions in the order of time, features joined point-in-time by Feast.

    Files of any size: a piece of the decisions is in memory at a time.

    Args:
        campaign: With features spelled out.
        logged: Decisions that Updraft made itself, as a decision frame.
        log: The campaign's own.
        settings: Where the feature repository lies.
        target: The frame's file (Parquet).
        say: Told what happens.

    Returns:
        The number of decisions.

    Raises:
        DataError: Everything that is wrong with the log, one line each; or there is no decision at all.
    """
    from feature_repo.bulk import in_order_of_time, join_features, pieces_of, spool
    from feature_repo.store import FeatureRepository

    repository = FeatureRepository(campaign, settings)
    with TemporaryDirectory(dir=settings.folder("feast"), prefix=".work-") as work:
        spooled, decisions = Path(work) / "spooled", Path(work) / "decisions.parquet"
        spooled.mkdir()
        rows = 0
        if not isinstance(campaign.source, EventsSource) and log is not None:
            rows = _spool_log(campaign, log, spooled, Path(work))
        if logged is not None and len(logged):
            rows += spool([logged], campaign, spooled)
        if not rows:
            raise DataError(
                f"{campaign.name}: no decision with complete outcomes is logged yet; "
                "serve some decisions first, or give the campaign a table as its source"
            )
        in_order_of_time(spooled, decisions, Path(work))
        shutil.rmtree(spooled)
        say("applying the feature repository")
        repository.apply()
        for piece in pieces_of(decisions):
            repository.ingest(piece)
        say(f"joining features of {rows:,} decisions")
        join_features(repository, decisions, target, Path(work))
    return rows


@contextmanager
def logged_decisions(campaign: Campaign, log: Log) -> Iterator[FrameFile]:
    """The campaign's own log as decisions, in files that go again with the block.

    Args:
        campaign: With features spelled out; its source is a table.
        log: A table of any size: a piece of it is in memory at a time.

    Raises:
        DataError: Everything that is wrong with the log, one line each.
    """
    with TemporaryDirectory(prefix="updraft-") as work:
        spooled = Path(work) / "decisions"
        spooled.mkdir()
        _spool_log(campaign, log, spooled, Path(work))
        yield FrameFile(spooled, campaign)


def load_online(
    campaign: Campaign, settings: Settings, say: Callable[[str], None] = lambda message: None
) -> int:
    """Bring the online store to what is new in the log; returns the number of units."""
    from feature_repo.store import FeatureRepository

    say("loading the online store")
    return FeatureRepository(campaign, settings).materialize()


def _spool_log(campaign: Campaign, log: Log, folder: Path, work: Path) -> int:
    """Write the log's decisions into a folder; returns how many."""
    from feature_repo.bulk import check_ids, spool

    rows = spool(_decisions(campaign, log), campaign, folder)
    if "decision_id" in log.head:
        check_ids(folder, work, source_name(campaign))
    return rows


def _decisions(campaign: Campaign, log: Log) -> Iterator[pd.DataFrame]:
    """The log as decision frames."""
    shares = None
    if campaign.propensity == "estimate":
        factors = [factor.column for factor in campaign.treatments.values()]
        if set(factors) <= set(log.head.columns):
            shares = arm_shares(log.pieces(factors), campaign)
    return decision_frames(log.pieces(), campaign, source_name(campaign), shares)


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
