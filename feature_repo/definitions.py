"""A campaign's features as Feast objects (importing Feast takes seconds: import this late)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, String

from feature_repo.names import (
    CREATED,
    ENTITY,
    LOG_SOURCE,
    PUSH_SOURCE,
    SERVICE,
    TIME,
    UNIT,
    VIEW,
    field_names,
)


def define(
    unit: str, numeric: Sequence[str], categorical: Sequence[str], log: Path | str
) -> tuple[Any, ...]:
    """The Feast objects: entity, offline log, push source, feature view and feature service.

    Args:
        unit: What the campaign calls its unit; the join key is always ``unit_id``.
        numeric: Features that are numbers (Float64).
        categorical: Features that are words (String).
        log: The offline log: a folder of Parquet, or a table of PostgreSQL (str).
    """
    fields = field_names([*numeric, *categorical])
    entity = Entity(
        name=ENTITY, join_keys=[UNIT], value_type=ValueType.STRING, description=f"One {unit}."
    )
    times = {"timestamp_field": TIME, "created_timestamp_column": CREATED}
    source = (
        PostgreSQLSource(name=LOG_SOURCE, table=log, **times)
        if isinstance(log, str)
        else FileSource(name=LOG_SOURCE, path=str(log), file_format=ParquetFormat(), **times)
    )
    fresh = PushSource(name=PUSH_SOURCE, batch_source=source)
    view = FeatureView(
        name=VIEW,
        entities=[entity],
        ttl=timedelta(0),  # the last value known counts, however old it is
        schema=[
            Field(name=UNIT, dtype=String),
            *(Field(name=fields[name], dtype=Float64, tags={"column": name}) for name in numeric),
            *(
                Field(name=fields[name], dtype=String, tags={"column": name})
                for name in categorical
            ),
        ],
        source=fresh,
    )
    service = FeatureService(name=SERVICE, features=[view], tags={"unit": unit})
    return entity, source, fresh, view, service
