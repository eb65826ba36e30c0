"""Where a campaign's log comes from: a simulated world, Parquet or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import dataset as arrow

from campaigns.errors import DataError, UpdraftError
from campaigns.pieces import piece_rows
from campaigns.settings import Settings
from campaigns.spec import Campaign, CsvSource, EventsSource, ParquetSource, SimulatorSource
from campaigns.storage import filesystem, is_uri, parquet, reaching
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


class Log:
    """A campaign's log as the user has it: Parquet with many rows a piece at a time, else whole.

    Args:
        campaign: Its source's path absolute.
        rows: Of a piece; default: as many as its columns allow.
    """

    def __init__(self, campaign: Campaign, rows: int | None = None) -> None:
        self.campaign = campaign
        self.rows = rows or 0
        self._stored = self._in_pieces()
        self._table = None if self._stored else read_table(campaign)

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The pieces in their order, with some of the columns or all; again whenever it is called."""
        if self._table is not None:
            yield self._table if columns is None else self._table[list(columns)]
        if self._stored is None:
            return
        for batch in self._stored.to_batches(
            columns=columns, batch_size=self.rows, batch_readahead=1, fragment_readahead=1
        ):
            if batch.num_rows:
                yield batch.to_pandas()

    @property
    def head(self) -> pd.DataFrame:
        """The first piece; empty where there are no rows."""
        return next(self.pieces(), pd.DataFrame())

    def _in_pieces(self) -> arrow.Dataset | None:
        source = self.campaign.source
        if not isinstance(source, ParquetSource):
            return None
        try:
            stored = parquet(source.path)
            self.rows = self.rows or piece_rows(len(stored.schema))
            many = stored.count_rows() > self.rows
        except (OSError, pa.ArrowInvalid, UpdraftError):
            return None  # whatever is wrong, reading it whole will say
        return stored if many and not self._mixed(stored.schema) else None

    def _mixed(self, schema: pa.Schema) -> bool:
        """Whether some ids or words are stored as fractions, whose text depends on the whole column."""
        campaign = self.campaign
        words = {campaign.unit, *campaign.features.categorical}
        words |= {f.column for f in campaign.treatments.values() if f.dose is None}
        floats = {field.name for field in schema if pa.types.is_floating(field.type)}
        return bool(floats & words)


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
