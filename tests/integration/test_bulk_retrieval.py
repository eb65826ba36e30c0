"""Retrieval from file to file gives what joining the frame in memory gives, in pieces or not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from campaigns.errors import DataError
from campaigns.loading import load_campaign
from campaigns.settings import Settings
from campaigns.sources import Log
from campaigns.spec import ParquetSource
from campaigns.worlds import world
from feature_repo.retrieval import retrieve
from feature_repo.store import FeatureRepository

pytestmark = pytest.mark.slow  # importing Feast takes ten seconds

GAME = load_campaign(Path(__file__).parents[2] / "campaigns" / "game_bonus.yaml")


def log_of(folder: Path, table: pd.DataFrame) -> Log:
    """The table as the campaign's log, in pieces of 700 rows."""
    table.to_parquet(folder / "log.parquet", index=False)
    source = ParquetSource(kind="parquet", path=str(folder / "log.parquet"))
    return Log(GAME.model_copy(update={"source": source}), 700)


@pytest.mark.parametrize("place", ["files", "postgres"])
def test_the_frame_is_that_of_a_join_in_memory(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from campaigns.frame import decision_frame

    # out of order, and with units that come several times
    table = world("game_bonus").log(4000, seed=3).sample(frac=1, random_state=0)
    own, logged = table[:3000], decision_frame(table[3000:], GAME, "store")
    decisions = pd.concat([decision_frame(own, GAME, "log"), logged], ignore_index=True)
    decisions = decisions.sort_values("decided_at", kind="stable", ignore_index=True)
    repository = FeatureRepository(GAME, Settings(home=tmp_path / "memory"))
    repository.apply()
    repository.ingest(decisions)
    expected = repository.training_frame(decisions)

    log, target = log_of(tmp_path, own), tmp_path / "frame.parquet"
    database = request.getfixturevalue(place) if place == "postgres" else None
    settings = Settings(home=tmp_path / "files", feast_database=database)
    rows = retrieve(log.campaign, logged, log, settings, target)
    assert rows == 4000
    pd.testing.assert_frame_equal(pd.read_parquet(target), expected)
    assert not list((tmp_path / "files" / "feast").glob(".work-*"))


def test_an_id_that_comes_twice_in_different_pieces_is_refused(tmp_path: Path) -> None:
    table = world("game_bonus").log(2000, seed=3)
    table.loc[1900, "decision_id"] = table.loc[5, "decision_id"]
    log = log_of(tmp_path, table)
    with pytest.raises(DataError, match=r"log\.parquet: column 'decision_id': 1 rows repeat an id"):
        retrieve(log.campaign, None, log, Settings(home=tmp_path), tmp_path / "frame.parquet")
