"""Tables and frames in an object store (moto's S3 server), and where fsspec knows the way."""

from __future__ import annotations

import gzip
from pathlib import Path

import fsspec
import pandas as pd
import pytest
import torch
from pyarrow import fs

from campaigns.errors import CampaignError, DataError, RemoteError
from campaigns.loading import parse_campaign
from campaigns.settings import Settings
from campaigns.sources import located, read_file
from campaigns.spec import Campaign
from campaigns.worlds import world
from feature_repo.retrieval import resolved
from models.data import Batch
from models.dataset import count_rows, prepare
from tests.integration.bonus import bonus_text


def campaign_of(kind: str, path: str | Path) -> Campaign:
    return parse_campaign(bonus_text(source=f'{{kind: {kind}, path: "{path}"}}'))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    world("game_bonus").log(3_000, seed=1).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz"])
def test_a_campaigns_table_may_lie_in_a_bucket(
    s3: str, log: Path, kind: str, tmp_path: Path
) -> None:
    table, local = pd.read_parquet(log), tmp_path / f"log.{kind}"
    if kind == "parquet":
        table.to_parquet(local)
    else:
        text = table.to_csv(index=False).encode()
        local.write_bytes(gzip.compress(text) if kind == "csv.gz" else text)
    remote = f"{s3}/tables/log.{kind}"
    fs.copy_files(str(local), remote)
    here, there = (campaign_of(kind.removesuffix(".gz"), path) for path in (local, remote))
    assert located(there, tmp_path, Settings(home=tmp_path)).source == there.source
    frame = resolved(there)[1]
    assert frame is not None
    pd.testing.assert_frame_equal(frame, resolved(here)[1])


def batches(batch: Batch) -> list[torch.Tensor]:
    return [value for value in vars(batch).values() if value is not None]


@pytest.mark.parametrize("store", ["s3", "memory"])
def test_a_training_frame_is_the_same_wherever_it_lies(
    store: str, log: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    campaign = campaign_of("parquet", log)
    frame, local = resolved(campaign)[1], tmp_path / "frame.parquet"
    assert frame is not None
    frame.to_parquet(local)
    if store == "s3":
        remote = f"{request.getfixturevalue('s3')}/frames/frame.parquet"
        fs.copy_files(str(local), remote)
    else:
        remote = "memory://frames/frame.parquet"
        with fsspec.open(remote, "wb") as file:
            file.write(local.read_bytes())
    assert count_rows(remote) == len(frame)
    here, there = prepare(local, campaign), prepare(remote, campaign)
    for one, other in ((here.train, there.train), (here.validation, there.validation)):
        for a, b in zip(batches(one), batches(other)):
            assert torch.equal(a, b)


def test_what_is_missing_away_or_unknown_is_said_plainly(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (f"{s3}/none.parquet", "s3://no-such-bucket/frame.parquet"):
        with pytest.raises(DataError, match="is missing"):
            count_rows(place)
        with pytest.raises(DataError, match="is missing"):
            read_file(place)
    with pytest.raises(
        CampaignError, match="ftpx://a/b.parquet: is no place that Arrow or fsspec can open"
    ):
        read_file("ftpx://a/b.parquet")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(RemoteError, match=r"look whether the store runs.* AWS_ENDPOINT_URL"):
        count_rows(f"{s3}/frame.parquet")
