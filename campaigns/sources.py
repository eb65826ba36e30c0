"""Where a campaign's log comes from: a simulated world, Parquet or CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from campaigns.errors import DataError
from campaigns.settings import Settings
from campaigns.spec import Campaign, CsvSource, EventsSource, ParquetSource, SimulatorSource
from campaigns.storage import filesystem, is_uri, reaching
from campaigns.worlds import world


def located(campaign: Campaign, folder: Path, settings: Settings) -> Campaign:
    """The campaign with its source's path absolute.

    A relative path is looked for beside the campaign file, then under ``UPDRAFT_HOME/data``.

    Raises:
        DataError: It is in neither.
    """
    source = campaign.source
    if not isinstance(source, ParquetSource | CsvSource):
        return campaign
    if is_uri(source.path):
        return campaign
    places = [(folder / source.path).absolute(), settings.root / "data" / source.path]
    for place in places:
        if place.exists():
            return campaign.model_copy(
                update={"source": source.model_copy(update={"path": str(place)})}
            )
    tried = " nor ".join(str(place) for place in dict.fromkeys(places))
    raise DataError(f"source.path: {source.path!r} is neither {tried}; give the path of the table")


def read_table(campaign: Campaign) -> pd.DataFrame:
    """The campaign's log as the user has it, one row a decision.

    An ``events`` source has no table of its own: an empty frame.

    Raises:
        DataError: The file is missing, empty or of another format.
    """
    source = campaign.source
    if isinstance(source, EventsSource):
        return pd.DataFrame()
    if isinstance(source, SimulatorSource):
        return world(source.world, **source.options).log(
            source.rows, seed=source.seed, days=source.days
        )
    return read_file(source.path, source.kind)


def source_name(campaign: Campaign) -> str:
    """How an error calls the campaign's table."""
    source = campaign.source
    if isinstance(source, SimulatorSource):
        return f"world {source.world}"
    return source.path if isinstance(source, ParquetSource | CsvSource) else "event store"


def read_file(path: str, kind: str | None = None) -> pd.DataFrame:
    """A Parquet file (or folder of them) or a CSV file, at a path or URI, as a table.

    Raises:
        DataError: It is missing, empty or of another format.
        RemoteError: The store it lies in can't be reached.
    """
    kind = kind or ("csv" if path.endswith((".csv", ".csv.gz")) else "parquet")
    try:
        if not is_uri(path):
            return pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
        with reaching(path):
            found, place = filesystem(path)
            if kind == "parquet":
                return pd.read_parquet(place, filesystem=found)
            with found.open_input_stream(place, compression="detect") as file:
                return pd.read_csv(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing; give the path of a {kind} file") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: is empty; a table has a header and rows") from error
    except (OSError, ValueError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as {kind} ({reason})") from error
