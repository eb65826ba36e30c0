"""The features of one campaign: logged, joined point-in-time for training, and fresh for decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from campaigns.errors import CampaignError, DataError, EnvironmentProblem
from campaigns.settings import Settings
from campaigns.spec import EVERY, Campaign
from feature_repo.database import DatabaseLog
from feature_repo.layout import (
    CONFIG,
    DEFINITIONS,
    LOG,
    ONLINE_STORE,
    config_text,
    config_values,
    definitions_text,
    holds,
    write_text,
)
from feature_repo.log import FeatureLog, log_schema
from feature_repo.names import CREATED, PUSH_SOURCE, ROW, SERVICE, TIME, UNIT, VIEW, field_names
from feature_repo.online import OnlineState, once_free
from feature_repo.rows import feature_rows, key_columns

if TYPE_CHECKING:
    from feast import FeatureStore

    from feature_repo.redis_store import RedisState

# Units written to the online store in one transaction: other writers wait for well under a second.
WRITE_BATCH = 5_000
READ_BATCH = 200


class FeatureRepository:
    """A Feast repository in a folder of its own, or on servers; safe for several processes at once.

    Args:
        campaign: Its features, with ``'*'`` expanded.
        settings: Say where the folder is, ``<home>/feast/<campaign>``, and which servers hold the
            registry and the log (``feast_database``) and the online store (``feast_online``).
        folder: Another place for it.

    Raises:
        CampaignError: The campaign's features still hold ``'*'``.
    """

    def __init__(self, campaign: Campaign, settings: Settings, folder: Path | None = None) -> None:
        if EVERY in campaign.features.names:
            raise CampaignError(
                f"{campaign.name}: features holds '*'; a feature repository needs their names "
                "(expand_features gives them, from a table)"
            )
        self.campaign, self.settings = campaign, settings
        self.folder = folder.absolute() if folder else settings.folder("feast", campaign.name)
        self.fields = field_names(campaign.features.names)
        numeric = [self.fields[name] for name in campaign.features.numeric]
        categorical = [self.fields[name] for name in campaign.features.categorical]
        schema, database = log_schema(numeric, categorical), settings.feast_database
        self.log: FeatureLog | DatabaseLog = (
            DatabaseLog(database, campaign.name, schema)
            if database
            else FeatureLog(self.folder / LOG, schema)
        )

    def apply(self) -> None:
        """Make the repository that of the campaign as it is now; what was ingested stays.

        Nothing happens where that was done before.
        """
        self.log.prepare()
        with self.log.writing():
            place = self.log.place
            config = config_text(self.campaign, self.settings)
            definitions = definitions_text(self.campaign, place)
            if self._is_applied({CONFIG: config, DEFINITIONS: definitions}):
                return
            from feature_repo.definitions import define

            features = self.campaign.features
            write_text(self.folder / CONFIG, config)
            objects = define(self.campaign.unit, features.numeric, features.categorical, place)
            self._open().apply(list(objects))
            self._state.prepare()
            if isinstance(self.log, DatabaseLog):
                self.log.set_applied(definitions)
            # Last, because it is taken for the sign that all is done.
            write_text(self.folder / DEFINITIONS, definitions)

    def ingest(self, frame: pd.DataFrame) -> int:
        """Append the features that a decision frame saw to the offline log, once.

        Where the frame has other values for a (unit, time) than the log, they count from now on;
        of several rows with one (unit, time) the last counts.

        Args:
            frame: ``unit_id``, ``decided_at`` and the features; other columns are left alone.

        Returns:
            The number of rows that were new.

        Raises:
            DataError: A column is missing or holds something else than its feature should.
        """
        self._require_applied()
        return self.log.append(feature_rows(frame, "decided_at", self.campaign, "decision frame"))

    def training_frame(self, decisions: pd.DataFrame) -> pd.DataFrame:
        """The decisions with their features as they were known at ``decided_at``, never later.

        Args:
            decisions: ``unit_id``, ``decided_at`` and whatever else; features in it are replaced.

        Returns:
            The same rows in the same order under the same index; numeric features float64,
            categorical ones str or None; NaN and None where nothing was known by then.

        Raises:
            DataError: The decisions lack a unit or a time, or the join lost or invented rows.
        """
        keys = key_columns(decisions, "decided_at", "decisions")
        if decisions.empty:
            return self._with_features(decisions, self.log.schema.empty_table())
        entities = pa.table({**keys, ROW: np.arange(len(decisions))}).to_pandas()
        with self.log.reading():
            joined = self._feast.get_historical_features(entities, self._service).to_arrow()
        rows = joined[ROW].to_numpy()
        order = np.argsort(rows)
        if not np.array_equal(rows[order], np.arange(len(decisions))):
            raise DataError(
                f"the point-in-time join gave {len(rows)} rows for {len(decisions)} decisions; each "
                f"must come back once: delete {self.log.place} and ingest again"
            )
        return self._with_features(decisions, joined.take(order))

    def materialize(self, until: datetime | None = None) -> int:
        """Bring the online store to the last features of each unit.

        Without ``until`` only units with rows that are new since the last time are written.

        Args:
            until: Write the features as they were known at that time, for every unit known by then.

        Returns:
            The number of units written.

        Raises:
            DataError: ``until`` has no zone.
        """
        self._require_applied()
        if until is not None and until.tzinfo is None:
            raise DataError(f"materialize: until {until} has no zone; give a UTC time")
        if until is not None:
            self._state.set_mark(None)  # first: half of it done, the next one must start over too
            return self._load_online(until, None, self._state.writing)[0]
        written, count = 0, WRITE_BATCH
        while count >= WRITE_BATCH:
            count = self._catch_up(self._state.writing)
            written += count
        # What was pushed after the log was read may lie under older rows now. Once more, for these few,
        # while nobody can push between reading and writing.
        with self._state.writing():
            written += self._catch_up(nullcontext)
        return written

    def online(self, unit_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """The features of units as they are now.

        Args:
            unit_ids: N units; one may come twice.

        Returns:
            Each feature's values [N]: float64 with NaN, or object with None, where a feature or the
            whole unit isn't known.
        """
        answer = self._read_online([str(unit) for unit in unit_ids])
        features = self.campaign.features
        values = {name: answer[self.fields[name]] for name in features.names}
        return {name: np.array(values[name], dtype=np.float64) for name in features.numeric} | {
            name: _words(values[name]) for name in features.categorical
        }

    def push(self, frame: pd.DataFrame) -> int:
        """Make fresh features count at once: in the offline log, and online through the push source.

        Feast's DuckDB store would rewrite its one file in place to append offline, so that half goes
        through the log as :meth:`ingest` does. Rows that are older than what is online stay offline.

        Args:
            frame: ``unit_id``, ``event_timestamp`` (when they held) and every feature.

        Returns:
            The number of units whose online features changed.

        Raises:
            DataError: As :meth:`ingest`, or no row has any feature.
        """
        from feast.data_source import PushMode

        feast = self._feast
        rows = feature_rows(frame, TIME, self.campaign, "push")
        fields = list(self.fields.values())
        if rows.num_rows and all(rows[name].null_count == rows.num_rows for name in fields):
            raise DataError(
                "push: every feature of every row is missing; push what is known of a unit"
            )
        self.log.append(rows)
        fresh = rows.to_pandas().sort_values(TIME, kind="stable").drop_duplicates(UNIT, keep="last")
        with self._state.writing():
            fresh = fresh[self._not_older(fresh)].reset_index(drop=True)
            if not fresh.empty:
                fresh[CREATED] = pd.Timestamp.now(tz="UTC").as_unit("us")
                once_free(partial(feast.push, PUSH_SOURCE, fresh, to=PushMode.ONLINE))
        return len(fresh)

    def _catch_up(self, alone: Callable[[], AbstractContextManager[None]]) -> int:
        """Write the units with rows that are newer than the mark, and move it; returns how many."""
        count, newest = self._load_online(None, self._state.mark(), alone)
        self._state.set_mark(newest)
        return count

    def _load_online(
        self,
        until: datetime | None,
        created_after: datetime | None,
        alone: Callable[[], AbstractContextManager[None]],
    ) -> tuple[int, datetime | None]:
        """Write the log's latest rows; returns how many, and when the log's newest was created."""
        latest, newest = self.log.latest(until, created_after)
        for start in range(0, latest.num_rows, WRITE_BATCH):
            rows = latest.slice(start, WRITE_BATCH).to_pandas()
            with alone():
                once_free(partial(self._feast.provider.ingest_df, self._view, rows))
        return latest.num_rows, newest

    def _not_older(self, fresh: pd.DataFrame) -> np.ndarray:
        """Whether each row is at least as new as its unit's online features (to Feast's second)."""
        stored = self._read_online(fresh[UNIT].tolist(), times=True)
        known = np.max([stored[f"{name}__ts"] for name in self.fields.values()], axis=0)
        return fresh[TIME].dt.as_unit("s").astype("int64").to_numpy() >= known

    def _read_online(self, units: list[str], *, times: bool = False) -> dict[str, list[Any]]:
        names = list(self.fields.values())
        names += [f"{name}__ts" for name in names] if times else []
        found: dict[str, list[Any]] = {name: [] for name in names}
        for start in range(0, len(units), READ_BATCH):
            rows = {UNIT: units[start : start + READ_BATCH]}
            with self._state.explained():
                answer = self._feast.get_online_features(self._service, rows).to_dict(times)
            for name in names:
                found[name] += answer[name]
        return found

    def _with_features(self, decisions: pd.DataFrame, joined: pa.Table) -> pd.DataFrame:
        """The decisions' own columns, then the features, then the outcomes, as in a decision frame."""
        campaign = self.campaign
        own = [name for name in decisions.columns if name not in self.fields]
        columns = {name: decisions[name] for name in own if name not in campaign.outcomes}
        for name, field in self.fields.items():
            values = joined[field].to_pandas().to_numpy()
            columns[name] = pd.Series(values, index=decisions.index)
        columns |= {name: decisions[name] for name in own if name in campaign.outcomes}
        return pd.DataFrame(columns, index=decisions.index)

    def _is_applied(self, texts: dict[str, str]) -> bool:
        return holds(self.folder, texts, self.settings) and (
            not isinstance(self.log, DatabaseLog) or self.log.applied() == texts[DEFINITIONS]
        )

    def _require_applied(self) -> None:
        if (self.folder / DEFINITIONS).exists():
            return
        # Where all is on servers, another machine may have applied it.
        known = isinstance(self.log, DatabaseLog) and self.log.applied()
        if not (known and self.settings.feast_online):
            raise EnvironmentProblem(
                f"{self.folder}: no feature repository is here yet; call apply() first"
            )

    @cached_property
    def _state(self) -> OnlineState | RedisState:
        if self.settings.feast_online is None:
            return OnlineState(self.folder / ONLINE_STORE)
        from feature_repo.redis_store import RedisState

        return RedisState(self.settings.feast_online, self.campaign.name)

    def _open(self) -> FeatureStore:
        from feast import FeatureStore, RepoConfig

        config = RepoConfig(**config_values(self.campaign, self.settings))
        config.repo_path = self.folder
        return FeatureStore(repo_path=str(self.folder), config=config)

    @cached_property
    def _feast(self) -> FeatureStore:
        self._require_applied()
        return self._open()

    @cached_property
    def _service(self) -> Any:
        return self._feast.get_feature_service(SERVICE)

    @cached_property
    def _view(self) -> Any:
        return self._feast.get_feature_view(VIEW)


def _words(values: list[Any]) -> np.ndarray:
    words = np.empty(len(values), dtype=object)
    words[:] = values
    return words
