"""Feast's PostgreSQL offline store, named by a URL, with a lateral point-in-time join.

Feast joins every decision with every earlier row of its unit and then ranks them. Here each decision
takes its row from the log's index. What goes beyond campaigns' requests is Feast's own.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.feature_view import FeatureView
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStore,
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.types import String
from pydantic import model_validator
from sqlalchemy import make_url

from feature_repo.asof import is_plain
from feature_repo.database import connected, download, upload
from feature_repo.log import quoted
from feature_repo.names import ROW


class LateralOfflineStoreConfig(PostgreSQLOfflineStoreConfig):
    """``offline_store: {type: feature_repo.lateral.LateralOfflineStore, url: postgresql://...}``."""

    type: str = "feature_repo.lateral.LateralOfflineStore"
    url: str

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, values: Any) -> Any:
        """What the URL says, as Feast's own store wants to know it."""
        url = make_url(values["url"])
        told = {
            "host": url.host or "",
            "port": url.port or 5432,
            "database": url.database or "",
            "user": url.username or "",
            "password": str(url.password or ""),
            "sslmode": url.query.get("sslmode"),
        }
        return {**told, **values}


class LateralOfflineStore(PostgreSQLOfflineStore):
    """Reads what PostgreSQLOfflineStore reads; answers the same, sooner."""

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
        plain = isinstance(entity_df, pd.DataFrame) and not full_feature_names and not options
        ours = plain and len(feature_views) == 1 and is_plain(feature_views[0])
        if not (ours and ROW in entity_df):
            return PostgreSQLOfflineStore.get_historical_features(
                config, feature_views, feature_refs, entity_df, registry, project,
                full_feature_names, **options,
            )  # fmt: skip
        features = [ref.split(":", 1)[1] for ref in feature_refs]
        return LateralJob(feature_views[0], features, entity_df, config.offline_store.url)


class LateralJob(RetrievalJob):
    """One point-in-time join, done when its result is asked for."""

    on_demand_feature_views: list[Any] = []
    full_feature_names = False

    def __init__(
        self, view: FeatureView, features: list[str], entities: pd.DataFrame, url: str
    ) -> None:
        self.view, self.features, self.entities, self.url = view, features, entities, url
        self.time = infer_event_timestamp_from_entity_df(dict(entities.dtypes))

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for, as Feast wants to know it."""
        times = self.entities[self.time]
        keys = [name for name in self.entities.columns if name != self.time]
        return RetrievalMetadata(self.features, keys, times.min(), times.max())

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        entities = pa.Table.from_pandas(self.entities, preserve_index=False)
        words = {column.name for column in self.view.features if column.dtype == String}
        fields = [
            pa.field(name, pa.string() if name in words else pa.float64()) for name in self.features
        ]
        with connected(self.url) as connection, connection.cursor() as cursor:
            upload(cursor, entities, "entity")
            found = download(
                cursor, self._query(), None, pa.schema([entities.schema.field(ROW), *fields])
            )
        order = pc.index_in(entities[ROW], found[ROW])
        for name in self.features:
            entities = entities.append_column(name, found[name].take(order))
        return entities

    def _query(self) -> str:
        source = self.view.batch_source
        time, created = quoted(source.timestamp_field), quoted(source.created_timestamp_column)
        names = ", ".join(map(quoted, self.features))
        keys = [quoted(column.name) for column in self.view.entity_columns]
        same_unit = " AND ".join(f"log.{key} = entity.{key}" for key in keys)
        return (
            f"SELECT entity.{ROW}, known.* FROM entity LEFT JOIN LATERAL (SELECT {names} "
            f"FROM {source.get_table_query_string()} AS log WHERE {same_unit} "
            f"AND log.{time} <= entity.{quoted(self.time)} "
            f"ORDER BY log.{time} DESC, log.{created} DESC LIMIT 1) AS known ON true"
        )
