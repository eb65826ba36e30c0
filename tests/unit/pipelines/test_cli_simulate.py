"""``updraft simulate``: a world's log and its truth as tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.worlds import known_worlds, world
from pipelines.cli import run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_tables_are_the_world_s(capsys: pytest.CaptureFixture[str]) -> None:
    command = "simulate game_bonus --rows 500 --seed 3 --out made/log.parquet --truth truth.csv"
    found = told(command.split(), capsys)
    log, truth = pd.read_parquet("made/log.parquet"), pd.read_csv("truth.csv")
    pd.testing.assert_frame_equal(log, world("game_bonus").log(500, seed=3))
    assert (found["rows"], found["units"]) == (500, log["player_id"].nunique())
    assert list(truth["decision_id"]) == list(log["decision_id"])
    expected = world("game_bonus").truth(log)
    assert truth["plays_more_7d.skin"].to_numpy() == pytest.approx(expected[:, 2, 1])
    effect = expected[:, 1, 0] - expected[:, 0, 0]
    assert found["mean_effects"]["coins"]["login_next_day"] == pytest.approx(effect.mean())


def test_the_truth_is_that_of_the_row_s_day() -> None:
    command = "simulate game_bonus --rows 300 --days 3 --first-day 60 --option effect_drift=0.02"
    assert run([*command.split(), "--out", "log.parquet", "--truth", "truth.parquet"]) == 0
    log, truth = pd.read_parquet("log.parquet"), pd.read_parquet("truth.parquet")
    drifting = world("game_bonus", effect_drift=0.02)
    day = np.repeat([60, 61, 62], 100)
    assert truth["login_next_day.coins"].to_numpy() == pytest.approx(
        drifting.truth(log, day=day)[:, 1, 0]
    )
    assert not np.allclose(truth["login_next_day.coins"], world("game_bonus").truth(log)[:, 1, 0])


def test_a_day_is_a_unit_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = told("simulate discount --rows 200 --days 1 --out units.csv".split(), capsys)
    assert found["units"] == 200


def test_every_world_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(["simulate", "--list"], capsys)
    assert set(found) == set(known_worlds())
    assert found["game_bonus"]["options"] == {"covariate_drift": 0.0, "effect_drift": 0.0}
    assert run(["simulate", "--list"]) == 0
    assert "A game that may offer each player a login bonus" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("", 2, "WORLD: is missing"),
        ("game_bonus", 2, "--out: is missing"),
        ("moon --out log.parquet", 2, "world 'moon' does not exist; choose from 'game_bonus'"),
        ("game_bonus --out log.txt", 2, "'log.txt' is no table; end it in .parquet or .csv"),
        ("game_bonus --out log.csv --truth t", 2, "--truth: 't' is no table"),
        ("game_bonus --out log.csv --option drift", 2, "--option: 'drift' is no option"),
        ("game_bonus --out log.csv --option drift=1", 2, "has no option 'drift'"),
        ("game_bonus --out file/log.csv", 5, "file/log.csv: can't be written"),
        ("game_bonus --out folder.csv", 5, "folder.csv: can't be written"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("in the way")
    Path("folder.csv").mkdir()
    assert run(["simulate", *arguments.split()]) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.splitlines()) == 1
