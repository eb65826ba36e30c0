"""Tables and pages that commands write where the user says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from campaigns.errors import CampaignError, EnvironmentProblem


def require_table(path: Path, option: str) -> None:
    """Refuse a name of a table that can't be written, before any work is done.

    Raises:
        CampaignError: It is neither Parquet nor CSV.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise CampaignError(f"{option}: {str(path)!r} is no table; end it in .parquet or .csv")


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet or CSV, by its ending; the folder is made if it is missing.

    Raises:
        EnvironmentProblem: It can't be written.
    """
    with writing(path):
        if path.suffix == ".csv":
            table.to_csv(path, index=False)
        else:
            table.to_parquet(path, index=False)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make a file's folder; what goes wrong while the file is written becomes a sentence.

    Raises:
        EnvironmentProblem: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise EnvironmentProblem(
            f"{path}: can't be written ({reason}); give another place"
        ) from error
