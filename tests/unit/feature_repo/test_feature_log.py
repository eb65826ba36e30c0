"""The offline log: appends that are whole, once, and in any number of processes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.log import FeatureLog, log_schema
from feature_repo.names import CREATED

START = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = log_schema(["games"], ["device"])


@pytest.fixture
def log(tmp_path: Path) -> FeatureLog:
    log = FeatureLog(tmp_path / "log", SCHEMA)
    log.prepare()
    return log


def rows(*values: tuple[str, int, float | None, str | None]) -> pa.Table:
    """Rows of (unit, hour, games, device)."""
    units, hours, games, devices = zip(*values)
    times = [START + timedelta(hours=hour) for hour in hours]
    schema = pa.schema([field for field in SCHEMA if field.name != CREATED])
    return pa.table([list(units), times, list(games), list(devices)], schema=schema)


def contents(log: FeatureLog) -> list[tuple[str, int, float | None, str | None]]:
    table = pq.read_table(log.folder).sort_by(
        [("unit_id", "ascending"), ("event_timestamp", "ascending")]
    )
    return [
        (
            row["unit_id"],
            (row["event_timestamp"] - START) // timedelta(hours=1),
            row["games"],
            row["device"],
        )
        for row in table.to_pylist()
    ]


def test_an_empty_log_can_be_read(log: FeatureLog) -> None:
    latest, newest = log.latest()
    assert latest.num_rows == 0
    assert newest is None


def test_append_is_idempotent_also_for_overlaps_and_missing_values(log: FeatureLog) -> None:
    first = rows(("a", 0, 1.0, "ios"), ("b", 0, None, None))
    assert log.append(first) == 2
    assert log.append(first) == 0
    assert log.append(rows(("b", 0, None, None), ("b", 1, 2.0, None))) == 1
    assert contents(log) == [("a", 0, 1.0, "ios"), ("b", 0, None, None), ("b", 1, 2.0, None)]


def test_a_correction_counts_and_the_corrected_row_does_not_come_back(log: FeatureLog) -> None:
    log.append(rows(("a", 0, 1.0, "ios")))
    assert log.append(rows(("a", 0, 2.0, "ios"))) == 1
    assert log.append(rows(("a", 0, 1.0, "ios"))) == 0
    assert log.latest()[0]["games"].to_pylist() == [2.0]


def test_latest_by_time_not_by_arrival(log: FeatureLog) -> None:
    log.append(rows(("a", 5, 5.0, "ios"), ("b", 1, 1.0, None)))
    log.append(rows(("a", 3, 3.0, "ios")))
    assert log.latest()[0]["games"].to_pylist() == [5.0, 1.0]
    assert log.latest(until=START + timedelta(hours=3))[0]["games"].to_pylist() == [3.0, 1.0]
    assert log.latest(until=START)[0].num_rows == 0


def test_latest_of_units_with_newer_rows_only(log: FeatureLog) -> None:
    log.append(rows(("a", 0, 1.0, None), ("b", 0, 1.0, None)))
    newest = log.latest()[1]
    assert log.latest(created_after=newest)[0].num_rows == 0
    log.append(rows(("b", 1, 2.0, None)))
    assert log.latest(created_after=newest)[0]["unit_id"].to_pylist() == ["b"]


def test_many_small_files_are_merged_and_nothing_is_lost(
    log: FeatureLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.log.MANY_SMALL", 8)
    for hour in range(30):
        log.append(rows((f"u{hour % 7}", hour, float(hour), "ios")))
    assert len(list(log.folder.glob("*.parquet"))) < 8
    assert sorted(hour for _, hour, _, _ in contents(log)) == list(range(30))


def test_files_stay_while_somebody_reads(log: FeatureLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.log.MANY_SMALL", 8)
    with log.reading():
        for hour in range(10):
            log.append(rows(("a", hour, 0.0, None)))
        assert len(list(log.folder.glob("*.parquet"))) > 8
    log.append(rows(("a", 10, 0.0, None)))
    assert len(list(log.folder.glob("*.parquet"))) == 1
    assert len(contents(log)) == 11


def test_threads_that_append_the_same_rows_add_them_once(log: FeatureLog) -> None:
    table = rows(*((f"u{unit}", 0, 1.0, None) for unit in range(50)))
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda _: log.append(table), range(8)))
    assert sorted(added) == [0] * 7 + [50]
    assert len(contents(log)) == 50


def test_other_features_keep_the_rows(log: FeatureLog) -> None:
    log.append(rows(("a", 0, 1.0, "7"), ("b", 0, 2.0, "seven")))
    changed = FeatureLog(log.folder, log_schema(["device", "wins"], []))
    changed.prepare()
    kept = pq.read_table(log.folder)
    assert kept.schema.names == changed.schema.names
    assert kept["device"].to_pylist() == [7.0, None]
    assert kept["wins"].to_pylist() == [None, None]
    # Ingested again, the rows get what was missing.
    again = kept.drop_columns([CREATED, "wins"]).append_column("wins", pa.array([3.0, 4.0]))
    assert changed.append(again) == 2
    assert changed.latest()[0]["wins"].to_pylist() == [3.0, 4.0]


def test_what_a_killed_writer_left_is_neither_read_nor_kept(log: FeatureLog) -> None:
    log.append(rows(("a", 0, 1.0, None)))
    half = log.folder / ".part-x.tmp"
    half.write_bytes(b"PAR1 half a file")
    assert log.latest()[0].num_rows == 1
    log.append(rows(("a", 1, 1.0, None)))
    assert not half.exists()


KILLED = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from datetime import UTC, datetime
from feature_repo.log import FeatureLog, log_schema

log = FeatureLog(Path(sys.argv[1]), log_schema(["games"], ["device"]))
log.prepare()
count = 50_000
for batch in range(int(sys.argv[2]), 10**6):
    log.append(pa.table({
        "unit_id": pa.array([f"b{batch}-{row}" for row in range(count)]),
        "event_timestamp": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * count, pa.timestamp("us", "UTC")),
        "games": np.full(count, float(batch)),
        "device": pa.array(["ios"] * count),
    }))
    print(batch, flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_a_batch_is_there_wholly_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    rng = random.Random(7)
    for attempt in range(4):
        arguments = [sys.executable, "-c", KILLED, str(folder), str(attempt * 1000)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
        batches = pq.read_table(folder)["games"].value_counts().to_pylist()
        assert batches
        assert {batch["counts"] for batch in batches} == {50_000}
