"""A table shaped as Criteo's uplift data, simulated, so that its effects are known and any size can be had.

Criteo-UPLIFT v2.1 (Diemert et al., "A Large Scale Benchmark for Uplift Modeling", AdKDD 2018) has
13,979,592 rows, 12 features, 85% treated, visits of 4.7% and conversions of 0.29%. Here the features are
normal draws, some rounded to few values as there, and with u = sigmoid of one random direction of x each:

    P(visit | x, a) = 0.0764 u_1 + a * 0.0212 u_2
    P(conversion | visit, x, a) = (0.05 + 0.024 u_3) * (1 + 0.10 a)

so that the mean effect of treatment on visits is +1.06 points. Rows come in the order of time over four
weeks, one a user. Each block of ``BLOCK`` rows has its own seed, so a longer table begins as a shorter one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from campaigns.loading import parse_campaign
from campaigns.spec import Campaign

BLOCK = 100_000
DAYS = 28
START = pd.Timestamp("2026-01-01T00:00Z")
TREATED = 0.85
ROUNDED = 8  # every third feature has this many steps a unit


def names(features: int) -> list[str]:
    """f0, f1, ..."""
    return [f"f{number}" for number in range(features)]


def campaign(path: Path, features: int, model: str = "mtmt") -> Campaign:
    """The table as a campaign."""
    return parse_campaign(text(path, features, model))


def text(path: Path, features: int, model: str = "mtmt") -> str:
    """The campaign's file: a thousandth an impression, a visit worth a hundred of them."""
    return f"""
name: scale
description: Whom to show an ad.
unit: user
source: {{kind: parquet, path: {path}}}
timestamp: at
features: {{numeric: [{", ".join(names(features))}], categorical: []}}
treatments: {{ad: {{column: ad, control: none, levels: {{none: {{cost: 0.0}}, shown: {{cost: 0.001}}}}}}}}
propensity: propensity
outcomes: {{visit: {{kind: binary, value: 0.1}}, conversion: {{kind: binary, value: 1.0}}}}
sequence: [visit, conversion]
budget: {{per: unit, amount: 0.0003}}
model: {{name: {model}, search: false}}
"""


def block(number: int, rows: int, features: int, seed: int) -> pd.DataFrame:
    """A block's features, arm, propensity and outcomes; without user and time."""
    rng = np.random.default_rng([seed, number])
    x = rng.standard_normal((rows, features), np.float32)
    x[:, ::3] = np.round(x[:, ::3] * ROUNDED) / ROUNDED
    treated = rng.random(rows) < TREATED
    visit, conversion = chances(x, treated, seed)
    visited = rng.random(rows) < visit
    frame = pd.DataFrame(x, columns=names(features))
    frame["ad"] = np.where(treated, "shown", "none")
    frame["propensity"] = np.where(treated, TREATED, 1 - TREATED)
    frame["visit"] = visited.astype(np.int8)
    frame["conversion"] = (visited & (rng.random(rows) < conversion)).astype(np.int8)
    return frame


def chances(x: np.ndarray, treated: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """P(visit) and P(conversion | visit) of features [N, F] under an arm [N], each [N]."""
    rng = np.random.default_rng([seed, 2**31])
    directions = rng.standard_normal((3, x.shape[1])) / np.sqrt(x.shape[1])
    u = 1 / (1 + np.exp(-2 * (x @ directions.T)))
    visit = 0.0764 * u[:, 0] + treated * 0.0212 * u[:, 1]
    return visit, (0.05 + 0.024 * u[:, 2]) * (1 + 0.1 * treated)


def write(path: Path, rows: int, features: int, seed: int) -> None:
    """The table as one Parquet file, a block at a time."""
    unfinished, out = path.with_suffix(".tmp"), None
    step = DAYS * 86_400_000_000 / rows
    for number, start in enumerate(range(0, rows, BLOCK)):
        frame = block(number, min(BLOCK, rows - start), features, seed)
        place = np.arange(start, start + len(frame))
        frame.insert(0, "user", [f"u{row:08d}" for row in place])
        moments = pd.to_timedelta((place * step).astype(np.int64), unit="us")
        frame.insert(1, "at", (START + moments).astype("datetime64[us, UTC]"))
        table = pa.Table.from_pandas(frame, preserve_index=False)
        out = out or pq.ParquetWriter(unfinished, table.schema)
        out.write_table(table)
    if out:
        out.close()
    unfinished.rename(path)
