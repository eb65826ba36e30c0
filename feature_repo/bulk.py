"""Training frames of any size: decisions and their features go from file to file, a piece at a time.

What needs every row at once, the order of time and the point-in-time join, is DuckDB's work, within
``MEMORY``; what doesn't fit goes through the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from campaigns.errors import DataError
from campaigns.frame import DECISION_COLUMNS
from campaigns.frame_checks import repeated
from campaigns.pieces import piece_rows
from campaigns.spec import Campaign
from feature_repo.database import DatabaseLog
from feature_repo.log import MEMORY, TIMESTAMP, quoted
from feature_repo.names import ROW, TIME
from feature_repo.store import FeatureRepository

_KINDS = {
    "decided_at": TIMESTAMP,
    "arm": pa.int64(),
    "propensity": pa.float64(),
    "explored": pa.bool_(),
    "explored_propensity": pa.float64(),
    "holdout": pa.bool_(),
}


def decision_schema(campaign: Campaign) -> pa.Schema:
    """A decision frame's columns as Parquet has them."""
    fields = [(name, _KINDS.get(name, pa.string())) for name in DECISION_COLUMNS]
    factors = campaign.treatments.items()
    fields += [(name, pa.float64() if factor.dose else pa.string()) for name, factor in factors]
    fields += [(name, pa.float64()) for name in campaign.features.numeric]
    fields += [(name, pa.string()) for name in campaign.features.categorical]
    fields += [(name, pa.float64()) for name in campaign.outcomes]
    return pa.schema(fields)


def spool(pieces: Iterable[pd.DataFrame], campaign: Campaign, folder: Path) -> int:
    """Add decision frames to a folder, after those that are there; returns the number of rows."""
    schema, rows, there = decision_schema(campaign), 0, len(list(folder.iterdir()))
    for number, piece in enumerate(pieces, start=there):
        table = pa.Table.from_pandas(piece, schema, preserve_index=False)
        pq.write_table(table, folder / f"{number:06d}.parquet", compression="lz4")
        rows += len(piece)
    return rows


def check_ids(folder: Path, work: Path, where: str) -> None:
    """Look for decision ids that come twice in spooled decisions.

    Raises:
        DataError: There are some.
    """
    files = list(folder.iterdir())
    if len(files) < 2:
        return  # within a piece they were looked for already
    with _database(work) as database:
        rows, example = database.execute(
            "SELECT coalesce(sum(n - 1), 0)::BIGINT, min(decision_id) FROM (SELECT decision_id, "
            "count(*) AS n FROM read_parquet(?) GROUP BY decision_id HAVING n > 1)",
            [[str(file) for file in files]],
        ).fetchone()
    if rows:
        raise DataError(f"{where}: {repeated(rows, example)}")


def in_order_of_time(folder: Path, target: Path, work: Path) -> None:
    """Sort spooled decisions by ``decided_at``, those of one moment as they came."""
    spooled = (
        f"read_parquet({_text(folder / '*.parquet')}, filename = true, file_row_number = true)"
    )
    columns = len(pq.read_schema(next(folder.iterdir())).names)
    with _database(work) as database:
        database.execute(
            f"COPY (SELECT * EXCLUDE (filename, file_row_number) FROM {spooled} "
            f"ORDER BY decided_at, filename, file_row_number) TO {_text(target)} {_format(columns)}"
        )


def pieces_of(path: Path) -> Iterator[pd.DataFrame]:
    """A Parquet file as frames of some rows each."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(piece_rows(len(file.schema_arrow))):
            yield batch.to_pandas()


def join_features(repository: FeatureRepository, decisions: Path, target: Path, work: Path) -> int:
    """Write decisions with the features as they were known at ``decided_at``, in the same order.

    Args:
        repository: Has the features ingested.
        decisions: Decision frame (Parquet); features in it are replaced.
        target: The training frame (Parquet).
        work: A folder for what doesn't fit in memory.

    Returns:
        The number of rows.

    Raises:
        DataError: The join lost or invented rows.
    """
    rows, feast = pq.read_metadata(decisions).num_rows, repository._feast
    if isinstance(repository.log, DatabaseLog):
        joined = (repository.training_frame(piece) for piece in pieces_of(decisions))
        with pq.ParquetWriter(target, decision_schema(repository.campaign)) as out:
            for piece in joined:
                out.write_table(pa.Table.from_pandas(piece, out.schema, preserve_index=False))
        return rows
    entities = (
        f"SELECT {_listed(_own(repository.campaign))}, decided_at AS {TIME}, "
        f"file_row_number AS {ROW} FROM read_parquet({_text(decisions)}, file_row_number = true)"
    )
    columns = len(pq.read_schema(decisions).names)
    job = feast.get_historical_features(entities, repository._service)
    with repository.log.reading(), _database(work) as database:
        database.execute(
            f"COPY (SELECT {_columns(repository)} FROM ({job.query(database)}) ORDER BY {ROW}) "
            f"TO {_text(target)} {_format(columns)}"
        )
    if (found := pq.read_metadata(target).num_rows) != rows:
        raise DataError(
            f"the point-in-time join gave {found} rows for {rows} decisions; each must come back "
            f"once: delete {repository.log.place} and ingest again"
        )
    return rows


def _own(campaign: Campaign) -> list[str]:
    """The columns that decisions bring themselves."""
    return [name for name in decision_schema(campaign).names if name not in campaign.features.names]


def _columns(repository: FeatureRepository) -> str:
    """The training frame's columns in their order, of the join's."""
    names = decision_schema(repository.campaign).names
    of_feast = {name: repository.fields.get(name, name) for name in names}
    return ", ".join(f"{quoted(field)} AS {quoted(name)}" for name, field in of_feast.items())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)


def _format(columns: int) -> str:
    """Row groups of a piece each: DuckDB holds some of them in memory."""
    return f"(FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE {piece_rows(columns)})"


def _database(work: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(work / "spill")})


def _text(path: Path) -> str:
    escaped = str(path).replace("'", "''")
    return f"'{escaped}'"
