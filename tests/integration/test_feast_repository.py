"""The feature repository through real Feast: on files (DuckDB, SQLite), and on PostgreSQL and Redis.

The two must give the same answers, so the same tests ask both.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.errors import CampaignError, DataError, EnvironmentProblem
from campaigns.frame import decision_frame
from campaigns.loading import parse_campaign
from campaigns.settings import Settings
from campaigns.spec import Campaign
from feature_repo.store import FeatureRepository

pytestmark = pytest.mark.slow  # importing Feast takes ten seconds

START = pd.Timestamp("2026-01-01T00:00Z").as_unit("us")


def campaign(numeric: str = "games", categorical: str = "device") -> Campaign:
    return parse_campaign(
        f"""
name: demo
unit: player
source: {{kind: events}}
timestamp: at
features: {{numeric: [{numeric}], categorical: [{categorical}]}}
treatments: {{bonus: {{column: bonus, control: none, levels: {{none: {{}}, coins: {{cost: 1}}}}}}}}
outcomes: {{buys: {{kind: binary, value: 1}}}}
budget: {{amount: 10}}
"""
    )


@pytest.fixture(params=["files", "servers"])
def make(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., FeatureRepository]]:
    """Makes repositories as several processes would; those on servers have a home each."""
    name, homes = f"demo_{uuid.uuid4().hex}", iter(range(100))

    def on_files(spec: Campaign | None = None) -> FeatureRepository:
        repository = FeatureRepository(spec or campaign(), Settings(home=tmp_path))
        repository.apply()
        return repository

    def on_servers(spec: Campaign | None = None) -> FeatureRepository:
        renamed = (spec or campaign()).model_copy(update={"name": name})
        repository = FeatureRepository(renamed, servers(tmp_path / str(next(homes))))
        repository.apply()
        return repository

    if request.param == "files":
        yield on_files
        return
    database, url = request.getfixturevalue("postgres"), request.getfixturevalue("redis_url")

    def servers(home: Path) -> Settings:
        return Settings(home=home, feast_database=database, feast_online=url)

    yield on_servers
    from redis import Redis

    with Redis.from_url(url) as redis:
        if keys := list(redis.scan_iter(f"*{name}*", count=10_000)):
            redis.delete(*keys)


files_only = pytest.mark.parametrize("make", ["files"], indirect=True)


def hours(*values: float) -> pd.Series:
    return pd.Series(START + pd.to_timedelta(values, unit="h")).astype("datetime64[us, UTC]")


def seen(*rows: tuple[str, float, float | None, str | None]) -> pd.DataFrame:
    """Features as decisions saw them: (unit, hour, games, device)."""
    units, times, games, devices = zip(*rows)
    return pd.DataFrame(
        {
            "unit_id": units,
            "decided_at": hours(*times),
            "games": np.array(games, dtype=np.float64),
            "device": np.array(devices, dtype=object),
        }
    )


def asked(*rows: tuple[str, float]) -> pd.DataFrame:
    units, times = zip(*rows)
    return pd.DataFrame({"unit_id": units, "decided_at": hours(*times)})


def fresh(*rows: tuple[str, float, float | None, str | None]) -> pd.DataFrame:
    return seen(*rows).rename(columns={"decided_at": "event_timestamp"})


# Training: point in time


def test_the_future_does_not_leak_and_the_present_counts(
    make: Callable[..., FeatureRepository],
) -> None:
    repository = make()
    repository.ingest(seen(("a", 1, 1.0, "ios"), ("a", 3, 999.0, "leak"), ("b", 2, 2.0, "web")))
    microsecond = 1 / 3_600_000_000
    joined = repository.training_frame(
        asked(("a", 3 - microsecond), ("a", 1), ("a", 1 - microsecond), ("a", 3), ("b", 50))
    )
    np.testing.assert_array_equal(joined["games"], [1.0, 1.0, np.nan, 999.0, 2.0])
    assert joined["device"].tolist() == ["ios", "ios", None, "leak", "web"]


def test_every_decision_comes_back_once_in_its_place(
    make: Callable[..., FeatureRepository],
) -> None:
    repository = make()
    repository.ingest(seen(("a", 1, 1.0, "ios"), ("b", 1, 2.0, None)))
    decisions = asked(("stranger", 2), ("b", 2), ("a", 2), ("b", 2), ("a", 0)).assign(
        decision_id=list("vwxyz"), reward=[5, 4, 3, 2, 1]
    )
    decisions.index = pd.Index([9, 3, 3, 7, 1])
    joined = repository.training_frame(decisions)
    assert joined["decision_id"].tolist() == list("vwxyz")
    assert joined.index.tolist() == [9, 3, 3, 7, 1]
    np.testing.assert_array_equal(joined["games"], [np.nan, 2.0, 1.0, 2.0, np.nan])
    assert joined["device"].tolist() == [None, None, "ios", None, None]


def test_the_decision_frame_comes_back_as_it_was(make: Callable[..., FeatureRepository]) -> None:
    rng = np.random.default_rng(3)
    count = 500
    table = pd.DataFrame(
        {
            "player": rng.integers(0, 60, count),
            "at": START + pd.to_timedelta(rng.permutation(count * 7)[:count], unit="min"),
            "games": np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count)),
            "device": rng.choice(np.array(["ios", "web", None], dtype=object), count),
            "bonus": rng.choice(["none", "coins"], count),
            "buys": rng.integers(0, 2, count),
        }
    )
    frame = decision_frame(table, campaign(), "table")
    repository = make()
    assert repository.ingest(frame) == count
    assert repository.ingest(frame) == 0
    pd.testing.assert_frame_equal(repository.training_frame(frame), frame)
    without = frame.drop(columns=["games", "device"])
    pd.testing.assert_frame_equal(repository.training_frame(without), frame)
    nobody = repository.training_frame(without.iloc[:0])
    pd.testing.assert_series_equal(nobody.dtypes, frame.dtypes)


def random_log(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Few units and few times, so that equal ones are common."""
    devices = np.array(["ios", "web", None], dtype=object)
    return pd.DataFrame(
        {
            "unit_id": rng.choice(["a", "b", "c", "d"], count),
            "decided_at": hours(*rng.integers(0, 12, count)),
            "games": np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count)),
            "device": rng.choice(devices, count),
        }
    )


