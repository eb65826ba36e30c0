from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import campaigns
from campaigns.datasets import hillstrom
from campaigns.errors import DataError, RemoteError
from campaigns.frame import decision_frame
from campaigns.loading import load_campaign
from campaigns.objective import budget_per_unit

CAMPAIGN = Path(campaigns.__file__).with_name("hillstrom.yaml")


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    """A file of the public one's shape, with made-up people."""
    rng = np.random.default_rng(3)
    n = hillstrom.ROWS
    visit = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "recency": rng.integers(1, 13, n),
            "history_segment": rng.choice(["1) $0 - $100", "2) $100 - $200"], n),
            "history": rng.gamma(2, 100, n).round(2),
            "mens": rng.integers(0, 2, n),
            "womens": rng.integers(0, 2, n),
            "zip_code": rng.choice(["Urban", "Rural", "Surburban"], n),
            "newbie": rng.integers(0, 2, n),
            "channel": rng.choice(["Web", "Phone"], n),
            "segment": rng.choice(list(hillstrom.ARMS), n),
            "visit": visit,
            "conversion": visit * rng.integers(0, 2, n),
            "spend": 0.0,
        }
    )


def write(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "raw.csv", index=False)
    return folder / "raw.csv"


@pytest.mark.parametrize("column", ["segment", "treatment"])
def test_both_names_of_the_treatment_column_are_read(
    raw: pd.DataFrame, column: str, tmp_path: Path
) -> None:
    source = write(raw.rename(columns={"segment": column}), tmp_path)
    target = hillstrom.prepare(source, tmp_path / "new" / "hillstrom.parquet")
    table = pd.read_parquet(target)
    assert list(table["email"]) == [hillstrom.ARMS[name] for name in raw["segment"]]
    assert [path.name for path in target.parent.iterdir()] == ["hillstrom.parquet"]


def test_the_synthetic_days_are_the_same_each_time_and_even(
    raw: pd.DataFrame, tmp_path: Path
) -> None:
    source = write(raw, tmp_path)
    first, again = (
        pd.read_parquet(hillstrom.prepare(source, tmp_path / name)) for name in ("a", "b")
    )
    pd.testing.assert_frame_equal(first, again)
    times = first["event_timestamp"]
    assert str(times.dtype) == "datetime64[us, UTC]"
    assert times.is_unique
    days = times.dt.floor("D").value_counts()
    assert len(days) == 14
    assert days.max() - days.min() <= 1


def test_a_url_is_downloaded(raw: pd.DataFrame, tmp_path: Path) -> None:
    target = hillstrom.prepare(write(raw, tmp_path).as_uri(), tmp_path / "out.parquet")
    assert len(pd.read_parquet(target)) == hillstrom.ROWS


def test_a_url_that_cannot_be_read_names_the_way_round(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="can't be downloaded .* --from FILE"):
        hillstrom.prepare((tmp_path / "nothing.csv").as_uri(), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_wrong_file_is_told_what_is_wrong(raw: pd.DataFrame, tmp_path: Path) -> None:
    wrong = {
        "no column 'spend' or 'segment'": raw.drop(columns=["spend", "segment"]),
        "63,999 rows; the whole file has 64,000": raw.head(63_999),
        "column 'segment' has .*'Dogs E-Mail'": raw.replace(
            {"segment": {"No E-Mail": "Dogs E-Mail"}}
        ),
        "column 'visit' must be 0 or 1": raw.assign(visit=2),
        "column 'history' must hold a number": raw.assign(history="a lot"),
    }
    for message, frame in wrong.items():
        with pytest.raises(DataError, match=message):
            hillstrom.prepare(write(frame, tmp_path), tmp_path / "out.parquet")
    with pytest.raises(DataError, match=r"nothing\.csv: is missing"):
        hillstrom.prepare(tmp_path / "nothing.csv", tmp_path / "out.parquet")
    (tmp_path / "raw.csv").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(DataError, match="can't be read as CSV"):
        hillstrom.prepare(tmp_path / "raw.csv", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_the_real_file_has_its_known_figures(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "hillstrom" / "hillstrom.csv"
    if not source.exists():
        pytest.skip(f"no {source}")
    table = pd.read_parquet(hillstrom.prepare(source, tmp_path / "hillstrom.parquet"))
    assert len(table) == 64_000
    groups = table.groupby("email")
    assert groups.size().to_dict() == {"none": 21_306, "mens": 21_307, "womens": 21_387}
    known = {
        "visit": {"none": 0.106167, "mens": 0.182757, "womens": 0.151400},
        "conversion": {"none": 0.005726, "mens": 0.012531, "womens": 0.008837},
        "spend": {"none": 0.652789, "mens": 1.422617, "womens": 1.077202},
    }
    for outcome, means in known.items():
        assert groups[outcome].mean().to_dict() == pytest.approx(means, abs=1e-6)

    campaign = load_campaign(CAMPAIGN)
    frame = decision_frame(table, campaign, "hillstrom.parquet")
    assert list(frame["unit_id"][:2]) == ["1", "2"]
    assert np.bincount(frame["arm"]).tolist() == [21_306, 21_307, 21_387]
    affordable = budget_per_unit(campaign, frame["decided_at"]) / campaign.arm_table.costs.max()
    assert affordable == pytest.approx(0.5, abs=0.02)
    assert not (frame["conversion"] > frame["visit"]).any()  # the sequence holds
