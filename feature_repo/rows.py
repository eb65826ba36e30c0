"""From frames of features to rows of the log, with every value checked on the way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from campaigns.errors import DataError, choices
from campaigns.frame import unit_ids, words
from campaigns.spec import Campaign
from feature_repo.log import TIMESTAMP
from feature_repo.names import TIME, UNIT, field_names


def key_columns(frame: pd.DataFrame, time: str, where: str) -> dict[str, pa.Array]:
    """``unit_id`` (string) and ``event_timestamp`` (timestamp[us, UTC]) of a frame.

    Args:
        frame: Has ``unit_id`` and the column ``time``, in any zone.
        time: Name of its time column.
        where: How to call the frame in an error.

    Raises:
        DataError: A column is missing, a row has no unit or no time, or times have no zone.
    """
    _require(frame, [UNIT, time], where)
    units = frame[UNIT]
    if units.isna().any():
        row = int(np.flatnonzero(units.isna())[0])
        raise DataError(f"{where}: row {row} has no unit_id; every row belongs to a unit")
    times = frame[time]
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        seen = f"such as {times.iloc[0]!r}" if len(times) else f"of type {times.dtype}"
        raise DataError(
            f"{where}: column '{time}' holds times without a zone, {seen}; "
            "give UTC timestamps (pd.to_datetime(..., utc=True))"
        )
    if times.isna().any():
        row = int(np.flatnonzero(times.isna())[0])
        raise DataError(f"{where}: row {row} has no {time}; say when its features held")
    moments = times.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    return {
        UNIT: pa.array(unit_ids(units), pa.string()),
        TIME: pa.array(moments, TIMESTAMP),
    }


def feature_rows(frame: pd.DataFrame, time: str, campaign: Campaign, where: str) -> pa.Table:
    """The frame's features as rows of the log, one a (unit, time): the last, where there are more.

    Args:
        frame: ``unit_id``, the time column and every feature, under the campaign's names.
        time: Name of the time column: when the features held.
        campaign: Names the features.
        where: How to call the frame in an error.

    Raises:
        DataError: As :func:`key_columns`, or a feature is missing, infinite or of the wrong type.
    """
    features = campaign.features
    keys = key_columns(frame, time, where)
    _require(frame, features.names, where)
    fields = field_names(features.names)
    columns = dict(keys)
    for name in features.numeric:
        # Feast and DuckDB know one kind of missing: null.
        columns[fields[name]] = pa.array(_numbers(frame[name], where), from_pandas=True)
    for name in features.categorical:
        columns[fields[name]] = pa.array(words(frame[name]), pa.string())
    table = pa.table(columns)
    repeated = table.select([UNIT, TIME]).to_pandas().duplicated(keep="last").to_numpy()
    return table.filter(pa.array(~repeated)) if repeated.any() else table


def _require(frame: pd.DataFrame, names: list[str], where: str) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise DataError(
            f"{where}: column {choices(missing[:1])} is missing; it has {choices(frame.columns)}"
        )


def _numbers(column: pd.Series, where: str) -> np.ndarray:
    try:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        numbers = pd.to_numeric(column, errors="coerce")
        row = int(np.flatnonzero(numbers.isna() & column.notna())[0])
        raise DataError(
            f"{where}: column '{column.name}', row {row}: {column.iloc[row]!r} is no number; "
            "the campaign lists this feature under features.numeric"
        ) from None
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise DataError(
            f"{where}: column '{column.name}', row {row}: is infinite; leave unknown values empty"
        )
    return values