def test_the_join_is_what_a_loop_over_the_log_finds(make: Callable[..., FeatureRepository]) -> None:
    rng = np.random.default_rng(11)
    repository = make()
    batches = [random_log(rng, 30) for _ in range(3)]
    for batch in batches:
        repository.ingest(batch)
    log = pd.concat(batches, ignore_index=True)  # of equal (unit, time) the last one counts
    decisions = random_log(rng, 200)[["unit_id", "decided_at"]]
    joined = repository.training_frame(decisions)
    for row in joined.itertuples():
        past = log[(log["unit_id"] == row.unit_id) & (log["decided_at"] <= row.decided_at)]
        if past.empty:
            assert np.isnan(row.games)
            assert row.device is None
        else:
            expected = past.sort_values("decided_at", kind="stable").iloc[-1]
            np.testing.assert_equal(row.games, expected["games"])
            assert row.device == expected["device"]


@files_only
def test_a_join_that_loses_rows_is_found_out(
    make: Callable[..., FeatureRepository], monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_repo.asof import AsofJob

    repository = make()
    repository.ingest(seen(("a", 1, 1.0, "ios")))
    query = AsofJob._query
    monkeypatch.setattr(AsofJob, "_query", lambda job: query(job).replace("LEFT JOIN", "JOIN"))
    with pytest.raises(DataError, match="gave 1 rows for 2 decisions; each must come back once"):
        repository.training_frame(asked(("a", 2), ("stranger", 2)))


def test_a_unit_that_comes_back_ten_thousand_times(make: Callable[..., FeatureRepository]) -> None:
    count = 10_000
    frame = pd.DataFrame(
        {
            "unit_id": "guest",
            "decided_at": START + pd.to_timedelta(np.arange(count), unit="s"),
            "games": np.arange(count, dtype=np.float64),
            "device": "web",
        }
    )
    repository = make()
    repository.ingest(frame)
    joined = repository.training_frame(frame[["unit_id", "decided_at"]])
    np.testing.assert_array_equal(joined["games"], frame["games"])


# Online


def test_online_has_the_last_features_of_each_unit(make: Callable[..., FeatureRepository]) -> None:
    repository = make()
    repository.ingest(seen(("a", 5, 5.0, "ios"), ("a", 1, 1.0, "web"), ("b", 2, None, None)))
    assert repository.materialize() == 2
    values = repository.online(["b", "stranger", "a", "b"])
    np.testing.assert_array_equal(values["games"], [np.nan, np.nan, 5.0, np.nan])
    assert values["games"].dtype == np.float64
    assert values["device"].tolist() == [None, None, "ios", None]
    assert values["device"].dtype == object
    assert repository.online([])["games"].shape == (0,)


def test_materialize_writes_what_is_new_only(make: Callable[..., FeatureRepository]) -> None:
    repository = make()
    repository.ingest(seen(("a", 5, 5.0, "ios"), ("b", 5, 5.0, "ios")))
    assert repository.materialize() == 2
    assert repository.materialize() == 0
    repository.ingest(seen(("b", 1, 1.0, "late"), ("c", 1, 1.0, "web")))
    assert repository.materialize() == 2
    assert repository.online(["a", "b", "c"])["device"].tolist() == ["ios", "ios", "web"]


def test_materialize_until_goes_back_and_forth(make: Callable[..., FeatureRepository]) -> None:
    repository = make()
    repository.ingest(seen(("a", 1, 1.0, "web"), ("a", 5, 5.0, "ios")))
    repository.materialize()
    assert repository.materialize(until=(START + pd.Timedelta("2h")).to_pydatetime()) == 1
    assert repository.online(["a"])["games"].tolist() == [1.0]
    assert repository.materialize() == 1
    assert repository.online(["a"])["games"].tolist() == [5.0]
    with pytest.raises(DataError, match="until 2026-01-01 00:00:00 has no zone"):
        repository.materialize(until=datetime(2026, 1, 1))


def test_more_units_than_a_batch(make: Callable[..., FeatureRepository]) -> None:
    count = 5_500
    units = [f"u{row}" for row in range(count)]
    frame = pd.DataFrame(
        {
            "unit_id": units,
            "decided_at": START,
            "games": np.arange(count, dtype=float),
            "device": None,
        }
    )
    repository = make()
    repository.ingest(frame)
    assert repository.materialize() == count
    np.testing.assert_array_equal(repository.online(units)["games"], np.arange(count))


# Push


def test_a_push_counts_at_once_online_and_in_later_joins(
    make: Callable[..., FeatureRepository],
) -> None:
    repository = make()
    repository.ingest(seen(("a", 1, 1.0, "ios")))
    repository.materialize()
    assert repository.push(fresh(("a", 4, 4.0, None), ("new", 4, 7.0, "web"))) == 2
    other = make()  # as another process would see it
    assert other.online(["a", "new"])["games"].tolist() == [4.0, 7.0]
    assert other.online(["a"])["device"].tolist() == [None]
    joined = other.training_frame(asked(("a", 3), ("a", 4), ("new", 9)))
    assert joined["games"].tolist() == [1.0, 4.0, 7.0]
    repository.materialize()
    assert repository.online(["a", "new"])["games"].tolist() == [4.0, 7.0]


def test_a_late_push_does_not_take_online_back(make: Callable[..., FeatureRepository]) -> None:
    repository = make()
    repository.push(fresh(("a", 4, 4.0, "ios")))
    assert repository.push(fresh(("a", 2, 2.0, "old"), ("b", 2, 2.0, "web"))) == 1
    values = repository.online(["a", "b"])
    assert values["games"].tolist() == [4.0, 2.0]
    assert repository.training_frame(asked(("a", 3)))["device"].tolist() == ["old"]
    assert repository.push(fresh(("c", 9, 9.0, "last"), ("c", 8, 8.0, "first"))) == 1
    assert repository.online(["c"])["device"].tolist() == ["last"]


def test_a_push_without_any_feature_is_refused(make: Callable[..., FeatureRepository]) -> None:
    with pytest.raises(DataError, match="every feature of every row is missing"):
        make().push(fresh(("a", 1, None, None)))
    with pytest.raises(DataError, match="push: column 'event_timestamp' is missing"):
        make().push(seen(("a", 1, 1.0, None)))


def test_decisions_are_served_while_others_push_and_materialize(
    make: Callable[..., FeatureRepository],
) -> None:
    repository = make()
    count = 4_000
    units = [f"u{row}" for row in range(count)]
    frame = pd.DataFrame({"unit_id": units, "decided_at": START, "games": 1.0, "device": "ios"})
    repository.ingest(frame)
    repository.push(fresh(("known", 1, 3.0, "ios")))
    done = threading.Event()

    def load() -> int:
        try:
            return FeatureRepository(
                repository.campaign, repository.settings, repository.folder
            ).materialize()
        finally:
            done.set()

    def read() -> int:
        reads = 0
        while not done.is_set():
            assert repository.online(["known"])["games"].tolist() == [3.0]
            reads += 1
        return reads

    def push(worker: int) -> None:
        for step in range(5):
            repository.push(fresh((f"pushed{worker}", step, float(step), "web")))

    with ThreadPoolExecutor(5) as pool:
        loaded, reads = pool.submit(load), pool.submit(read)
        list(pool.map(push, range(3)))
        assert loaded.result() >= count
        assert reads.result() > 0
    assert repository.online(["pushed0", "pushed1", "pushed2"])["games"].tolist() == [4.0] * 3
    assert repository.online(["u7"])["games"].tolist() == [1.0]


def test_what_is_pushed_between_reading_the_log_and_writing_stays_online(
    make: Callable[..., FeatureRepository], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, other = make(), make()
    repository.ingest(seen(("a", 0, 0.0, "ios")))
    latest, pushes = repository.log.latest, []

    def and_somebody_pushes(*asked: datetime | None) -> object:
        found, step = latest(*asked), len(pushes) + 1
        rows = fresh(("a", step, float(step), "web"))
        pushes.append(threading.Thread(target=other.push, args=(rows,)))
        pushes[-1].start()
        pushes[-1].join(2.0)  # unless it has to wait
        return found

    monkeypatch.setattr(repository.log, "latest", and_somebody_pushes)
    repository.materialize()
    for push in pushes:
        push.join()
    assert repository.online(["a"])["games"].tolist() == [float(len(pushes))]


# The campaign


def test_columns_whose_names_need_care(make: Callable[..., FeatureRepository]) -> None:
    numeric = ["Win rate (7d)", "7d_games", "select", "Age", "age", "points_y", "rn", "größe"]
    categorical = ["order", "Device Type", "a:b", "entity", "log"]
    spec = campaign(", ".join(map(repr, numeric)), ", ".join(map(repr, categorical)))
    frame = asked(("a", 1), ("b", 1))
    for place, name in enumerate(numeric):
        frame[name] = [float(place), np.nan]
    for name in categorical:
        frame[name] = np.array([name, None], dtype=object)
    repository = make(spec)
    repository.ingest(frame)
    repository.materialize()
    pd.testing.assert_frame_equal(repository.training_frame(frame), frame)
    values = repository.online(["a", "b"])
    assert list(values) == [*numeric, *categorical]
    for name in numeric + categorical:
        np.testing.assert_array_equal(values[name], frame[name].to_numpy())
    later = frame.rename(columns={"decided_at": "event_timestamp"}).iloc[:1]
    assert repository.push(later.assign(event_timestamp=hours(2), Age=40.0)) == 1
    assert repository.online(["a"])["Age"].tolist() == [40.0]
    assert repository.online(["a"])["age"].tolist() == [4.0]


def test_a_campaign_that_gains_a_feature(make: Callable[..., FeatureRepository]) -> None:
    before = make()
    before.ingest(seen(("a", 1, 1.0, "ios")))
    before.push(fresh(("a", 2, 2.0, "web")))
    before.materialize()
    after = make(campaign("games, wins"))
    assert after.online(["a"])["device"].tolist() == ["web"]
    joined = after.training_frame(asked(("a", 1), ("a", 2)))
    assert joined["games"].tolist() == [1.0, 2.0]
    assert joined["wins"].isna().all()
    after.ingest(seen(("a", 1, 1.0, "ios")).assign(wins=9.0))
    after.push(fresh(("a", 3, 3.0, "tv")).assign(wins=10.0))
    assert after.training_frame(asked(("a", 1), ("a", 3)))["wins"].tolist() == [9.0, 10.0]
    after.materialize()
    assert after.online(["a"])["wins"].tolist() == [10.0]


@files_only
def test_a_home_that_moved(make: Callable[..., FeatureRepository], tmp_path: Path) -> None:
    make().ingest(seen(("a", 1, 1.0, "ios")))
    (tmp_path / "feast").rename(tmp_path / "elsewhere")
    moved = FeatureRepository(campaign(), Settings(home=tmp_path), tmp_path / "elsewhere" / "demo")
    moved.apply()
    assert moved.training_frame(asked(("a", 2)))["games"].tolist() == [1.0]


def test_features_must_be_spelled_out(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=r"demo: features holds '\*'"):
        FeatureRepository(campaign("'*'"), Settings(home=tmp_path))


def test_before_apply_it_says_what_is_missing(tmp_path: Path) -> None:
    repository = FeatureRepository(campaign(), Settings(home=tmp_path))
    for call in (repository.materialize, lambda: repository.online(["a"])):
        with pytest.raises(EnvironmentProblem, match=r"call apply\(\) first"):
            call()


# Servers

servers_only = pytest.mark.parametrize("make", ["servers"], indirect=True)


@servers_only
def test_another_machine_sees_what_was_applied_and_its_own_changes_count(
    make: Callable[..., FeatureRepository], tmp_path: Path
) -> None:
    here = make()
    here.push(fresh(("a", 2, 2.0, "ios")))
    settings = here.settings.model_copy(update={"home": tmp_path / "replica"})
    replica = FeatureRepository(here.campaign, settings)
    assert replica.online(["a"])["games"].tolist() == [2.0]  # never applied there
    assert not (replica.folder / "feature_store.yaml").exists()
    wider = make(campaign("games, wins"))  # on a third machine
    wider.push(fresh(("a", 3, 3.0, "ios")).assign(wins=1.0))
    here.apply()  # the campaign as it is here counts again
    assert here.training_frame(asked(("a", 9)))["games"].tolist() == [3.0]
    config = (here.folder / "feature_store.yaml").read_text()
    assert "postgresql://" not in config  # nor any password
    assert "redis://" not in config


@servers_only
def test_many_machines_may_apply_and_append_at_once(
    make: Callable[..., FeatureRepository],
) -> None:
    with ThreadPoolExecutor(4) as pool:
        repositories = list(pool.map(lambda _: make(), range(4)))
        rows = seen(*(("a", hour, float(hour), "ios") for hour in range(50)))
        assert sum(pool.map(lambda each: each.ingest(rows), repositories)) == 50
    assert repositories[0].log.latest()[0].num_rows == 1


@servers_only
def test_words_that_a_table_of_text_could_spoil(make: Callable[..., FeatureRepository]) -> None:
    words = ["", "NULL", "\\N", "\\.", 'say "hi"', "a,b", "two\nlines", "é 漢", " ", "nan"]
    repository = make()
    frame = pd.DataFrame(
        {
            "unit_id": [f"u,{row}\n" for row in range(len(words))],
            "decided_at": START,
            "games": [1e-300, 1e300, 0.1, -0.0, np.nan, 2**53 + 2.0, 1 / 3, 5e-324, 1.0, -1.5],
            "device": words,
        }
    )
    repository.ingest(frame)
    pd.testing.assert_frame_equal(repository.training_frame(frame), frame, check_exact=True)
    repository.materialize()
    assert repository.online(frame["unit_id"].tolist())["device"].tolist() == words


def test_a_server_that_is_away_is_said_plainly(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    away = Settings(home=tmp_path, feast_database="postgresql://me:secret@127.0.0.1:1/none")
    with pytest.raises(EnvironmentProblem, match="UPDRAFT_FEAST_DATABASE") as refused:
        FeatureRepository(campaign(), away).apply()
    assert "secret" not in str(refused.value)
    other = Settings(home=tmp_path, feast_database="mysql://me@127.0.0.1/none")
    with pytest.raises(EnvironmentProblem, match="'mysql' is not supported; write postgresql://"):
        FeatureRepository(campaign(), other)
    away = Settings(home=tmp_path, feast_online="redis://:secret@127.0.0.1:1/0")
    with pytest.raises(EnvironmentProblem, match="UPDRAFT_FEAST_ONLINE") as refused:
        FeatureRepository(campaign(), away).apply()
    assert "secret" not in str(refused.value)
