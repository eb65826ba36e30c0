"""The command line as people meet it: help, errors without stack traces, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from campaigns.worlds import world
from pipelines.cli import app, run

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UPDRAFT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def commands() -> list[list[str]]:
    def walk(command: Any, path: list[str]) -> list[list[str]]:
        below = getattr(command, "commands", {})
        return [path, *(found for n, c in below.items() for found in walk(c, [*path, n]))]

    return walk(typer.main.get_command(app), [])


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_explains_itself(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: updraft" in text
    if path and path != ["data"]:
        assert "Example:" in text


def test_check_passes_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(ROOT / "campaigns" / "game_bonus.yaml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 120_000
    assert told["arms"] == ["none", "coins", "skin"]


def test_check_tells_all_mistakes_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "campaigns" / "game_bonus.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(
        text.replace("per: day", "per: dy").replace("epsilon: 0.2", "epsilon: 2")
    )
    assert run(["check", "wrong.yaml"]) == 2
    told = capsys.readouterr().err
    assert "budget.per" in told
    assert "exploration.epsilon" in told
    assert "Traceback" not in told


def with_table(table: pd.DataFrame, folder: Path, more: str = "") -> None:
    """Write the table, and mine.yaml: game_bonus on it."""
    table.to_parquet(folder / "log.parquet")
    text = (ROOT / "campaigns" / "game_bonus.yaml").read_text()
    source = "source: {kind: parquet, path: log.parquet}"
    (folder / "mine.yaml").write_text(re.sub(r"source: {.*", source, text) + more)


def test_check_refuses_a_broken_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sample-ratio mismatch: a tenth of the treated rows got lost."""
    log = world("game_bonus").log(20_000, seed=1)
    lost = (log["bonus"] == "coins") & (log.index % 10 == 0)
    with_table(log[~lost], tmp_path)
    assert run(["check", "mine.yaml"]) == 4
    assert "p" in capsys.readouterr().err


def test_check_of_a_table_in_pieces_says_what_it_says_of_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = world("game_bonus").log(3_000, seed=1)
    with_table(log.assign(decision_id=[f"d{row}" for row in range(len(log))]), tmp_path)
    told = []
    for rows in (10_000, 700):
        monkeypatch.setattr("campaigns.sources.piece_rows", lambda columns, rows=rows: rows)
        assert run(["check", "mine.yaml", "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert told[0]["rows"] == 3_000
    with_table(log.assign(decision_id=[f"d{row % 2_000}" for row in range(len(log))]), tmp_path)
    assert run(["check", "mine.yaml"]) == 3
    assert "column 'decision_id': 1000 rows repeat an id" in capsys.readouterr().err


def test_check_reads_the_columns_that_limits_ask_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "\nlimits: [{{kind: budget, name: some, amount: 9, where: {{{}}}}}]\n"
    log = world("game_bonus").log(500, seed=1)
    with_table(log, tmp_path, more.format(f"device: [{log['device'].mode()[0]}]"))
    assert run(["check", "mine.yaml"]) == 0
    with_table(log, tmp_path, more.format("device: [nobody]"))
    assert run(["check", "mine.yaml"]) == 2
    assert "limits.0.where: fits none of 500 units" in capsys.readouterr().err


def test_check_refuses_a_net_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "campaigns" / "game_bonus.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("name: mtmt", "name: mtnt"))
    assert run(["check", "wrong.yaml"]) == 2
    assert "mtmt" in capsys.readouterr().err


def test_from_a_table_to_a_checked_campaign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world("game_bonus").log(5_000, seed=3).to_parquet(tmp_path / "log.parquet")
    assert run(["init", "mine", "--from", "log.parquet"]) == 0
    assert run(["check", "mine.yaml"]) == 0
    assert run(["init", "mine", "--from", "log.parquet"]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["check", "nowhere.yaml"], 2, "nowhere.yaml: can't be read"),
        (["init", "mine", "--from", "nowhere.parquet"], 3, "nowhere.parquet: is missing"),
        (["data", "get", "mnist"], 2, "'mnist' is no dataset; choose from 'hillstrom'"),
        (["serve", "nothing"], 2, "has no champion"),
        (["rollback", "nothing"], 2, "nothing"),
        (["status", "nothing"], 2, "nothing is known of it"),
        (["run"], 2, "Missing argument"),
        (["frobnicate"], 2, "No such command"),
        (["data", "get", "hillstrom", "--from", "nowhere.csv"], 3, "nowhere.csv"),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown


def test_clean_empties_the_home_and_nothing_else(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "runs" / "old").mkdir(parents=True)
    assert run(["clean", "--yes"]) == 0
    assert list(home.iterdir()) == [home / "locks"] or not list(home.iterdir())
    (home / "thesis.doc").parent.mkdir(exist_ok=True)
    (home / "thesis.doc").write_text("precious")
    assert run(["clean", "--yes"]) == 5
    assert (home / "thesis.doc").read_text() == "precious"
    assert "thesis.doc" in capsys.readouterr().err


def test_hillstrom_arrives_where_its_campaign_looks(
    shared_data: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = shared_data / "hillstrom" / "hillstrom.csv"
    assert run(["data", "get", "hillstrom", "--from", str(csv)]) == 0
    assert len(pd.read_parquet(home / "data" / "hillstrom.parquet")) == 64_000
    assert run(["check", str(ROOT / "campaigns" / "hillstrom.yaml"), "--json"]) == 0
    told = capsys.readouterr().out
    assert json.loads(told[told.index("{") :])["rows"] == 64_000
