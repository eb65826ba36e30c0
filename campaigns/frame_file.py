"""A training frame in its file: each step reads the columns and the rows that it needs, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from campaigns.frame import DECISION_COLUMNS
from campaigns.pieces import piece_rows
from campaigns.spec import Campaign


class FrameFile:
    """A decision frame as Parquet. Row numbers, which are the frames' index, count from 0.

    Args:
        path: The file; of columns alone, also a folder of files.
        campaign: With features spelled out.
    """

    def __init__(self, path: str | Path, campaign: Campaign) -> None:
        self.path, self.campaign = Path(path), campaign

    def __len__(self) -> int:
        return int(pq.read_metadata(self.path).num_rows)

    def without_features(self) -> pd.DataFrame:
        """Every row: unit, time, arm, propensities, flags and outcomes. Units are Arrow strings."""
        wanted = [name for name in DECISION_COLUMNS if name not in _WORDS]
        return self.read([*wanted, *self.campaign.outcomes])

    def read(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of every row; words are Arrow strings, a quarter of Python's."""
        table = pq.read_table(self.path, columns=list(columns))
        return table.to_pandas(types_mapper=_arrow_words, self_destruct=True, split_blocks=True)

    def take(self, rows: np.ndarray, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of some rows, in the order asked for; their numbers are the index."""
        order = np.argsort(rows, kind="stable")
        wanted = np.asarray(rows)[order]
        parts, start = [], 0
        for table in self._pieces(columns):
            low, high = np.searchsorted(wanted, [start, start + table.num_rows])
            if high > low:
                parts.append(table.take(wanted[low:high] - start))
            start += table.num_rows
        schema = pa.schema([pq.read_schema(self.path).field(name) for name in columns])
        found = pa.Table.from_batches(parts, schema).to_pandas().set_axis(wanted)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return found.iloc[back]

    def where(
        self, wanted: Callable[[pd.DataFrame], np.ndarray], by: Sequence[str]
    ) -> pd.DataFrame:
        """Whole rows for which ``wanted`` says so, [n] bool, of their columns ``by``."""
        parts, start = [], 0
        for table in self._pieces():
            rows = np.flatnonzero(wanted(table.select(list(by)).to_pandas()))
            parts.append(table.take(rows).to_pandas().set_axis(start + rows))
            start += table.num_rows
        return pd.concat(parts) if parts else pq.read_table(self.path).to_pandas()

    def pieces(self) -> Iterator[pd.DataFrame]:
        """The whole frame, some rows at a time."""
        return (table.to_pandas() for table in self._pieces())

    def _pieces(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            rows = piece_rows(len(columns or file.schema_arrow))
            yield from file.iter_batches(rows, columns=None if columns is None else list(columns))


_WORDS = ("decision_id", "policy_version", "model_version")


def _arrow_words(kind: pa.DataType) -> pd.StringDtype | None:
    return pd.StringDtype("pyarrow", na_value=np.nan) if pa.types.is_string(kind) else None
