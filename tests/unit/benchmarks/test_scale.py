"""The scale benchmark's table has the shape that it claims, and its fits and floors say what they should."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.scale.beyond import lines
from benchmarks.scale.floors import floor
from benchmarks.scale.report import page, slope
from benchmarks.scale.watch import run
from benchmarks.scale.world import DAYS, TREATED, block, campaign, chances, names, write
from campaigns.frame import decision_frame


def test_the_table_has_criteos_rates_and_known_effects() -> None:
    rows = block(0, 300_000, 12, seed=0)
    assert rows["visit"].mean() == pytest.approx(0.047, abs=0.002)
    assert rows["conversion"].mean() == pytest.approx(0.0029, abs=0.0004)
    treated = (rows["ad"] == "shown").to_numpy()
    assert treated.mean() == pytest.approx(TREATED, abs=0.003)
    assert not (rows["conversion"] > rows["visit"]).any()
    x = rows[names(12)].to_numpy()
    every = np.ones(len(x), dtype=bool)
    told = chances(x, every, 0)[0] - chances(x, ~every, 0)[0]
    seen = rows["visit"][treated].mean() - rows["visit"][~treated].mean()
    assert told.mean() == pytest.approx(0.0106, abs=0.0005)
    assert seen == pytest.approx(told.mean(), abs=0.004)
    assert told.std() > 0.003


def test_a_longer_table_begins_as_a_shorter_one(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 1_000, 3, seed=0)
    write(tmp_path / "b.parquet", 100_500, 3, seed=0)
    short, long = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
    assert len(long) == 100_500
    assert long["at"].max() - long["at"].min() < pd.Timedelta(days=DAYS)
    # the arms of a block depend on its length alone; its features' draws come first
    assert (short[names(3)] == long[names(3)][:1000]).to_numpy().all()
    assert decision_frame(long, campaign(tmp_path / "b.parquet", 3), "b")["unit_id"].is_unique


def test_a_linear_stage_has_slope_one() -> None:
    results = [{"rows": n, "cpu": 3e-6 * n} for n in (1e6, 2e6, 8e6)]
    assert slope(results) == pytest.approx(1.0)
    assert slope([{**each, "cpu": each["rows"] ** 2} for each in results]) == pytest.approx(2.0)
    assert np.isnan(slope(results[:1]))


def test_a_floor_adds_bytes_and_flops() -> None:
    machine = {"disk": 1e9, "memory": 1e10, "product": 1e11}
    assert floor({"bytes": 2e9, "flops": 5e11}, machine) == pytest.approx(7.0)


def test_a_stage_is_watched_with_its_children_and_stopped_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(
        "import subprocess, sys, time\n"
        "hold = 'import time; x = bytearray(200 * 2**20); time.sleep(3)'\n"
        "subprocess.run([sys.executable, '-c', hold if sys.argv[1:] else 'import time; time.sleep(60)'])"
    )
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(tmp_path))
    try:
        seen = run(["held", "memory"], 60, tmp_path / "log")
        assert seen is not None
        assert 200 * 2**20 < seen.peak < 400 * 2**20
        assert run(["held"], 1, tmp_path / "log") is None
    finally:
        patch.undo()
    assert sys.executable


def test_the_page_shows_what_was_measured() -> None:
    result = {"seconds": 10.0, "cpu": 8.0, "peak": 2.0**30, "floor": 0.5, "features": 12}
    results = [{**result, "stage": "retrieval", "rows": n} for n in (1_000_000, 2_000_000)]
    report = {"machine": "m", "rates": {"disk": 1e9, "memory": 1e9, "product": 1e9}}
    text = page({**report, "results": results})
    assert "| retrieval | 10 / 8 (1.0) | 10 / 8 (1.0) | 0.00 | 0.5 |" in text


def test_what_lies_beyond_is_the_cost_of_a_row_times_the_rows() -> None:
    stage = {"features": 12, "rows": 1_000_000, "cpu": 36.0}
    online = {**stage, "stage": "online", "units": 10_000, "cpu": 3.6, "bytes a unit": 2_000.0}
    scale = {"results": [{**stage, "stage": "retrieval"}, online]}
    cell = {"rate": 500.0, "cells": 200}
    path = {"cells": {"as measured": cell}, "costs": {"http": 1e-3}, "bytes": 1_000.0}
    found = {line[0]: line[1:3] for line in lines(scale, path)}
    assert found["retrieval"] == ["36.0 CPU µs a row", "10.0 CPU hours"]
    assert found["online store, Feast's SQLite"][1] == "100 CPU hours, 2.0 TB"
    assert found["event store"] == ["1,000 bytes a decision", "8.6 TB a day"]
    assert found["a replica's interpreter, HTTP alone"][1] == "100 cores"
