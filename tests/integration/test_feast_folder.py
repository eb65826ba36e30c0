"""The folder as Feast people know it, and what Feast says aloud when we use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.loading import parse_campaign
from campaigns.settings import Settings
from feature_repo.store import FeatureRepository

pytestmark = pytest.mark.slow  # every process here imports Feast

CAMPAIGN = """
name: demo
unit: player
source: {kind: events}
timestamp: at
features: {numeric: [games], categorical: [device]}
treatments: {bonus: {column: bonus, control: none, levels: {none: {}, coins: {cost: 1}}}}
outcomes: {buys: {kind: binary, value: 1}}
budget: {amount: 10}
"""

EVERYTHING = """
import sys
import pandas as pd
from campaigns.loading import parse_campaign
from campaigns.settings import Settings
from feature_repo.store import FeatureRepository

repository = FeatureRepository(parse_campaign(sys.argv[2]), Settings(home=sys.argv[1]))
repository.apply()
frame = pd.DataFrame({"unit_id": ["a", "b"], "games": [1.0, 2.0], "device": ["ios", None]})
first, second = pd.Timestamp("2026-03-08T02:30Z"), pd.Timestamp("2026-03-08T12:00Z")
repository.ingest(frame.assign(decided_at=first))
assert repository.training_frame(frame.assign(decided_at=first))["games"].tolist() == [1.0, 2.0]
before = first - pd.Timedelta("1us")
assert repository.training_frame(frame.assign(decided_at=before))["games"].isna().all()
assert repository.materialize() == 2
assert repository.push(frame.assign(event_timestamp=second, games=3.0)) == 2
assert repository.push(frame.assign(event_timestamp=second - pd.Timedelta("1min"))) == 0
assert repository.materialize() == 2
assert repository.materialize(until=second.to_pydatetime()) == 2
assert repository.online(["a", "b"])["games"].tolist() == [3.0, 3.0]
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_nothing_is_printed_and_the_machines_zone_does_not_matter(
    tmp_path: Path, zone: str
) -> None:
    loud = [f"-Walways::{kind}Warning" for kind in ("Deprecation", "User", "Future", "Runtime")]
    result = run(sys.executable, *loud, "-c", EVERYTHING, str(tmp_path), CAMPAIGN, TZ=zone)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_feasts_own_command_line_works_on_the_folder(tmp_path: Path) -> None:
    repository = FeatureRepository(parse_campaign(CAMPAIGN), Settings(home=tmp_path))
    repository.apply()
    feast = [str(Path(sys.executable).parent / "feast"), "-c", str(repository.folder)]
    listed = run(*feast, "feature-views", "list")
    assert listed.returncode == 0, listed.stderr
    assert "unit_features" in listed.stdout
    applied = run(*feast, "apply")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert "No changes to registry" in applied.stdout


THEIRS = """
import sys
from datetime import UTC, datetime
import pandas as pd
from feast import FeatureStore

store = FeatureStore(repo_path=sys.argv[1])
decisions = pd.read_parquet(sys.argv[2])
service = store.get_feature_service("decision_features")
store.get_historical_features(decisions, service).to_df().to_parquet(sys.argv[3])
store.materialize(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""


def test_feasts_own_duckdb_store_finds_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    repository = FeatureRepository(parse_campaign(CAMPAIGN), Settings(home=tmp_path))
    repository.apply()
    for _ in range(3):  # few units and times: many rows are corrections
        repository.ingest(_rows(rng, 40))
    decisions = _rows(rng, 200)[["unit_id", "decided_at"]]
    ours = repository.training_frame(decisions)

    config = repository.folder / "feature_store.yaml"
    config.write_text(config.read_text().replace("feature_repo.asof.AsofOfflineStore", "duckdb"))
    asked, answer = tmp_path / "asked.parquet", tmp_path / "answer.parquet"
    entities = decisions.rename(columns={"decided_at": "event_timestamp"})
    entities.assign(row=range(len(entities))).to_parquet(asked)
    result = run(sys.executable, "-c", THEIRS, str(repository.folder), str(asked), str(answer))
    assert result.returncode == 0, result.stderr
    theirs = pd.read_parquet(answer).sort_values("row", ignore_index=True)
    np.testing.assert_array_equal(ours["games"], theirs["games"])
    assert ours["device"].tolist() == theirs["device"].tolist()
    assert ours["games"].isna().any()

    units = ["a", "b", "c", "d", "stranger"]
    loaded_by_feast = repository.online(units)
    repository.materialize()
    loaded_by_us = repository.online(units)
    for name, values in loaded_by_feast.items():
        np.testing.assert_array_equal(values, loaded_by_us[name])
    assert not np.isnan(loaded_by_us["games"]).all()


def _rows(rng: np.random.Generator, count: int) -> pd.DataFrame:
    start = pd.Timestamp("2026-01-01T00:00Z").as_unit("us")
    return pd.DataFrame(
        {
            "unit_id": rng.choice(["a", "b", "c", "d"], count),
            "decided_at": start + pd.to_timedelta(rng.integers(0, 12, count), unit="h"),
            "games": np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count)),
            "device": rng.choice(np.array(["ios", "web", None], dtype=object), count),
        }
    )
