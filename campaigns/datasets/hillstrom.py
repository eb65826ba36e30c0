"""Hillstrom's MineThatData e-mail challenge (2008): 64,000 customers, two e-mails and no e-mail.

Customers who had bought within twelve months were drawn into three equal groups: no e-mail, one that
shows men's goods, one that shows women's. Visits, purchases and spend were counted for two weeks.
"""

from __future__ import annotations

import http.client
import shutil
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd

from campaigns.errors import DataError, EnvironmentProblem, RemoteError, choices

PUBLIC_URL = (
    "http://www.minethatdata.com/"
    "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv"
)
ROWS = 64_000
ARMS = {"No E-Mail": "none", "Mens E-Mail": "mens", "Womens E-Mail": "womens"}
NUMERIC = ("recency", "history", "mens", "womens", "newbie")
CATEGORICAL = ("history_segment", "zip_code", "channel")
OUTCOMES = ("visit", "conversion", "spend")
TREATMENT = ("segment", "treatment")  # its name in the public file, and in later copies
START = np.datetime64("2008-03-01T00:00:00", "us")
STEP = np.timedelta64(14 * 86_400_000_000 // ROWS, "us")  # 18.9 seconds
TIMEOUT_SECONDS = 60


def prepare(source: str | Path, target: str | Path) -> Path:
    """Write the dataset as the Parquet table that ``campaigns/hillstrom.yaml`` reads.

    The columns are customer_id (the row's number, from 1), event_timestamp, the eight features, email
    (none, mens or womens), propensity (1/3) and the outcomes visit, conversion and spend.

    The file has no dates, so **event_timestamp is synthetic**: row i of N was decided on at 2008-03-01
    00:00 UTC + 14 days * i / N. The order of the file is independent of everything in it (its groups
    and outcomes are even along it), so each day holds a small trial like the whole one.

    Args:
        source: The CSV file, or a URL of it such as ``PUBLIC_URL``.
        target: The Parquet file to write; its folder is made, an older file is replaced at once.

    Returns:
        The target.

    Raises:
        DataError: The source is missing or is not this dataset.
        RemoteError: The URL can't be read.
        EnvironmentProblem: The target can't be written.
    """
    target = Path(target)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hillstrom.csv"
        if "://" in str(source):
            _download(str(source), file)
        else:
            file = Path(source)
        table = _table(_read(file, str(source)), str(source))
    _write(table, target)
    return target


def _download(url: str, file: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, file.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RemoteError(
            f"{url}: can't be downloaded ({getattr(error, 'reason', error)}); "
            "fetch the file another way and pass it with --from FILE"
        ) from error


def _read(file: Path, where: str) -> pd.DataFrame:
    try:
        return pd.read_csv(file)
    except FileNotFoundError as error:
        raise DataError(f"{where}: is missing; give the MineThatData CSV file") from error
    except (OSError, ValueError) as error:  # ValueError: pandas' parsing and decoding errors
        raise DataError(f"{where}: can't be read as CSV ({str(error).strip()})") from error


def _table(raw: pd.DataFrame, where: str) -> pd.DataFrame:
    """The checked table in the campaign's layout."""
    arms = next((raw[name] for name in TREATMENT if name in raw.columns), None)
    missing = [name for name in (*NUMERIC, *CATEGORICAL, *OUTCOMES) if name not in raw.columns]
    if arms is None:
        missing.append(TREATMENT[0])
    if arms is None or missing:
        raise DataError(
            f"{where}: has no column {choices(missing)}; "
            f"it has {choices(raw.columns)}, so it is not the MineThatData e-mail file"
        )
    if len(raw) != ROWS:
        raise DataError(f"{where}: has {len(raw):,} rows; the whole file has {ROWS:,}")
    seen = sorted(map(str, arms.unique()))
    if seen != sorted(ARMS):
        raise DataError(
            f"{where}: column '{arms.name}' has {choices(seen)}; expected {choices(ARMS)}"
        )
    for name in (*NUMERIC, *OUTCOMES):
        if not pd.api.types.is_numeric_dtype(raw[name]) or raw[name].isna().any():
            raise DataError(f"{where}: column '{name}' must hold a number in every row")
    for name in OUTCOMES[:2]:
        if not raw[name].isin([0, 1]).all():
            raise DataError(f"{where}: column '{name}' must be 0 or 1 in every row")
    row = np.arange(ROWS)
    return pd.DataFrame(
        {
            "customer_id": row + 1,
            "event_timestamp": pd.DatetimeIndex(START + row * STEP, tz="UTC"),
            **{name: raw[name].astype("float64") for name in NUMERIC},
            **{name: raw[name].astype(object) for name in CATEGORICAL},
            "email": arms.map(ARMS).astype(object),
            "propensity": 1 / 3,
            **{name: raw[name].astype("float64") for name in OUTCOMES},
        }
    )


def _write(table: pd.DataFrame, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(part, index=False)
        part.replace(target)
    except OSError as error:
        raise EnvironmentProblem(
            f"{target}: can't be written ({error.strerror or error}); give a file in a folder you may write"
        ) from error
