"""Where a step and its RayJob meet: the same in a folder and in an object store (moto's S3 server)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from campaigns.errors import CampaignError, RemoteError
from components import lease
from components.exchange import Exchange

ROOT = Path(__file__).resolve().parents[2]
JOB = """
import sys, time
from components import lease
from components.exchange import Exchange
lease.BEAT_S, lease.LEASE_S = 0.05, 3.0
lease.end_without(Exchange(sys.argv[1]), lambda text: print(text, flush=True))
time.sleep(60)
"""


@pytest.fixture(params=["folder", "s3"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> Exchange:
    if request.param == "folder":
        return Exchange(str(tmp_path / "run-1" / "train_model"))
    return Exchange(f"{request.getfixturevalue('s3')}/exchange/run-1/train_model/")


def test_files_folders_and_json_come_back_as_they_were(exchange: Exchange, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "weights").mkdir(parents=True)
    (model / "weights" / "a.bin").write_bytes(b"\x00\x01")
    (model / "campaign.json").write_text("{}")
    exchange.put(str(model), "model")
    exchange.put(str(model / "campaign.json"), "chosen")
    exchange.write("task.json", {"seed": 3})
    exchange.get("model", str(tmp_path / "back" / "model"))
    exchange.get("chosen", str(tmp_path / "back" / "chosen.json"))
    assert (tmp_path / "back" / "model" / "weights" / "a.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "back" / "chosen.json").read_text() == "{}"
    assert exchange.read("task.json") == {"seed": 3}
    assert exchange.uri("model").endswith("run-1/train_model/model")


def test_what_is_not_there_is_none_and_what_is_removed_is_gone(exchange: Exchange) -> None:
    exchange.remove()
    assert exchange.read("task.json") is None
    exchange.forget("task.json")
    exchange.write("task.json", {})
    exchange.write("task.json", {"again": True})
    assert exchange.read("task.json") == {"again": True}
    exchange.forget("task.json")
    assert exchange.read("task.json") is None
    exchange.write("done.json", {})
    exchange.remove()
    assert exchange.read("done.json") is None


def test_a_place_that_cannot_be_opened_is_told(s3: str) -> None:
    with pytest.raises(CampaignError, match="nfs://away/exchange: is no place"):
        Exchange("nfs://away/exchange")
    with pytest.raises(RemoteError, match="s3://nobody-made-this"):
        Exchange("s3://nobody-made-this/exchange").write("task.json", {})


def test_a_job_runs_while_a_step_waits_for_it_and_ends_when_none_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    exchange = Exchange(str(tmp_path / "exchange"))
    command = [sys.executable, "-c", JOB, exchange.place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as job:
        with lease.kept(exchange), pytest.raises(subprocess.TimeoutExpired):
            job.wait(7)
        out, _ = job.communicate(timeout=30)
    assert job.returncode == lease.ABANDONED
    assert out == "nobody has waited for this job for 3 s: it ends itself\n"
