"""Feast's DuckDB offline store with DuckDB's own ASOF join for the point-in-time join.

Feast joins every decision with every earlier row of its unit and then keeps the last: with a hundred
decisions a unit, a million rows took 88 s and 8.7 GB. The ASOF join finds that last row directly:
4 s in the same run, however often a unit comes back. Everything else, and every request that goes beyond what
campaigns need, is Feast's own.
"""

from __future__ import annotations

from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df

from feature_repo.log import quoted
from feature_repo.names import TIME


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """``offline_store: {type: feature_repo.asof.AsofOfflineStore}`` in feature_store.yaml."""

    type: str = "feature_repo.asof.AsofOfflineStore"


class AsofOfflineStore(DuckDBOfflineStore):
    """Reads what DuckDBOfflineStore reads; answers the same, sooner."""

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        **options: Any,
    ) -> RetrievalJob:
        """The features of one view, as they were known at each row's time (see Feast's docs)."""
        given = isinstance(entity_df, pd.DataFrame | str)
        plain = given and not full_feature_names and not options
        if not (plain and len(feature_views) == 1 and is_plain(feature_views[0])):
            return DuckDBOfflineStore.get_historical_features(
                config,
                feature_views,
                feature_refs,
                entity_df,
                registry,
                project,
                full_feature_names,
                **options,
            )
        return AsofJob(feature_views[0], [ref.split(":", 1)[1] for ref in feature_refs], entity_df)


def is_plain(view: FeatureView) -> bool:
    """Whether the view asks for nothing but the last row known."""
    source = view.batch_source
    return not (view.ttl or source.field_mapping or view.projection.join_key_map) and bool(
        source.created_timestamp_column
    )


class AsofJob(RetrievalJob):
    """One point-in-time join, done when its result is asked for.

    Args:
        view: Whose features.
        features: Their names.
        entities: The rows to join to: a frame, or DuckDB's SQL for one whose time is ``event_timestamp``.
    """

    on_demand_feature_views: list[Any] = []
    full_feature_names = False

    def __init__(
        self, view: FeatureView, features: list[str], entities: pd.DataFrame | str
    ) -> None:
        self.view, self.features, self.entities = view, features, entities
        self.time = TIME
        if isinstance(entities, pd.DataFrame):
            self.time = infer_event_timestamp_from_entity_df(dict(entities.dtypes))

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for, as Feast wants to know it."""
        with duckdb.connect() as connection:
            self.query(connection)
            times = f"SELECT min({quoted(self.time)}), max({quoted(self.time)}) FROM entity"
            first, last = connection.sql(times).fetchone()
            names = connection.table("entity").columns
        return RetrievalMetadata(self.features, [n for n in names if n != self.time], first, last)

    def query(self, connection: duckdb.DuckDBPyConnection) -> str:
        """The join as SQL for this connection, which gets the views ``entity`` and ``log``."""
        if isinstance(self.entities, str):
            connection.execute(f"CREATE TEMP VIEW entity AS {self.entities}")
        else:
            connection.register("entity", pa.Table.from_pandas(self.entities, preserve_index=False))
        connection.read_parquet(self.view.batch_source.path).create_view("log")
        return self._query()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with duckdb.connect() as connection:
            return connection.sql(self.query(connection)).to_arrow_table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def _query(self) -> str:
        source = self.view.batch_source
        keys = [quoted(column.name) for column in self.view.entity_columns]
        time, created = quoted(source.timestamp_field), quoted(source.created_timestamp_column)
        features = ", ".join(f"log.{quoted(name)}" for name in self.features)
        same_unit = " AND ".join(f"entity.{key} = log.{key}" for key in keys)
        return (
            f"SELECT entity.*, {features} FROM entity ASOF LEFT JOIN ("
            f"FROM log QUALIFY row_number() OVER "
            f"(PARTITION BY {', '.join(keys)}, {time} ORDER BY {created} DESC) = 1) AS log "
            f"ON {same_unit} AND entity.{quoted(self.time)} >= log.{time}"
        )
